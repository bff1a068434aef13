"""Balanced accuracy and the confusion matrix of evaluate.py."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

import evaluate
from {{cookiecutter.package_name}}.config import recompose
from {{cookiecutter.package_name}}.models.classification import confusion
from {{cookiecutter.package_name}}.runs import saved_checkpoint
from {{cookiecutter.package_name}}.train import load_trained

from ...runs import ROOT, Start, Tiny
from .tiny import TINY


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


def read(file: Path) -> tuple[np.ndarray, list[str]]:
    """The matrix, and the accuracies of the classes."""
    header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    assert header == ["class", "images", "accuracy", *(row[0] for row in rows)]
    matrix = np.array([row[3:] for row in rows], dtype=int)
    assert [int(row[1]) for row in rows] == matrix.sum(1).tolist()
    return matrix, [row[2] for row in rows]


def test_those_of_scikit_learn(tmp_path: Path) -> None:
    """Of classes of unequal size, one of them without images."""
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(200).sqrt().long() // 4  # 0 to 3
    logits[torch.arange(200), target] += 1
    metric = confusion.BalancedAccuracy(5)
    for part in torch.arange(200).split(30):
        metric.update(logits[part], target[part])
    expected = confusion_matrix(target, logits.argmax(1), labels=range(5))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        balanced = balanced_accuracy_score(target, logits.argmax(1))
    assert metric.compute().item() == pytest.approx(balanced)
    assert metric.matrix is not None
    files = confusion.write(metric.matrix, list("abcde"), tmp_path / "confusion_val")
    assert [file.name for file in files] == ["confusion_val.csv", "confusion_val.png"]
    matrix, accuracies = read(files[0])
    assert (matrix == expected).all()
    assert accuracies[4] == ""
    assert [float(one) for one in accuracies[:4]] == pytest.approx(np.diag(matrix)[:4] / matrix.sum(1)[:4], abs=1e-6)


@pytest.mark.parametrize("classes", [2, 20, 300])
def test_the_figure_is_no_blank_page(tmp_path: Path, classes: int) -> None:
    matrix = torch.eye(classes, dtype=torch.long) + torch.ones(classes, classes, dtype=torch.long)
    _, file = confusion.write(matrix, ["a name that is too long"] * classes, tmp_path / "confusion_test")
    with Image.open(file) as picture:
        assert max(picture.size) < 1000
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50


def test_evaluate_writes_it_beside_a_run(start: Start) -> None:
    run, values = start()
    before = {path.name for path in run.iterdir()}
    found = evaluate.main([f"checkpoint={run}"])
    assert {path.name for path in run.iterdir()} - before == {"confusion_test.csv", "confusion_test.png"}
    file, config = saved_checkpoint(run)
    data, module = load_trained(recompose(config, [], anew=(), free=()), file, "test")
    batches = [(module.eval_model.eval()(images).argmax(1), target) for images, target in data.test_dataloader()]
    predicted, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
    matrix, _ = read(run / "confusion_test.csv")
    assert (matrix == confusion_matrix(target, predicted)).all()
    assert found["test/balanced_acc"] == pytest.approx(balanced_accuracy_score(target, predicted))
    assert np.trace(matrix) / matrix.sum() == pytest.approx(values["test/acc"])
    assert "test/balanced_acc" not in values, "training does without"

    assert evaluate.main([f"checkpoint={file}", "split=val"]).keys() == {tag.replace("test", "val") for tag in found}
    assert not list(run.glob("confusion_val*")), "a checkpoint file has no folder for more files"


@pytest.mark.slow
def test_two_processes_count_every_image_once(start: Start) -> None:
    run, _ = start()
    alone = evaluate.main([f"checkpoint={run}"])
    matrix, _ = read(run / "confusion_test.csv")
    (run / "confusion_test.csv").unlink()
    command = [sys.executable, str(ROOT / "evaluate.py"), f"checkpoint={run}", "trainer=ddp_cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written: ") == 1
    assert f"test/balanced_acc {alone['test/balanced_acc']:.6f}" in done.stdout
    assert (read(run / "confusion_test.csv")[0] == matrix).all()
