"""Preparation of data for training."""
