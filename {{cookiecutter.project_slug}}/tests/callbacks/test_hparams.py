"""TensorBoard's HPARAMS, as its own plugin reads them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from {{cookiecutter.package_name}}.callbacks.hparams import HParams
from {{cookiecutter.package_name}}.config import compose

from ..conftest import each_family
from ..runs import Start, Tiny
from ..test_resume import resume


def table(runs: Path) -> tuple[Any, list[Any]]:
    """The experiment with its columns, and a row for each run."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(runs))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(runs))
    backend = backend_context.Context(TBContext(data_provider=provider, multiplexer=multiplexer))
    context = RequestContext()
    hparams = backend.hparams_metadata(context, "")
    experiment = backend.experiment_from_metadata(context, "", True, hparams, SimpleNamespace())
    wanted = [api_pb2.ColParams(metric=metric.name, order=api_pb2.ORDER_DESC) for metric in experiment.metric_infos]
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=statuses, col_params=wanted, include_metrics=True
    )
    groups = list_session_groups.Handler(context, backend, "", request).run().session_groups
    return experiment, list(groups)


def test_runs_of_different_norms_stand_in_one_table(start: Start, tiny: Tiny) -> None:
    """The first has no alpha; a resumed one keeps its one row, in its one directory."""
    one, values = start("norm=ln", "trainer.max_epochs=1", "monitor.every_n_steps=0")
    two, _ = start("norm=dyt", "norm.alpha0=0.7", "seed=3", "trainer.max_epochs=1", "monitor.every_n_steps=0")
    _, longer = start(cfg=resume(two, "trainer.max_epochs=2"))
    experiment, groups = table(one.parent)
    columns = [column.name for column in sorted(experiment.hparam_infos, key=lambda column: not column.differs)]
    assert set(columns[:5]) == {"task", "norm", "norm.alpha0", "optim.lr", "seed"}, "TensorBoard hides all but five"
    rows = {group.sessions[0].name: group for group in groups}
    assert rows.keys() == {one.name, two.name}
    assert "norm.alpha0" not in rows[one.name].hparams
    seen = rows[two.name].hparams
    assert (seen["norm"].string_value, seen["norm.alpha0"].number_value, seen["seed"].number_value) == ("dyt", 0.7, 3)
    assert {"optim.lr", "model.depth", "data.total_batch_size", "model", "data"} <= set(seen)
    for name, expected in (one.name, values), (two.name, longer):
        found = {value.name.tag: value.value for value in rows[name].metric_values}
        assert {"test/loss", "val/loss"} <= set(found)
        assert found["test/loss"] == pytest.approx(expected["test/loss"])
        assert rows[name].sessions[0].status == api_pb2.STATUS_SUCCESS
    assert {path.name for path in one.parent.iterdir()} == {one.name, two.name}
    assert not [path for path in two.iterdir() if path.is_dir() and path.name != "checkpoints"]


@each_family
def test_every_family_has_its_values_and_metrics(tiny: Tiny) -> None:
    cfg = compose([f"task={tiny.family}", "norm=dyt", "model.depth=3"])
    written = HParams(cfg)
    assert (written.values["task"], written.values["norm"], written.values["model.depth"]) == (tiny.family, "dyt", 3)
    assert {cfg.task.monitor, "val/loss", "test/loss"} <= set(written.metrics)
