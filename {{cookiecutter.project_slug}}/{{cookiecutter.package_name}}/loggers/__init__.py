"""Loggers. One that `configs/logger/<name>.yaml` names is the module of that name, with `build(run_dir, settings)`."""
