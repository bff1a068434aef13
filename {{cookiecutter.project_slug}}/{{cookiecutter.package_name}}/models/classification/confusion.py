"""Balanced accuracy and the confusion matrix of a classifier, for evaluate.py."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from ...figures import SIZE, readable
from ...utils import replace

MAX_CLASSES = 2000  # beyond them the matrix costs too much memory, and no one reads it
MAX_NUMBERS, MAX_NAMES = 12, 30  # classes up to which a figure has the shares as numbers, and the classes' names


class BalancedAccuracy(MulticlassConfusionMatrix):
    """The mean of the classes' accuracies, over those that have images.

    Attributes:
        matrix: images by true class (rows) and predicted class (columns), of all devices, once it was computed.
    """

    matrix: Tensor | None = None

    def compute(self) -> Tensor:
        self.matrix = super().compute().cpu()
        return class_accuracies(self.matrix).nanmean().float()


def class_accuracies(matrix: Tensor) -> Tensor:
    """Returns the accuracy of each class (K,), nan for one without images."""
    return matrix.diagonal().double() / matrix.sum(1)


def write(matrix: Tensor, class_names: Sequence[str], stem: Path) -> list[Path]:
    """Writes `<stem>.csv`, which has the accuracy of each class too, and `<stem>.png`; returns their paths."""
    table, picture = stem.with_suffix(".csv"), stem.with_suffix(".png")
    header = ["class", "images", "accuracy", *class_names]
    counts, accuracies = matrix.tolist(), [f"{value:.6f}".replace("nan", "") for value in class_accuracies(matrix)]
    rows = [
        [name, sum(row), accuracy, *row] for name, row, accuracy in zip(class_names, counts, accuracies, strict=True)
    ]

    def write_table(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])

    replace(table, write_table)
    figure = draw(matrix, class_names)
    replace(picture, lambda path: figure.savefig(path, format="png"))
    return [table, picture]


@readable
def draw(matrix: Tensor, class_names: Sequence[str]) -> Figure:
    """Draws which share of each class's images is predicted as which class."""
    shares = (100 * matrix.double() / matrix.sum(1, keepdim=True)).nan_to_num().numpy()
    number, side = len(class_names), max(SIZE)
    figure = Figure(figsize=(1.15 * side, side), dpi=100, layout="constrained")
    accuracy = class_accuracies(matrix).nanmean()
    axes = figure.add_subplot(title=f"balanced accuracy {accuracy:.3f}", xlabel="predicted class", ylabel="true class")
    mesh = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(mesh, ax=axes, label="% of the true class")
    axes.grid(False)
    if number <= MAX_NAMES:
        small = 13 if number <= MAX_NUMBERS else 8
        short = [name if len(name) <= 16 else f"{name[:15]}…" for name in class_names]
        rotation = 90 if max(map(len, short)) > 2 else 0
        axes.set_xticks(range(number), short, rotation=rotation, fontsize=small)
        axes.set_yticks(range(number), short, fontsize=small)
    if number <= MAX_NUMBERS:
        for true, predicted in torch.nonzero(matrix).tolist():
            share = shares[true, predicted]
            colour = "white" if share > 50 else "black"
            axes.text(predicted, true, f"{share:.0f}", ha="center", va="center", fontsize=10, color=colour)
    return figure
