"""The smallest run of an LLM: two blocks of width 32 on texts of 16 bytes."""

import math

from ...runs import Tiny

TINY = Tiny(
    family="llm",
    sizes=[
        *("model.depth=2", "model.embed_dim=32", "model.num_heads=2", "model.mlp_dim=64", "data.context=16"),
        *("trainer.max_steps=-1", "trainer.val_every_n_steps=0", "checkpoint.every_n_steps=0"),
        *("trainer.limit_val_batches=4", "trainer.limit_test_batches=4"),
    ],
    norms=[
        "layers.0.input_layernorm",
        "layers.0.post_attention_layernorm",
        "layers.1.input_layernorm",
        "layers.1.post_attention_layernorm",
        "norm",
    ],
    metrics={"loss", "bits_per_byte"},
    training=["trainer.limit_train_batches=40", "trainer.max_epochs=2"],
    learned=0.7 * math.log(257),  # of the loss of knowing nothing about bytes
    unit="tokens",
    starts=[
        ["data.vocab_size=257"],
        ["data.vocab_size=257", "model.tied=true"],
        ["data.vocab_size=257", "model.init=normal", "norm=derf"],
    ],
    refusals=[(["model.num_heads=5"], "model.num_heads=5")],
)
