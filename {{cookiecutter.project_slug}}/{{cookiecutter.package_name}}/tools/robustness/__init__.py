"""Metrics of a trained model away from its training data."""
