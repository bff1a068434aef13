"""What a command line becomes, and what it must not."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from {{cookiecutter.package_name}} import cli, config
from {{cookiecutter.package_name}}.config import compose, leaves, plain, recompose
from {{cookiecutter.package_name}}.errors import UsageError

# Other groups are of one task, or their options made for some.
EVERYWHERE = {*config.ROOTED, *OmegaConf.load(config.CONFIGS / "train.yaml").defaults}
OPTIONS = [(group, option) for group, options in config.groups().items() for option in options]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("optim.lr=1", 1),
        ("optim.lr=1e-3", 1e-3),
        ("optim.betas=[0.8,0.9]", [0.8, 0.9]),
        ("compile=true", True),
        ("name=007", "007"),
        ("name=null", None),
        ("name=a: b", "a: b"),
        ("trainer.devices=2", "2"),
        ("trainer.limit_train_batches=10", 10),
        ("seed=3", 3),
    ],
)
def test_values_keep_their_type(argument: str, value: object) -> None:
    found = OmegaConf.select(compose([argument]), argument.partition("=")[0])
    assert found == value
    assert type(found) is type(value) or isinstance(value, list)


def test_a_mapping_changes_the_keys_it_names() -> None:
    cfg = compose(["optim={lr: 1.0, clip_norm: 2.0}"])
    assert (cfg.optim.lr, cfg.optim.clip_norm, cfg.optim.weight_decay) == (1.0, 2.0, compose([]).optim.weight_decay)


def test_references_follow_overrides() -> None:
    one, two = (compose(["norm=derf", f"norm.alpha0={start}"]).norm.alpha0_by_site.final for start in (1.0, 2.0))
    assert two == 2 * one
    assert compose(["optim.lr=0.125", "norm.alpha0=${optim.lr}"]).norm.alpha0 == 0.125


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("norm=dyr", "there is no such norm (did you mean dyt?); choose from bn, derf, dyt"),
        ("nrm=dyt", "nrm: there is no such key (did you mean norm?)"),
        ("optim.lrr=1", "there is no such key (did you mean optim.lr?)"),
        ("lr=1", "there is no such key (did you mean optim.lr?)"),
        ("norm.eps=1", "norm.eps: there is no such key under norm=dyt; it is one of norm=bn, norm=ln, norm=rmsnorm"),
        ("optim.lr.x=1", "there is no such key"),
        ("seed=2.5", "seed=2.5: expected a whole number, as in seed=0"),
        ("seed=true", "expected a whole number"),
        ("optim.alpha_lr_factor=abc", "optim.alpha_lr_factor=abc: expected a number, as in optim.alpha_lr_factor="),
        ("norm.alpha0=null", "expected a number"),
        ("compile=1", "compile=1: expected true or false"),
        ("optim.betas=0.9", "expected a list"),
        ("runs=null", "expected text"),
        ("optim=1", "optim=1: expected a mapping"),
        ("dyt", "dyt: expected group=option or key=value"),
        ("--norm=dyt", "expected group=option or key=value"),
        ("norm.alpha0=${optim.nothing}", "config: Interpolation key 'optim.nothing' not found"),
        ("norm.alpha0=${foo", "config: "),
        ("optim.lr=${oc.env:HOME}", "expected a number"),
        ("optim.lr=.nan", "expected a number"),
        ("optim.betas=[0.9,x]", "expected a list of numbers"),
        ("optim={lr: x}", "optim.lr=x: expected a number"),
        ("optim={momentum: 1}", "optim.momentum: there is no such key"),
        ("norm.name=ln", "norm.name: it belongs to the file; pick another by norm=<option>"),
        ("data.module=foo", "data.module: it belongs to the file; pick another by data=<option>"),
        ("defaults.norm=ln", "defaults.norm: pick an option by norm=<option>"),
        ("experiment=nothing", "there is no such experiment; choose from"),
    ],
)
def test_refusals_say_what_would_be_right(argument: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        compose([argument])
    assert "\n" not in str(caught.value)


def test_an_experiment_may_not_invent_keys(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: {norm: ln}\noptim: {lr: 0.1}\n")
    assert compose([f"experiment={file}"]).optim.lr == 0.1
    file.write_text("optim: {learning_rate: 0.1}\n")
    with pytest.raises(UsageError, match=r"optim\.learning_rate: there is no such key"):
        compose([f"experiment={file}"])


def test_broken_yaml_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("a: [1\n")
    with pytest.raises(UsageError, match=r"broken\.yaml: no valid YAML"):
        compose([f"experiment={file}"])


def test_an_earlier_run_keeps_what_it_is() -> None:
    saved = plain(compose(["norm=ln", "trainer.max_epochs=7", "optim.lr=0.5"]))

    def again(*argv: str) -> DictConfig:
        return recompose(saved, list(argv), anew=("trainer",), free=("trainer", "data.workers"))

    assert plain(again()) == saved
    cfg = again("trainer=cpu", "trainer.max_epochs=9")
    assert (cfg.norm.name, cfg.optim.lr, cfg.trainer.accelerator, cfg.trainer.max_epochs) == ("ln", 0.5, "cpu", 9)
    assert again("trainer=cpu").trainer.max_epochs == 7
    for argument in ("norm=dyt", "norm.eps=1", "seed=1", "data.total_batch_size=16"):
        words = f"{argument}: an earlier run keeps its own; what can be changed is trainer=, trainer, data.workers"
        with pytest.raises(UsageError, match=re.escape(words)):
            again(argument)


def test_a_run_of_another_version() -> None:
    saved = plain(compose([]))
    del saved["monitor"]["samples"]
    assert recompose(saved, [], anew=(), free=()).monitor.samples == compose([]).monitor.samples, "as it is today"
    saved["optim"]["momentum"] = 0.9
    with pytest.raises(UsageError, match=r"another version of this project: it has the key optim\.momentum"):
        recompose(saved, [], anew=(), free=())
    with pytest.raises(UsageError, match="not written by this project"):
        recompose({"nothing": 1}, [], anew=(), free=())


def compose_under_some_task(argv: list[str]) -> DictConfig:
    """An option that is made for a family refers to keys that others do not have."""
    for task in config.groups()["task"]:
        with suppress(UsageError):
            return compose([f"task={task}", *argv])
    pytest.fail(f"{argv} composes under no task")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_every_key_is_explained(group: str, option: str) -> None:
    argv = [f"{group}={option}"]
    assert cli.headline(config.CONFIGS / group / f"{option}.yaml"), "the first line of a config file says what it is"
    cfg = compose(argv) if group in EVERYWHERE else compose_under_some_task(argv)
    notes = cli.comments(cfg)
    unexplained = [key for key, _ in leaves(cfg) if not key.startswith("defaults.") and key not in notes]
    assert not unexplained


def test_help_names_groups_options_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_help("python train.py", ["norm=derf"])
    text = capsys.readouterr().out
    for words in ("norm=", "rmsnorm", "data=", "optim.lr=", "norm.shift0=0.0", "at the end of the warm-up"):
        assert words in text


def test_the_tree_shows_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose(["optim.lr=0.125"])
    cli.print_tree(cfg)
    text = capsys.readouterr().out
    assert "lr=0.125" in text
    assert all(str(section) in text for section in cfg)
