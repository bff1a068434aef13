"""Time and memory of norms, by themselves (norms.py) and in whole models (models.py)."""
