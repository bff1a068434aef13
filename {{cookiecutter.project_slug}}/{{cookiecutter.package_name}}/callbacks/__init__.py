"""Callbacks. They read norms through the model's modules and know no family by name."""
