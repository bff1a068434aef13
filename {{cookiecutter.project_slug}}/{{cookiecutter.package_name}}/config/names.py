"""Names that users of other projects type, and the arguments of Lightning's Trainer."""

# Other names of options, in lower case and without signs between words.
ALIASES = {
    **{"layernorm": "ln", "batchnorm": "bn", "groupnorm": "gn", "rms": "rmsnorm"},
    **{"dynamictanh": "dyt", "dynamicerf": "derf"},
}
HINTS = {  # keys of other projects whose names have nothing in common with ours
    "batch_size": "data.total_batch_size",
    "ckpt_path": "resume",
    "epochs": "trainer.max_epochs",
    "learning_rate": "optim.lr",
    "num_workers": "data.workers",
}

# Arguments of Lightning's Trainer beyond those in the files, and those that this project sets itself.
PASSED = (
    *("benchmark", "detect_anomaly", "deterministic", "enable_progress_bar", "fast_dev_run", "inference_mode"),
    *("max_time", "overfit_batches", "profiler"),
)
REPLACED = {
    **dict.fromkeys(("logger", "enable_autolog_hparams"), "logger= picks the loggers"),
    **dict.fromkeys(("callbacks", "enable_model_summary"), "callbacks= picks the callbacks"),
    "accumulate_grad_batches": "it is data.total_batch_size / data.batch_size / devices",
    **dict.fromkeys(("gradient_clip_val", "gradient_clip_algorithm"), "optim.clip_norm clips gradients"),
    **dict.fromkeys(("min_epochs", "min_steps"), "trainer.max_epochs and trainer.max_steps say how long it trains"),
    "val_check_interval": "trainer.val_every_n_steps sets it",
    "default_root_dir": "runs= is the folder of all runs",
    **dict.fromkeys(("enable_checkpointing", "model_registry", "barebones"), "a run saves its checkpoints"),
    **dict.fromkeys(
        ("use_distributed_sampler", "reload_dataloaders_every_n_epochs"), "the data module deals samples out"
    ),
    "num_sanity_val_steps": "the first validation comes after trainer.val_every_n_steps",
    "limit_predict_batches": "training predicts nothing",
    "plugins": "trainer.precision and trainer.strategy choose them",
}
