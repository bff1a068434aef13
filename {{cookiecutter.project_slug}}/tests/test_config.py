"""What a command line becomes, and what it must not."""

import fnmatch
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from {{cookiecutter.package_name}} import cli, config
from {{cookiecutter.package_name}}.config import compose, leaves, plain, recompose
from {{cookiecutter.package_name}}.config.constraints import CONSTRAINTS
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.config.names import PASSED

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
        ("seed=010", 10),
        ("optim.betas=[0.8,00.9]", [0.8, 0.9]),
        ("name=null", None),
        ("runs=a: b", "a: b"),
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
    cfg = compose(["schedule={name: wsd, final_factor: 0.5}"])
    assert (cfg.schedule.name, cfg.schedule.final_factor) == ("wsd", 0.5)
    assert cfg.schedule.warmup_share == compose([]).schedule.warmup_share


def test_a_time_of_day_is_no_number() -> None:
    with pytest.raises(UsageError, match="whole number"):
        compose(["seed=1:30"])


def test_references_follow_overrides() -> None:
    one, two = (compose(["norm=derf", f"norm.alpha0={start}"]).norm.alpha0_by_site.final for start in (1.0, 2.0))
    assert two == 2 * one
    assert compose(["norm=dyt", "optim.lr=0.125", "norm.alpha0=${optim.lr}"]).norm.alpha0 == 0.125


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("norm=dyr", "there is no such norm (did you mean dyt?); choose from arctan, bhyt, bn"),
        ("nrm=dyt", "nrm: there is no such key (did you mean norm?)"),
        ("optim.lrr=1", "there is no such key (did you mean optim.lr?)"),
        ("lr=1", "there is no such key (did you mean optim.lr?)"),
        ("norm.eps=1", "no such key under norm=dyt; it is one of norm=bhyt, norm=bn, norm="),
        ("optim.lr.x=1", "there is no such key"),
        ("seed=2.5", "seed=2.5: expected a whole number, as in seed=0"),
        ("seed=true", "expected a whole number"),
        ("optim.alpha_lr_factor=abc", "optim.alpha_lr_factor=abc: expected a number, as in optim.alpha_lr_factor="),
        ("norm.alpha0=null", "expected a number"),
        ("compile=1", "compile=1: expected true or false"),
        ("optim.betas=0.9", "expected a list"),
        ("runs=null", "expected text"),
        ("schedule=1", "schedule=1: expected a mapping"),
        ("dyt", "dyt: expected group=option or key=value"),
        ("--norm=dyt", "expected group=option or key=value"),
        ("norm.alpha0=${optim.nothing}", "config: Interpolation key 'optim.nothing' not found"),
        ("norm.alpha0=${foo", "config: "),
        ("optim.lr=${oc.env:HOME}", "expected a number"),
        ("optim.lr=.nan", "expected a number"),
        ("optim.betas=[0.9,x]", "expected a list of numbers"),
        ("schedule={final_factor: x}", "schedule.final_factor=x: expected a number"),
        ("schedule={momentum: 1}", "schedule.momentum: there is no such key"),
        ("norm.name=ln", "norm.name: it belongs to the file; pick another by norm=<option>"),
        ("data.module=foo", "data.module: it belongs to the file; pick another by data=<option>"),
        ("defaults.norm=ln", "defaults.norm: pick an option by norm=<option>"),
        ("experiment=nothing", "there is no such experiment; choose from"),
    ],
)
def test_refusals_say_what_would_be_right(argument: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        compose(["norm=dyt", argument])
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
            return compose([f"task={task}", *argv], check=False)
    pytest.fail(f"{argv} composes under no task")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_every_key_is_explained(group: str, option: str) -> None:
    argv = [f"{group}={option}", *(["norm=dyt"] if group == "trainer" else [])]  # fsdp does not take every norm
    assert cli.headline(config.CONFIGS / group / f"{option}.yaml"), "the first line of a config file says what it is"
    cfg = compose(argv) if group in EVERYWHERE else compose_under_some_task(argv)
    notes = cli.comments(cfg)
    passed = "|".join(PASSED)
    entries = re.compile(rf"defaults\.|(callbacks|logger)(\.\w+\.(class_path|init_args))?$|trainer\.({passed})$")
    unexplained = [key for key, _ in leaves(cfg) if not entries.match(key) and key not in notes]
    assert not unexplained


BAD = {
    "seed": "-1",
    "name": "../a",
    "checkpoint.every_n_steps": "-1",
    "checkpoint.save_top_k": "0",
    "init.alpha0": "data",
    "init.norms": "warm",
    "init.samples": "0",
    "optim.lr": "-1",
    "optim.betas": "[0.9,1]",
    "optim.weight_decay": "-1",
    "optim.alpha_lr_factor": "-1",
    "optim.clip_norm": "-1",
    "schedule.name": "linear",
    "schedule.warmup_share": "1",
    "schedule.warmup_steps": "-1",
    "schedule.final_factor": "-1",
    "ema.decay": "1",
    "monitor.every_n_steps": "-1",
    "monitor.samples": "0",
    "trainer.max_epochs": "0",
    "trainer.max_steps": "0",
    "trainer.log_every_n_steps": "0",
    "trainer.check_val_every_n_epoch": "0",
    "trainer.val_every_n_steps": "-1",
    "trainer.limit_train_batches": "0",
    "trainer.num_nodes": "0",
    "trainer.accelerator": "tpu",
    "norm.alpha0": "0",
    "norm.alpha0_by_site.ffn": "0",
    "norm.alpha_per": "token",
    "norm.weight0": "0",
    "norm.eps": "0",
    "norm.scale": "two",
    "norm.part": "0",
    "norm.kappa": "0",
    "norm.lam0": "0",
    "norm.momentum": "0",
    "norm.groups": "0",
    "norm.kernel": "cuda",
    "data.total_batch_size": "0",
    "data.batch_size": "-1",
    "data.workers": "2000",
    "data.val_fraction": "1",
    "data.test_fraction": "-0.1",
    "data.split_seed": "-1",
    "data.encoding": "utf-9",
    "data.on_error": "ignore",
    "data.num_classes": "-1",
    "data.img_size": "-1",
    "data.in_chans": "2",
    "data.mean": "[0.1,0.2,0.3,0.4]",
    "data.std": "[0]",
    "data.interpolation": "linear",
    "data.crop_pct": "1.5",
    "data.hflip": "2",
    "data.augment.scale": "[0.9,0.1]",
    "data.augment.ratio": "[0.9]",
    "data.augment.hflip": "2",
    "data.augment.color_jitter": "-1",
    "data.augment.re_prob": "2",
    "data.augment.re_mode": "black",
    "data.mixup.mixup_alpha": "-1",
    "data.mixup.switch_prob": "2",
    "data.context": "0",
    "data.vocab_size": "-1",
    "model.init": "zeros",
    "model.head_gain": "0",
    "model.embed_dim": "0",
    "model.depth": "0",
    "model.num_heads": "5",
    "model.width": "0",
    "model.num_kv_heads": "0",
    "model.patch_size": "3",
    "model.mlp_dim": "0",
    "model.mlp_ratio": "0",
    "model.mlp": "relu",
    "model.positions": "none",
    "model.qk_norm": "true",
    "model.residual": "highway",
    "model.norm_placement": "middle",
    "model.drop_path": "1",
    "model.rope_base": "1",
    "model.loss_chunk": "-1",
    "model.outputs": "3",
    "objective.prediction": "noise",
    "objective.time": "cosine",
    "objective.time_std": "0",
    "task.label_smoothing": "1",
    "task.agc": "-1",
    "task.label_dropout": "1",
    "task.monitor_mode": "best",
    "task.quality.n": "1",
    "task.quality.steps": "0",
    "task.quality.sampler": "dpm",
    "task.quality.guidance": "-1",
    "task.quality.interval": "[0.5,0.1]",
    "task.quality.classifier": "tree",
    "task.samples.n": "-1",
    "task.samples.steps": "0",
}
RELATIONS = [  # what is wrong with the values of other keys alone
    ("ema.decay", "task=vit trainer.precision=bf16-true"),
    ("trainer.max_epochs", "trainer.max_epochs=-1 trainer.max_steps=-1"),
    ("trainer.precision", "trainer=fsdp_cpu trainer.precision=16-mixed norm=dyt"),
    ("data.val_fraction", "data.val_fraction=0.5 data.test_fraction=0.5"),
    ("data.mixup.mixup_alpha", "task=dit data.mixup.mixup_alpha=0.5"),
    ("model.init", "task=vit model.init=dit"),
    ("model.patch_size", "task=vit data=folder"),
    ("model.embed_dim", "task=dit model.embed_dim=90 model.num_heads=9"),
    ("model.num_heads", "task=llm model.num_heads=128"),
    ("model.num_heads", "task=dit model.num_heads=48 model.rope=true"),
    ("trainer.strategy", "norm=bn trainer=fsdp_cpu"),
    ("optim.class_path", "optim=muon trainer=fsdp_cpu"),
    ("trainer.overfit_batches", "task=vit trainer.overfit_batches=-1"),
    ("trainer.fast_dev_run", "task=vit trainer.fast_dev_run=abc"),
    ("task.monitor", "task=vit task.monitor=val/accuracy"),
    ("task.monitor_mode", "task=vit task.monitor_mode=min"),
    ("norm.name", "task=llm norm=gn"),
    ("model.checkpointing", "task=llm norm=bn model.checkpointing=true"),
    ("model.checkpointing", "task=llm norm=dyt norm.running_scale=true model.checkpointing=true"),
    ("trainer.strategy", "norm=dyt norm.running_scale=true trainer=fsdp_cpu"),
    ("init.alpha0", "norm=dyt norm.running_scale=true init.alpha0=auto"),
    ("init.alpha0", "norm=ln init.alpha0=auto"),
    ("model.residual", "task=dit model.residual=deepnorm"),
    ("model.residual", "task=llm model.residual=lns model.norm_placement=post"),
    ("model.residual", "task=llm model.residual=fixup model.init=normal"),
    ("task.monitor", "task=llm task.monitor=val/acc"),
    ("task.quality.sampler", "task=dit task.quality.sampler=ddim"),
    ("task.quality.steps", "task=dit objective=ddpm task.quality.steps=1001"),
    ("task.quality.guidance", "task=dit task.quality.guidance=2 task.label_dropout=0"),
    ("task.quality.n", "task=dit data=latents task.quality.n=8 data.vae=none"),
    ("task.monitor_mode", "task=dit task.monitor_mode=max"),
]


@cache
def keys_of(*argv: str) -> set[str]:
    return {key for key, _ in leaves(compose([*argv], check=False))}


def context_of(key: str) -> list[str]:
    """A command line whose config has `key`."""
    group = key.partition(".")[0]
    for task in config.groups()["task"]:
        for options in ([], *([f"{group}={option}"] for option in config.groups().get(group, ()))):
            with suppress(UsageError):
                if key in keys_of(f"task={task}", *options):
                    return [f"task={task}", *options]
    pytest.skip(f"{key}: of a family that is not here")


def refused_key(argv: list[str]) -> str:
    with pytest.raises(UsageError) as caught:
        compose(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value).partition("=")[0]


@pytest.mark.parametrize("key", BAD)
def test_a_value_that_cannot_be_is_refused(key: str) -> None:
    assert refused_key([*context_of(key), f"{key}={BAD[key]}"]) == key


@pytest.mark.parametrize(("key", "line"), RELATIONS)
def test_values_that_do_not_go_together_are_refused(key: str, line: str) -> None:
    argv = line.split()
    if argv[0].removeprefix("task=") not in config.groups()["task"] and argv[0].startswith("task="):
        pytest.skip("a family that is not here")
    if any(one.startswith("norm=") and one[5:] not in config.groups()["norm"] for one in argv):
        pytest.skip("a norm of families that are not here")
    if not argv[0].startswith("task="):
        argv = [*context_of(key), *argv]
    assert refused_key(argv) == key


def test_every_constraint_has_a_bad_value() -> None:
    keys = [*BAD, *(key for key, _ in RELATIONS)]
    assert [pattern for pattern in CONSTRAINTS if not fnmatch.filter(keys, pattern)] == []


@pytest.mark.parametrize("group", ["task", "norm", "experiment"])
def test_what_comes_with_the_project_passes(group: str) -> None:
    for option in config.groups().get(group, ()):
        compose([f"{group}={option}"])


def test_help_names_groups_options_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_help("python train.py", ["norm=derf"])
    short = capsys.readouterr().out
    cli.print_help("python train.py", ["norm=derf"], full=True)
    text = capsys.readouterr().out
    assert short.count("\n") < text.count("\n") / 2
    assert all(words in short for words in ("rmsnorm", "norm.shift0=0.0", "optim.lr=", "--help-all"))
    for words in ("norm=", "rmsnorm", "data=", "optim.lr=", "norm.shift0=0.0", "at the end of the warm-up"):
        assert words in text


def test_the_tree_shows_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose(["optim.lr=0.125"])
    cli.print_tree(cfg)
    text = capsys.readouterr().out
    assert "lr=0.125" in text
    assert all(str(section) in text for section in cfg)
