"""How files become one config: which comes after which, and what a task may want under an option."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from {{cookiecutter.package_name}} import cli, config
from {{cookiecutter.package_name}}.config import compose, plain, recompose
from {{cookiecutter.package_name}}.config.errors import UsageError

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """`write({"norm/x": ...})` makes these files, by their names without .yaml, all of `configs/`."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / f"{name}.yaml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        monkeypatch.setattr(config, "CONFIGS", tmp_path)
        monkeypatch.setattr(cli, "CONFIGS", tmp_path)
        return tmp_path

    return write


def test_later_layers_win(write: Write) -> None:
    task = "lr: 2.0\nwd: 2.0\nclip: 2.0\nseed: 2\nwith_norm:\n  y: {wd: 3.0, clip: 3.0, seed: 3, norm: {alpha0: 0.9}}\n"
    write(
        {
            "train": "defaults: {task: a, norm: x}\nlr: 1.0\nwd: 1.0\nclip: 1.0\nseed: 1\nsteps: 1\n",
            "norm/x": "name: x\nalpha0: 0.5\n",
            "norm/y": "name: y\nalpha0: 0.7\n",
            "task/a": task,
            "experiment/e": "defaults: {norm: y}\nclip: 4.0\nseed: 4\n",
        }
    )

    cfg = plain(compose(["experiment=e", "seed=5"]))

    assert cfg == {
        "defaults": {"task": "a", "norm": "y"},
        "norm": {"name": "y", "alpha0": 0.9},
        **{"steps": 1, "lr": 2.0, "wd": 3.0, "clip": 4.0, "seed": 5},
    }
    assert plain(compose(["norm=x"]))["wd"] == 2.0, "with_norm of another norm must not apply"


# Task "a" has a group of its own, "aim", and wishes for every group; "b" has none of that.
TWO_TASKS = {
    "train": "defaults: {task: a, norm: x}  # those of all tasks\nlr: 1.0  # of all\ntrace: ''\n",
    "norm/x": "name: x\n",
    "norm/y": "name: y\n",
    "data/d": "flip: 0.5  # share of samples\n",
    "data/e": "flip: 0.5  # share of samples\n",
    "aim/near": "steps: 1  # how far\n",
    "aim/far": "steps: 9  # how far\n",
    "task/b": "defaults: {data: d}\n",
    "task/a": """defaults: {data: d, aim: near}
task: {scale: '${aim.steps}'}
trace: task
with_norm:
  x: {by_norm: 1, trace: norm}
  y:
with_aim:
  near: {by_aim: 1, trace: aim}
  far: {by_aim: 2, trace: aim, data: {flip: 0.1}}
with_data:
  d: &still
    data: {flip: 0.0}
    trace: data
  e: *still
""",
    "experiment/far": "defaults: {aim: far}\n",
    "experiment/wrong": "defaults: {task: b, aim: far}\n",
}


def test_a_task_may_want_something_different_under_every_option(write: Write) -> None:
    write(TWO_TASKS)
    cfg = plain(compose([]))
    assert list(cfg["defaults"]) == ["task", "norm", "data", "aim"]
    assert not [key for key in cfg if key.startswith("with_")]
    assert (cfg["by_norm"], cfg["by_aim"], cfg["data"]["flip"]) == (1, 1, 0.0)
    assert cfg["trace"] == "norm", "which comes last, wherever it stands"
    assert compose(["norm=y"]).trace == "aim", "after data, as in the defaults"
    assert compose(["data=e"]).data.flip == 0.0
    assert compose(["data=e", "aim=far"]).data.flip == 0.1
    assert compose(["data.flip=0.75"]).data.flip == 0.75
    other = compose(["task=b"])
    assert (other.trace, other.data.flip, "aim" in other) == ("", 0.5, False)


def test_a_group_may_belong_to_one_task(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write(TWO_TASKS)
    cfg = compose(["experiment=far", "aim.steps=7"])
    assert (cfg.defaults.aim, cfg.by_aim, cfg.task.scale) == ("far", 2, 7)
    refusal = r"^aim=far: task=b has no group aim; it has norm, data$"
    for argv in (["task=b", "aim=far"], ["aim=far", "task=b"], ["experiment=wrong"], ["experiment=far", "task=b"]):
        with pytest.raises(UsageError, match=refusal):
            compose(argv)
    with pytest.raises(UsageError, match=r"^aim=fra: there is no such aim \(did you mean far\?\); choose from far"):
        compose(["aim=fra"])
    cli.print_help("python train.py", ["aim=far", "norm=y"], full=True)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"aim=", "aim.steps=9 how far", "data.flip=0.1 share of samples"} <= set(shown)


