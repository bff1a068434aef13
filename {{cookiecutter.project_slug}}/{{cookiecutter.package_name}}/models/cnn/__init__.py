"""Convolutional networks for image classification."""

from ..classification.module import example_batch
from ..classification.predict import OPTIONS as PREDICT_OPTIONS
from ..classification.predict import predict as run_predict
from ..family import Family, Script
from .model import HEADS, load_pretrained
from .model import build as build_model
from .module import build as build_module

FAMILY = Family(
    name="cnn",
    build_model=build_model,
    build_module=build_module,
    example_batch=example_batch,
    example_data=["data=imagenet"],
    example_samples=64,
    pretrained=load_pretrained,
    resized=HEADS,
    predict=Script(run_predict, PREDICT_OPTIONS),
    shift_metric=("acc", "max"),
)
