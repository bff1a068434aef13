"""Features of images (B, 1 or 3, H, W) in 0..1, by which generated and real ones are compared."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 16  # grey levels of the digits of UCI
MAX_PIXELS = 4096  # a covariance of more is not estimated


class Features(nn.Module):
    """Images (B, 1 or 3, H, W) -> (B, num_features)."""

    num_features: int


class PixelFeatures(Features):
    """Pixels, from 0 to 16."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features > MAX_PIXELS:
            raise ValueError(f"features=pixels: {num_features} are too many; take inception or a timm model")
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return LEVELS * images.flatten(1)


class Inception(Features):
    """The 2048 features of the FID's own Inception v3, from torch-fidelity."""

    num_features = 2048

    def __init__(self, weights: str) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.model = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights or None)

    def forward(self, images: Tensor) -> Tensor:
        return self.model((255 * _in_colour(images)).round().byte())


class TimmFeatures(Features):
    """The features of a timm model before its classifier, of images resized to its own size."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        import timm

        model: Any = timm.create_model(name, pretrained=not weights, checkpoint_path=weights)
        model.reset_classifier(0)
        config = timm.data.resolve_model_data_config(model)
        self.model = model.eval()
        self.size: tuple[int, int] = config["input_size"][1:]
        with torch.no_grad():
            self.num_features = model(torch.zeros(1, 3, *self.size)).shape[1]  # num_features leaves out a last layer
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        resized = F.interpolate(_in_colour(images), self.size, mode="bicubic", antialias=True)
        return self.model((resized - self.mean) / self.std)


def make_features(name: str, weights: str, pixels: int) -> Features:
    """Returns the features called `name`: "pixels", "inception", or those of a timm model.

    Args:
        weights: file with weights; empty: the library fetches them.
        pixels: of an image.

    Raises:
        ValueError: no such features or weights, or a library that is missing.
    """
    if name == "pixels":
        return PixelFeatures(pixels)
    file = str(Path(weights).expanduser()) if weights else ""
    if file and not Path(file).is_file():
        raise ValueError(f"weights={weights}: there is no such file")
    try:
        model: Features = Inception(file) if name == "inception" else TimmFeatures(name, file)
    except ModuleNotFoundError as error:
        raise ValueError(f"features={name} needs the package torch-fidelity: uv sync --extra fid") from error
    except Exception as error:  # of any kind, from three libraries and the network
        raise ValueError(f"features={name} cannot be loaded: {type(error).__name__}: {error}") from error
    return model.eval().requires_grad_(False)


def _in_colour(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
