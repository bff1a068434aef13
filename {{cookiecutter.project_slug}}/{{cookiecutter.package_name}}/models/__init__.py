"""Networks. Each family is one module with a `build(norm_layer, **settings)`; they know norms and torch, no more."""