def test_an_earlier_run_keeps_its_tasks_own_groups(write: Write) -> None:
    files = write(TWO_TASKS)
    saved = plain(compose(["aim=far", "aim.steps=3", "data.flip=0.25"]))
    assert plain(recompose(saved, [], anew=(), free=())) == saved
    with pytest.raises(UsageError, match=r"^aim=near: an earlier run keeps its own"):
        recompose(saved, ["aim=near"], anew=("data",), free=())
    cfg = recompose(saved, ["data=e", "aim.steps=4"], anew=("data",), free=("aim",))
    assert (cfg.aim.steps, cfg.by_aim, cfg.data.flip) == (4, 2, 0.1), "other data, as this task wants them"
    (files / "task" / "a.yaml").write_text("defaults: {data: d}\n")
    with pytest.raises(UsageError, match=r"^aim=far: task=a has no group aim"):
        recompose(saved, [], anew=(), free=())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("with_nrm: {x: {lr: 2.0}}", "with_nrm: this task has no group nrm; it has norm, data"),
        ("with_aim: {far: {lr: 2.0}}", "with_aim: this task has no group aim; it has norm, data"),
        ("with_task: {a: {lr: 2.0}}", "with_task: this task has no group task; it has norm, data"),
        ("with_norm: {z: {lr: 2.0}}", "with_norm.z: there is no such norm; choose from x, y"),
        ("with_data: {dd: {lr: 2.0}}", "with_data.dd: there is no such data (did you mean d?); choose from d, e"),
        ("with_norm:", "with_norm: expected options with what they change"),
        ("with_norm: {x: 2.0}", "with_norm.x: expected keys and values"),
    ],
)
def test_wishes_for_what_is_not_there(write: Write, line: str, words: str) -> None:
    """Also under an option that is not picked."""
    files = write(TWO_TASKS | {"task/b": f"{TWO_TASKS['task/b']}{line}\n"})
    with pytest.raises(UsageError, match=re.escape(f"{files / 'task' / 'b.yaml'}: {words}")) as caught:
        compose(["task=b", "norm=y"])
    assert "\n" not in str(caught.value)


def test_a_model_of_another_family_is_told_so(write: Write) -> None:
    """Named after the longest name of a family; a name of one's own says nothing, but what it refers to may."""
    write(
        {
            "train": "defaults: {task: a, model: own}\n",
            "task/a": "defaults: {data: d}\n",
            "task/a_b": "defaults: {data: d, model: a_b_small}\n",
            "data/d": "size: 8\n",
            "model/own": "size: ${data.size}\n",
            "model/a": "size: 1\n",
            "model/a_b_small": "size: 2\n",
            "model/ab": "size: 3\n",
            "model/grown": "size: ${data.length}\n",
        }
    )
    assert [compose(argv).model.size for argv in ([], ["model=a"], ["model=ab"], ["task=a_b"])] == [8, 1, 3, 2]
    assert compose(["task=a_b", "model=own"]).model.size == 8
    for argv, words in (
        (["model=a_b_small"], "model=a_b_small: it is made for task=a_b, and this is task=a"),
        (["model=a", "task=a_b"], "model=a: it is made for task=a, and this is task=a_b"),
        (["model=grown"], "config: Interpolation key 'data.length' not found; do model=grown and data=d go together?"),
    ):
        with pytest.raises(UsageError, match=f"^{re.escape(words)}$"):
            compose(argv)


def test_what_the_data_decide_and_an_empty_mapping(write: Write) -> None:
    train = "defaults: {task: a, norm: x}\ndata: {size: 8}\nmodel: {size: '${data.size}', more: {}}\n"
    write({"train": train, "task/a": "defaults: {}\n", "norm/x": "defaults: {}\n"})
    cfg = compose(["data.size=16", "model.more.deep=4", "model.more.kind=soft"])
    assert plain(cfg)["model"] == {"size": 16, "more": {"deep": 4, "kind": "soft"}}
    with pytest.raises(UsageError, match=r"^model\.size: the data decide it; set data\.size$"):
        compose(["model.size=16"])
