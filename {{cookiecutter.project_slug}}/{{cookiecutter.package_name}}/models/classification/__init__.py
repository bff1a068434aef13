"""LightningModule, timm's models and predict.py, for all families of image classifiers."""
