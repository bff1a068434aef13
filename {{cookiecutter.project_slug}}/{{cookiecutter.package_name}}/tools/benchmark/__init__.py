"""What a norm costs: by itself on one tensor (norms.py), and in a whole model (models.py). benchmark.py calls it."""
