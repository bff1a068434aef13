"""Warnings come when they are due, once, and name the layer that is worst."""

import pytest

from {{cookiecutter.package_name}}.callbacks.norm_warnings import PATIENCE, NormWarnings

FIRST = {"alpha/00_a": 0.5, "alpha/01_b": 1.0}


def after(first: dict[str, float]) -> NormWarnings:
    warnings = NormWarnings()
    assert warnings.of_values(0, first) == []
    return warnings


def test_saturation_from_nine_tenths_on() -> None:
    warnings = after(FIRST)
    assert warnings.of_values(50, {"saturated/00_a": 0.9, "saturated/01_b": 0.1, **FIRST}) == []
    (line,) = warnings.of_values(100, {"saturated/00_a": 0.93, "saturated/01_b": 0.95, **FIRST})
    assert line.startswith("01_b saturates on 95%")
    assert "1 more" in line
    assert "optim.lr" in line
    assert warnings.of_values(150, {"saturated/00_a": 0.99, **FIRST}) == [], "once"


@pytest.mark.parametrize(("alpha", "words"), [(0.06, ""), (0.04, "died"), (-0.3, "sign"), (float("nan"), "")])
def test_an_alpha_that_dies_or_changes_its_sign(alpha: float, words: str) -> None:
    warnings = after(FIRST)
    lines = warnings.of_values(50, {"alpha/00_a": 0.2, "alpha/01_b": alpha})
    assert len(lines) == bool(words)
    assert all(line.startswith("alpha of 01_b") and words in line for line in lines)
    assert warnings.of_values(100, {"alpha/00_a": 0.2, "alpha/01_b": alpha}) == [], "once"


def test_a_gradient_that_stays_away() -> None:
    tiny = {"alpha_grad/00_a": 1e-6, "alpha_grad/01_b": 0.1, "alpha_grad/02_c": 0.2}
    warnings = NormWarnings()
    for _ in range(PATIENCE - 1):
        assert warnings.of_gradients(tiny) == []
    assert warnings.of_gradients({**tiny, "alpha_grad/00_a": 0.01}) == [], "it came back, and counting begins anew"
    for _ in range(PATIENCE - 1):
        assert warnings.of_gradients(tiny) == []
    (line,) = warnings.of_gradients(tiny)
    assert line.startswith("alpha of 00_a")
    assert warnings.of_gradients(tiny) == [], "once"
