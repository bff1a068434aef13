"""The one table of constraints on the values of a config: ranges, choices, and relations between keys.

A check takes a value and all values by dotted key, and returns "" or a text that says what would be right.
"""

import fnmatch
import re
from collections.abc import Callable, Mapping
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

from .errors import UsageError

NORMS = Path(__file__).resolve().parents[2] / "configs" / "norm"
Check = Callable[[Any, Mapping[str, Any]], str]


def is_number(value: Any) -> bool:
    """Returns true for a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _numbers(expected: str, holds: Callable[[float], bool]) -> Check:
    """A check of a number, or of each number of a list."""

    def check(value: Any, _: Mapping[str, Any]) -> str:
        numbers = value if isinstance(value, list) else [value]
        return "" if all(is_number(number) and holds(number) for number in numbers) else f"expected {expected}"

    return check


def at_least(low: float) -> Check:
    return _numbers(f"{low} or more", lambda number: number >= low)


def above(low: float) -> Check:
    return _numbers(f"a number above {low}", lambda number: number > low)


def between(low: float, high: float) -> Check:
    return _numbers(f"a number from {low} to {high}", lambda number: low <= number <= high)


def share() -> Check:
    return _numbers("0 or more, and less than 1", lambda number: 0 <= number < 1)


def fraction() -> Check:
    return _numbers("more than 0, and at most 1", lambda number: 0 < number <= 1)


def multiple_of(factor: int) -> Check:
    return _numbers(f"a multiple of {factor}", lambda number: number % factor == 0)


def one_of(*choices: Any) -> Check:
    text = " or ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) or '""' for choice in choices)
    return lambda value, _: "" if value in choices else f"choose {text.replace(' or ', ', ', len(choices) - 2)}"


def none_of(*choices: Any) -> Check:
    return lambda value, _: f"expected no {value}" if value in choices else ""


def matches(pattern: str, expected: str) -> Check:
    return lambda value, _: "" if re.fullmatch(pattern, str(value)) else f"expected {expected}"


def encoding(value: Any, _: Mapping[str, Any]) -> str:
    """The name of a text encoding."""
    try:
        TextIOWrapper(BytesIO(), encoding=value)
    except (LookupError, ValueError):
        return "expected an encoding that Python knows, such as utf-8, cp1252 or shift_jis"
    return ""


def pair(check: Check, rising: bool = False) -> Check:
    """A check of two numbers, with `rising` the first no larger than the second."""

    def checked(value: Any, values: Mapping[str, Any]) -> str:
        if not isinstance(value, list) or len(value) != 2:
            return "expected two numbers, as in [0.1,0.9]"
        ordered = not rising or (all(map(is_number, value)) and value[0] <= value[1])
        return check(value, values) or ("" if ordered else "expected [smallest,largest]")

    return checked


def all_of(*checks: Check) -> Check:
    return lambda value, values: next(filter(None, (check(value, values) for check in checks)), "")


def unless(exception: Any, check: Check) -> Check:
    """A check that also takes the value `exception`, which stands for none or all."""

    def checked(value: Any, values: Mapping[str, Any]) -> str:
        wrong = "" if value == exception else check(value, values)
        return wrong and f"{wrong}, or {exception}"

    return checked


def when(key: str, found: Any, check: Check) -> Check:
    """A check that is made where `key` has the value `found`, or one of a tuple of values."""

    def checked(value: Any, values: Mapping[str, Any]) -> str:
        applies = values.get(key) in (found if isinstance(found, tuple) else (found,))
        wrong = check(value, values) if applies else ""
        return wrong and f"{wrong}, with {key}={values[key]}"

    return checked


def divides(key: str, into: int = 1) -> Check:
    """A check that another key's value is a multiple of this one, and the quotient one of `into`."""
    rest = f" into multiples of {into}" if into > 1 else ""

    def check(value: Any, values: Mapping[str, Any]) -> str:
        whole = values.get(key)
        fits = not is_number(value) or not is_number(whole) or whole % (value * into) == 0  # some take lists
        return "" if fits else f"expected a number that divides {key}={whole}{rest}"

    return check


def relation(words: str, key: str, holds: Callable[[Any, Any], bool]) -> Check:
    """A check that `holds(value, the value of key)`, where there is such a key."""

    def check(value: Any, values: Mapping[str, Any]) -> str:
        right = key not in values or holds(value, values[key])
        return "" if right else f"expected {words} {key}={values[key]}"

    return check


