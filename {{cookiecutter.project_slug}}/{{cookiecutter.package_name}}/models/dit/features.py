"""What generated and real images are compared by: features of images (B, 1 or 3, H, W) with values in 0..1."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UsageError, require

LEVELS = 16  # what a pixel counts to, as in the digits of UCI
MOST = 4096  # features, whose covariance is still at hand


class Features(nn.Module):
    """Images (B, 1 or 3, H, W) -> (B, num_features)."""

    num_features: int


class PixelFeatures(Features):
    """The pixels themselves, from 0 to 16."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return LEVELS * images.flatten(1)


class Inception(Features):
    """The 2048 features of the FID's own Inception v3, from torch-fidelity."""

    num_features = 2048

    def __init__(self, weights: str) -> None:
        super().__init__()
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.net = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights or None)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((255 * _in_colour(images)).round().byte())


class TimmFeatures(Features):
    """What a timm model has before its classifier, of images in its own size."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        import timm

        net: Any = timm.create_model(name, pretrained=not weights, checkpoint_path=weights)
        net.reset_classifier(0)
        config = timm.data.resolve_model_data_config(net)
        self.net = net.eval()
        self.size: tuple[int, int] = config["input_size"][1:]
        with torch.no_grad():
            self.num_features = net(torch.zeros(1, 3, *self.size)).shape[1]  # some have a layer after what timm counts
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        large = F.interpolate(_in_colour(images), self.size, mode="bicubic", antialias=True)
        return self.net((large - self.mean) / self.std)


class Classifier:
    """A support vector machine on pixels, scikit-learn's; it reads 98.5 % of the digits that it was not fitted to."""

    def __init__(self, images: Tensor, classes: Tensor) -> None:
        from sklearn.svm import SVC

        self.machine = SVC().fit(images.flatten(1).numpy(), classes.numpy())

    def count(self, images: Tensor, asked: Sequence[int]) -> int:
        """How many of `images` show the class `asked`. Those of a net that diverged are no numbers, and show none."""
        pixels = images.flatten(1).cpu().numpy()
        sound = np.isfinite(pixels).all(axis=1)
        return int((self.machine.predict(pixels[sound]) == np.array(asked)[sound]).sum()) if sound.any() else 0


def make_features(name: str, weights: str, pixels: int) -> Features:
    """The features called `name`: "pixels", of which an image has `pixels`, "inception", or a timm model's.

    Raises:
        UsageError: no such features or weights, or a library that is missing.
    """
    key, given = f"task.quality.features={name}", weights
    weights = given and str(Path(given).expanduser())
    if name == "pixels":
        many = f"{key}: of {pixels} pixels no covariance can be estimated; take inception or a timm model"
        require(pixels <= MOST, many)
        return PixelFeatures(pixels)
    require(not weights or Path(weights).is_file(), f"task.quality.weights={given}: there is no such file")
    try:
        net: Features = Inception(weights) if name == "inception" else TimmFeatures(name, weights)
    except ModuleNotFoundError as error:
        raise UsageError(f"{key}: it needs the package torch-fidelity: uv sync --extra fid") from error
    except Exception as error:  # of any kind, from three libraries and the network
        cause = " ".join(str(error).split())
        raise UsageError(f"{key}: it cannot be loaded ({type(error).__name__}: {cause})") from error
    net.eval().requires_grad_(False)
    return net


def read_moments(file: str) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of features and of their products, and their number, from `mu` and `sigma` in an .npz file.

    Raises:
        UsageError: no such file, or it has something else in it.
    """
    expected = f"task.quality.real={file}: expected an npz file of mu (F,) and sigma (F, F)"
    try:
        with Path(file).expanduser().open("rb") as stream, np.load(stream) as arrays:
            mu, sigma = (torch.from_numpy(arrays[key].astype(np.float64)) for key in ("mu", "sigma"))
    except (BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError, zlib.error) as error:
        raise UsageError(expected) from error
    require(mu.ndim == 1 and sigma.shape == (len(mu), len(mu)), expected)
    number = 2  # any will do
    return number * mu, (number - 1) * sigma + number * torch.outer(mu, mu), torch.tensor(float(number))


def _in_colour(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
