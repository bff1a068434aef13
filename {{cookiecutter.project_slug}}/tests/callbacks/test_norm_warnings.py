"""Warnings come when they are due, once, and name the layer that is worst."""

from {{cookiecutter.package_name}}.callbacks.norm_warnings import LOOKS, NormWarnings

FIRST = {"alpha/00_a": 0.5, "alpha/01_b": 1.0}


def test_saturation_from_nine_tenths_on() -> None:
    warnings = NormWarnings()
    assert warnings.of_readings(50, {"saturated/00_a": 0.9, "saturated/01_b": 0.1, **FIRST}, FIRST) == []
    (line,) = warnings.of_readings(100, {"saturated/00_a": 0.93, "saturated/01_b": 0.95, **FIRST}, FIRST)
    assert line.startswith("01_b saturates on 95% of its inputs (and so 1 more)")
    assert "optim.lr" in line
    assert "schedule.warmup_share" in line
    assert warnings.of_readings(150, {"saturated/00_a": 0.99, **FIRST}, FIRST) == [], "once"


def test_saturation_before_anything_is_learned_is_of_the_start() -> None:
    (line,) = NormWarnings().of_readings(0, {"saturated/00_a": 0.93, **FIRST}, FIRST)
    assert "model.init" in line
    assert "optim.lr" not in line


def test_an_alpha_that_dies_or_changes_its_sign() -> None:
    for alpha, words in (0.06, None), (0.04, "has died: 0.04, from 1"), (-0.3, "has changed its sign: -0.3, from 1"):
        warnings = NormWarnings()
        lines = warnings.of_readings(50, {"alpha/00_a": 0.2, "alpha/01_b": alpha}, FIRST)
        assert len(lines) == (words is not None)
        if words is not None:
            assert lines[0].startswith(f"alpha of 01_b {words};")
            assert "optim.alpha_lr_factor" in lines[0]
            assert warnings.of_readings(50, {"alpha/01_b": alpha}, FIRST) == [], "once"
    warnings = NormWarnings()
    assert warnings.of_readings(50, {"alpha/00_a": -0.5}, {"alpha/00_a": -0.5}) == [], "it began so"
    assert warnings.of_readings(50, {"alpha/00_a": 0.0}, {"alpha/00_a": 0.0}) == []
    assert warnings.of_readings(50, {"alpha/00_a": float("nan")}, FIRST) == []


def test_a_gradient_that_stays_away() -> None:
    quiet = {"alpha_grad/00_a": 1e-6, "alpha_grad/01_b": 0.1, "alpha_grad/02_c": 0.2}
    warnings = NormWarnings()
    for _ in range(LOOKS - 1):
        assert warnings.of_gradients(quiet) == []
    assert warnings.of_gradients({**quiet, "alpha_grad/00_a": 0.01}) == [], "it came back, and counting begins anew"
    for _ in range(LOOKS - 1):
        assert warnings.of_gradients(quiet) == []
    resumed = NormWarnings()
    resumed.load_state_dict(warnings.state_dict())
    (line,) = resumed.of_gradients(quiet)
    assert line.startswith("alpha of 00_a has had next to no gradient for 5 looks: 1e-06, and the median layer 0.1;")
    assert resumed.of_gradients(quiet) == []


def test_gradients_that_vanish_together_are_no_news() -> None:
    warnings = NormWarnings()
    for _ in range(2 * LOOKS):
        assert warnings.of_gradients({"alpha_grad/00_a": 0.0, "alpha_grad/01_b": 0.0}) == []
        assert warnings.of_gradients({}) == []