def patches_at_most(most: int) -> Check:
    """A check of the size of a patch, with which an image of model.img_size has so many patches."""

    def check(value: Any, values: Mapping[str, Any]) -> str:
        size = values.get("model.img_size")
        if not is_number(value) or not is_number(size) or (count := (size // value) ** 2) <= most:
            return ""
        model = {"vit": "vit_small", "dit": "dit_s"}.get(values.get("task.name", ""), "<another>")
        return f"expected at most {most} patches of an image of {size} pixels, not {count}; try model={model}"

    return check


def for_channels(value: Any, values: Mapping[str, Any]) -> str:
    """Numbers for the channels of an image: one, or one each."""
    channels = values.get("data.in_chans")
    right = isinstance(value, list) and all(map(is_number, value)) and len(value) in (1, channels)
    wanted = f"expected a list of 1 number, or of as many as data.in_chans={channels}"
    return "" if right else f"{wanted}; data.mean=[0.5] data.std=[0.5] fits"


def qk_norm(value: Any, _: Mapping[str, Any]) -> str:
    """The norm of queries and keys: none, that of the blocks, or the name of another."""
    known = value in ("none", "same") or (NORMS / f"{value}.yaml").is_file()
    return "" if known else "choose none, same, or the name of a norm"


SEED = between(0, 2**32 - 1)
COUNT = at_least(1)
SHARES_STATISTICS = matches("(?!fsdp).*", "trainer=ddp, which shares statistics")
MODEL_INIT = {
    **dict.fromkeys(("vit", "cnn"), ("timm", "fan_in")),
    "dit": ("fan_in", "dit"),
    "llm": ("fan_in", "normal"),
}

# The table of checks at the entrance: every key with a range, a choice or a relation to another key. A key may have
# "*" for any characters; one that a config has not is not checked. null stands for "not set" and passes.
CONSTRAINTS: dict[str, Check] = {
    "seed": SEED,
    "name": matches(r"\w[\w.-]{0,99}", "up to 100 letters, digits, '-', '_' and '.', as in my-run"),
    "checkpoint.every_n_steps": at_least(0),
    "checkpoint.save_top_k": between(1, 1000),
    "init.alpha0": all_of(
        one_of("given", "auto"),
        when("norm.normalizes", True, one_of("given")),
        when("norm.running_scale", True, one_of("given")),
    ),
    "init.norms": one_of("calibrated", "fresh"),
    "init.samples": COUNT,
    "optim.class_path": when("trainer.strategy", "fsdp", matches("(?!.*Muon).*", "no Muon, it takes whole matrices")),
    "optim.lr": at_least(0),
    "optim.betas": pair(share()),
    "optim.weight_decay": at_least(0),
    "optim.alpha_lr_factor": at_least(0),
    "optim.clip_norm": at_least(0),
    "schedule.name": one_of("cosine", "constant", "wsd"),
    "schedule.warmup_share": share(),
    "schedule.warmup_steps": at_least(0),
    "schedule.final_factor": at_least(0),
    "trainer.strategy": all_of(
        when("norm.name", "bn", SHARES_STATISTICS), when("norm.running_scale", True, SHARES_STATISTICS)
    ),
    "trainer.precision": when("trainer.strategy", "fsdp", one_of("32-true", "bf16-mixed")),
    "ema.decay": all_of(share(), when("trainer.precision", ("bf16-true", "16-true"), one_of(0))),
    "monitor.every_n_steps": at_least(0),
    "monitor.samples": COUNT,
    "trainer.max_epochs": all_of(unless(-1, COUNT), when("trainer.max_steps", -1, COUNT)),
    "trainer.max_steps": unless(-1, COUNT),
    "trainer.log_every_n_steps": COUNT,
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.val_every_n_steps": at_least(0),
    "trainer.limit_train_batches": above(0),
    "trainer.overfit_batches": above(0),
    "trainer.fast_dev_run": unless(False, unless(True, COUNT)),
    "trainer.num_nodes": COUNT,
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "norm.groups": COUNT,
    "norm.name": when("task.name", "llm", matches("(?!gn$).*", "a norm without statistics over positions")),
    "norm.alpha0": above(0),
    "norm.alpha0_by_site.*": above(0),
    "norm.alpha_per": one_of("layer", "channel", "none"),
    "norm.weight0": above(0),
    "norm.eps": above(0),
    "norm.momentum": fraction(),
    "norm.scale": one_of("weight", "one_plus_weight", "none"),
    "norm.part": fraction(),
    "norm.kappa": above(0),
    "norm.lam0": above(0),
    "norm.kernel": one_of("auto", "triton", "plain"),
    "data.total_batch_size": between(1, 2**24),
    "data.batch_size": between(0, 2**24),
    "data.workers": between(0, 1024),
    "data.val_fraction": all_of(share(), relation("less than 1 with", "data.test_fraction", lambda a, b: a + b < 1)),
    "data.test_fraction": share(),
    "data.split_seed": SEED,
    "data.encoding": encoding,
    "data.on_error": one_of("stop", "skip"),
    "data.num_classes": at_least(0),
    "data.img_size": all_of(between(0, 2**14), when("data.module", "images", COUNT)),
    "data.in_chans": when("data.module", "images", one_of(1, 3, 4)),
    "data.mean": for_channels,
    "data.std": all_of(for_channels, above(0)),
    "data.interpolation": one_of("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    "data.crop_pct": fraction(),
    "data.hflip": between(0, 1),
    "data.augment.scale": pair(above(0), rising=True),
    "data.augment.ratio": pair(above(0), rising=True),
    "data.augment.hflip": between(0, 1),
    "data.augment.color_jitter": at_least(0),
    "data.augment.re_prob": between(0, 1),
    "data.augment.re_mode": one_of("const", "rand", "pixel"),
    "data.mixup.*_alpha": all_of(at_least(0), when("task.name", "dit", one_of(0))),
    "data.mixup.*prob": between(0, 1),
    "data.context": all_of(COUNT, relation("at most", "model.context", lambda tokens, known: tokens <= known)),
    "data.vocab_size": all_of(at_least(0), relation("at most", "model.vocab_size", lambda size, known: size <= known)),
    "model.init": all_of(*(when("task.name", family, one_of(*names)) for family, names in MODEL_INIT.items())),
    "model.head_gain": above(0),
    "model.embed_dim": all_of(between(1, 2**16), when("task.name", "dit", multiple_of(4))),
    "model.depth": between(1, 1000),
    "model.width": between(1, 2**16),
    "model.num_heads": all_of(
        COUNT,
        divides("model.embed_dim"),
        when("task.name", "llm", divides("model.embed_dim", into=2)),  # rotary positions
        when("model.rope", True, divides("model.embed_dim", into=4)),  # rows and columns
    ),
    "model.num_kv_heads": all_of(COUNT, divides("model.num_heads")),
    "model.patch_size": all_of(COUNT, divides("model.img_size"), patches_at_most(2**12)),
    "model.mlp_dim": between(1, 2**18),
    "model.mlp_ratio": between(0.01, 100),
    "model.mlp": when("task.name", "dit", one_of("gelu", "swiglu")),
    "model.positions": when("task.name", "dit", one_of("sines", "learned")),
    "model.qk_norm": qk_norm,
    "model.residual": all_of(
        one_of("plain", "skipinit", "rezero", "fixup", "layerscale", "deepnorm", "lns"),
        when("model.init", ("timm", "dit", "normal"), none_of("fixup", "deepnorm")),  # which are initialisations
        when("model.norm_placement", ("pre", "peri"), none_of("deepnorm")),
        when("model.norm_placement", "post", none_of("lns", "fixup")),
    ),
    "model.norm_placement": one_of("pre", "post", "peri"),
    "model.drop_path": share(),
    "model.rope_base": above(1),
    "model.loss_chunk": at_least(0),
    "model.outputs": relation("the same as", "objective.outputs", lambda mine, objective: mine == objective),
    "model.checkpointing": all_of(  # it would count every batch twice
        when("norm.name", "bn", one_of(False)), when("norm.running_scale", True, one_of(False))
    ),
    "objective.prediction": one_of("velocity", "data"),
    "objective.time": one_of("uniform", "logit_normal"),
    "objective.time_std": above(0),
    "task.label_smoothing": share(),
    "task.label_dropout": share(),
    "task.agc": at_least(0),
    "task.monitor": all_of(
        when("task.name", ("vit", "cnn"), one_of("val/acc", "val/acc5", "val/loss")),
        when("task.name", "llm", one_of("val/loss", "val/bits_per_byte")),
    ),
    "task.monitor_mode": all_of(
        one_of("max", "min"),
        when("task.monitor", ("val/acc", "val/acc5"), one_of("max")),
        when("task.monitor", "val/loss", one_of("min")),
        when("task.name", ("dit", "llm"), one_of("min")),
    ),
    "task.quality.n": all_of(unless(0, at_least(2)), when("data.vae", "none", one_of(0))),  # no images to measure
    "task.quality.steps": all_of(COUNT, when("objective.name", "ddpm", between(1, 1000))),
    "task.quality.sampler": all_of(
        when("objective.name", "flow", one_of("", "heun", "euler")),
        when("objective.name", "ddpm", one_of("", "ddpm", "ddim")),
    ),
    "task.quality.guidance": all_of(at_least(0), when("task.label_dropout", 0, one_of(1))),
    "task.quality.interval": pair(between(0, 1), rising=True),
    "task.quality.classifier": one_of("none", "svm"),
    "task.samples.n": at_least(0),
    "task.samples.steps": all_of(COUNT, when("objective.name", "ddpm", between(1, 1000))),
}


def check_constraints(values: Mapping[str, Any], constraints: Mapping[str, Check] = CONSTRAINTS) -> None:
    """Checks every value, by dotted key, by a table such as `CONSTRAINTS`.

    Raises:
        UsageError: the first that does not fit, with what would be right.
    """
    for pattern, constraint in constraints.items():
        for key in fnmatch.filter(values, pattern):
            if values[key] is not None and (wrong := constraint(values[key], values)):
                raise UsageError(f"{key}={values[key]}: {wrong}")
