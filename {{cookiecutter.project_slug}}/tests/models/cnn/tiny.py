"""The smallest run of a CNN: a ResNet of three blocks of widths 8, 16 and 32 on the digits."""

import math

from ...runs import Tiny

TINY = Tiny(
    family="cnn",
    sizes=["norm=dyt", "model.depth=1", "model.width=8", "optim.lr=1e-2"],
    norms=[
        *("bn1", "blocks.0.bn1", "blocks.0.bn2", "blocks.1.bn1", "blocks.1.bn2", "blocks.1.downsample.1"),
        *("blocks.2.bn1", "blocks.2.bn2", "blocks.2.downsample.1"),
    ],
    metrics={"loss", "acc", "acc5"},
    training=["trainer.limit_train_batches=1.0", "trainer.max_epochs=4"],
    learned=0.8 * math.log(10),  # of the loss of knowing nothing about ten classes
    random=["model.drop_path=0.2", "data.augment.re_prob=0.5"],
    refusals=[
        (["norm=dyt", "norm.alpha_per=token"], "alpha_per=token: choose layer, channel or none"),
        (["model.width=0"], "model.width=0"),
        (["data=folder", "data.root=nowhere", "data.img_size=32"], "nowhere does not exist"),
    ],
)
