"""What config files compute."""

import pytest

from {{cookiecutter.package_name}}.config.values import by_width

FACTORS = {1024: 1.0, 4096: 0.25}


@pytest.mark.parametrize(("width", "factor"), [(1, 1), (1024, 1), (2048, 0.5), (4096, 0.25), (8192, 0.25)], ids=str)
def test_between_widths_logarithms_are_interpolated(width: int, factor: float) -> None:
    """4 times the width is a quarter of the factor, so twice the width is half of it."""
    assert by_width(3.0, width, FACTORS) == pytest.approx(3.0 * factor)
