"""The smallest run of a DiT: two blocks of width 32 on the digits; and images for one of another kind."""

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image

from ...runs import Tiny

QUARTERS = ("t_00-25", "t_25-50", "t_50-75", "t_75-100")

TINY = Tiny(
    family="dit",
    sizes=[
        *(
            "model.depth=2",
            "model.embed_dim=32",
            "model.num_heads=2",
            "data.val_fraction=0.05",
            "data.test_fraction=0.05",
        ),
        *("task.quality.n=24", "task.quality.steps=2", "task.samples.n=10", "task.samples.steps=2"),
        *("trainer.max_steps=-1", "trainer.val_every_n_steps=0", "optim.lr=1.0e-3"),
    ],
    norms=["blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "final_layer.norm_final"],
    metrics={"loss", "fd_24", "asked_class"},
    training=["trainer.limit_train_batches=20", "trainer.max_epochs=3", "optim.lr=4.0e-3"],
    learned=0.9,  # of a little more than 1, for predicting the mean velocity
    starts=[
        ["data.num_classes=10"],
        ["data.num_classes=10", "model.init=dit", "model.positions=sines"],
        ["data.num_classes=10", "model.init=dit", "norm=derf", "model.zero_gates=true"],
    ],
    files={"samples.png", "trajectory.png"},
    refusals=[
        (["model.patch_size=3"], "model.patch_size=3: expected a number that divides model.img_size=8"),
        (["objective=ddpm", "task.quality.steps=1001"], "task.quality.steps=1001: expected"),
        (["task.quality.interval=[0.8,0.2]"], "task.quality.interval"),
    ],
)


def write_images(root: Path, counts: Mapping[str, int], side: int = 8) -> None:
    """Colour PNGs in two classes, dark and light: root/<split>/<class>/<number>.png, so many in each split."""
    random = torch.Generator().manual_seed(0)
    for split, count in counts.items():
        for number in range(count):
            folder = root / split / ("dark", "light")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            values = torch.randint(100, (side, side, 3), generator=random) + 150 * (number % 2)
            Image.fromarray(values.byte().numpy()).save(folder / f"{number}.png")
