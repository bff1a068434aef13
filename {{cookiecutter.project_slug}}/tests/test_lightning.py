"""Options that users of Lightning bring along: arguments of the Trainer, callbacks, checkpoints, debugging."""

import inspect
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.config.names import PASSED, REPLACED
from {{cookiecutter.package_name}}.data.sampling import TrainSampler
from {{cookiecutter.package_name}}.train import build_model

from .runs import Start, Tiny, load, rows
from .test_resume import resume


def test_every_argument_of_the_trainer_is_passed_or_has_a_key_that_replaces_it() -> None:
    ours = set(PASSED) | set(REPLACED) | {str(key) for key in compose([]).trainer}
    assert ours - {"val_every_n_steps"} == set(inspect.signature(L.Trainer).parameters)
    for name in PASSED:
        compose([f"trainer.{name}=1"])
    for name in REPLACED:
        with pytest.raises(UsageError, match=f"trainer.{name}: this project"):
            compose([f"trainer.{name}=1"])
    with pytest.raises(UsageError, match=r"did you mean trainer\.profiler"):
        compose(["trainer.profilr=simple"])


def test_a_fast_run_takes_its_steps_and_is_tested(start: Start) -> None:
    run, values = start("trainer.fast_dev_run=2", "trainer.max_epochs=5")
    assert values["steps"] == 2
    assert {tag for _, tag, _ in rows(run)} >= {"val/loss", "test/loss"}


@pytest.mark.parametrize("option", ["fast", "overfit", "profile", "anomaly"])
def test_debugging_options_run(start: Start, option: str) -> None:
    run, _ = start(f"debug={option}", "trainer.max_epochs=1", "trainer.limit_train_batches=4")
    assert (run / "fit-profile.txt").exists() == (option == "profile")


def test_overfitting_takes_the_same_samples_in_every_epoch() -> None:
    keys = list(TrainSampler(10, seed=0, epoch_size=4, size=12, repeats=True))
    assert keys[:4] == keys[4:8] == keys[8:]
    assert len(set(keys)) == 4


def test_early_stopping_ends_like_a_finished_run_and_resumes(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["callbacks=[early_stopping,model_summary]", "callbacks.early_stopping.init_args.patience=1"]
    run, values = start(*argv, "optim.lr=0.0", "trainer.max_epochs=6")
    assert values["steps"] == 12
    assert "test/loss" in values
    assert "ended early, at step 12 of 36" in capsys.readouterr().out
    _, resumed = start(cfg=resume(run))
    assert resumed["steps"] == 18, "the next validation is no improvement either"


class Own(L.Callback):
    """A user's callback."""

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        Path(trainer.default_root_dir, "own").write_text(str(self.rate))


def test_a_callback_of_ones_own(start: Start, tmp_path: Path) -> None:
    run, _ = start(
        "trainer.fast_dev_run=1", f"callbacks.mine.class_path={Own.__module__}.Own", "callbacks.mine.init_args.rate=2.5"
    )
    assert (run / "own").read_text() == "2.5"
    file = tmp_path / "mine.yaml"
    file.write_text(f"mine:\n  class_path: {Own.__module__}.Own\n")
    run, _ = start("trainer.fast_dev_run=1", f"callbacks={file}")
    assert (run / "own").read_text() == "1.0"


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"class_path": "nowhere.Class"}, "nowhere"),
        ({"class_path": "pathlib.Nothing"}, "Nothing"),
        ({"class_path": "pathlib.PurePath"}, "Callback"),
        ({"class_path": "Class"}, "module.Class"),
        ({"class_path": f"{Own.__module__}.Own", "init_args": {"speed": 1}}, "speed"),
        ({"init_args": {}}, "class_path"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_callback_that_cannot_be_made_is_one_line(start: Start, entry: dict[str, Any], word: str) -> None:
    cfg = compose(["trainer.fast_dev_run=1"])
    cfg.callbacks = {"mine": entry}
    with pytest.raises(UsageError, match=word) as caught:
        start(cfg=cfg)
    assert str(caught.value).startswith("callbacks.mine: ")
    assert "\n" not in str(caught.value)
    assert not Path(cfg.runs, "vit-dyt-1").exists()


def test_more_checkpoints_are_kept(start: Start) -> None:
    steps = ["trainer.val_every_n_steps=2", "trainer.max_epochs=1"]
    top, _ = start("checkpoint.save_top_k=2", *steps)
    every, _ = start("checkpoint.keep_all=true", *steps)
    own, _ = start("checkpoint.keep_all=true", "checkpoint.every_n_steps=3", *steps)
    kept = [sorted(file.stem for file in (run / "checkpoints").glob("step*")) for run in (top, every, own)]
    assert len(kept[0]) == 2
    assert kept[1:] == [["step2", "step4", "step6"], ["step3", "step6"]]
    assert load(every / "checkpoints" / "step4.ckpt")["global_step"] == 4


@pytest.mark.parametrize("name", ["layernorm", "LayerNorm", "LN", "layer_norm"])
def test_other_names_of_norms(name: str) -> None:
    assert compose([f"norm={name}"]).norm.name == "ln"


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("lr=1", "optim.lr"),
        ("epochs=3", "trainer.max_epochs"),
        ("ckpt_path=x", "resume"),
        ("num_workers=2", "data.workers"),
    ],
)
def test_keys_of_other_projects_point_to_ours(argument: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {hint}?"):
        compose([argument])


@pytest.mark.parametrize("argv", [["optim=muon"], ["optim=sgd"], ["optim.class_path=torch.optim.RAdam"]], ids=str)
def test_other_optimisers_train_and_resume(start: Start, tiny: Tiny, argv: list[str]) -> None:
    blocks = build_model(compose(tiny.argv)).get_submodule("blocks")
    hidden = any(parameter.ndim == 2 for parameter in blocks.parameters())
    if argv == ["optim=muon"] and not hidden:
        pytest.skip("a family whose blocks hold no matrices")
    _, expected = start(*argv, "trainer.max_epochs=2", "optim.lr=0.001")
    run, _ = start(*argv, "trainer.max_epochs=1", "optim.lr=0.001", "schedule.name=constant")
    _, values = start(cfg=resume(run, "trainer.max_epochs=2"))
    assert values["steps"] == expected["steps"]
    groups = load(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert {group["name"] for group in groups} >= {"vectors", "alpha", *(["hidden"] if hidden else [])}


def test_an_optimiser_that_is_not_there_is_one_line(start: Start) -> None:
    for path, word in (("torch.optim.Adan", "Adan"), ("nowhere.Adam", "nowhere"), ("torch.nn.Linear", "optim")):
        with pytest.raises(UsageError, match=word):
            start("trainer.fast_dev_run=1", f"optim.class_path={path}")
