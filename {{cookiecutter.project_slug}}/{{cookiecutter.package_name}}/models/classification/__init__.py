"""What the families of image classifiers share: LightningModule, timm's models, predict.py."""
