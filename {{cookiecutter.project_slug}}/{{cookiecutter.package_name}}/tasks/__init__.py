"""LightningModules. Each family is one module with a `build(net, cfg)` beside its class."""
