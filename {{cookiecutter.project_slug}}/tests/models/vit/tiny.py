"""The smallest run of a ViT: two blocks of width 32 on the digits."""

import math

from ...runs import Tiny

TINY = Tiny(
    family="vit",
    sizes=["model.depth=2", "model.embed_dim=32", "model.num_heads=2"],
    norms=["blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "fc_norm"],
    metrics={"loss", "acc", "acc5"},
    training=["trainer.limit_train_batches=1.0", "trainer.max_epochs=4", "optim.lr=2e-3", "model.head_gain=2"],
    learned=0.8 * math.log(10),  # of the loss of knowing nothing about ten classes
    random=["model.drop_path=0.2", "data.augment.re_prob=0.5"],
    refusals=[
        (["norm.alpha0=-1"], "alpha0=-1: expected a number above 0"),
        (["model.num_heads=5"], "model.num_heads=5"),
        (["data=folder", "data.root=nowhere", "data.img_size=32"], "nowhere does not exist"),
    ],
)
