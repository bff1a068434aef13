"""The autoencoder of latents, diffusers' AutoencoderKL with weights from a folder or the hub; pixels of latents."""

import hashlib
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.errors import UsageError
from ..utils import stamp
from .latents import read_meta
from .prepared import META

NO_VAE = "none"
BOUND = 3.0  # standard deviations that are black and white where a channel is shown as it is
HUB_NAME = r"[\w.-]+/[\w.-]+"
EXPECTED = "expected a folder with config.json and weights, or a name on the hub, as stabilityai/sd-vae-ft-ema is"
OTHER_WAYS = f"vae=FOLDER, or a name on the hub, decodes latents, and vae={NO_VAE} shows channels instead"


class VAE:
    """An AutoencoderKL in evaluation mode, in fp32.

    Args:
        name: a folder that diffusers has saved one to, or a whole pipeline; or a name on the hub.

    Attributes:
        source: `name`; the whole path of a folder.
        channels: of the latents.
        factor: pixels per latent, on a side.
        scale, shift: (latent - shift) * scale has about unit variance.

    Raises:
        ValueError: diffusers, or the autoencoder, is not there or cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        check_vae(name)
        self.source = str(_folder(name) or name)
        self.model = _load(self.source)
        config = self.model.config
        self.channels, self.factor = int(config.latent_channels), 2 ** (len(config.block_out_channels) - 1)
        self.scale, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Returns mean and standard deviation (B, 2, C, h, w) of the latents of images (B, 3, H, W) in -1..1."""
        latents = self.model.encode(images.to(self.model.device)).latent_dist
        return torch.stack((latents.mean, latents.std), dim=1)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels (B, 3, H, W) in 0..1, fp32 on the CPU, of latents (B, C, h, w) as `encode` gives them.

        It computes where the latents are; but once that was a GPU, the autoencoder stays there.
        """
        if latents.device.type != "cpu":
            with torch.inference_mode(False):  # tensors of inference mode could not move again outside of it
                self.model.to(latents.device)
        device = self.model.device
        if not len(latents):
            return torch.empty(0, 3, *(side * self.factor for side in latents.shape[2:]))
        with torch.autocast(device.type, enabled=False):
            # One at a time: 256 x 256 pixels take about a gigabyte.
            pixels = [self.model.decode(latent.to(device).float()).sample.cpu() for latent in latents.split(1)]
        return (torch.cat(pixels) / 2 + 0.5).clamp(0, 1)

    def checksum(self) -> str:
        """Returns a checksum of the weights, wherever they were loaded from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def check_vae(name: str) -> None:
    """Checks an autoencoder as far as that goes without loading it or asking the hub.

    Raises:
        ValueError: diffusers, or the folder, is not there.
    """
    folder = _folder(name)
    if folder is None and not re.fullmatch(HUB_NAME, name):
        raise ValueError(f"vae={name}: there is no such folder; {EXPECTED}")
    if folder is not None and not (folder / "config.json").is_file():
        raise ValueError(f"vae={name}: the folder has no config.json; {EXPECTED}")
    if find_spec("diffusers") is None:
        raise ValueError(f"vae={name} needs the package diffusers: uv sync --extra latents")


def pixels(section: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Returns a function from the model's latents (B, C, h, w) to pixels (B, 3, H, W) in 0..1, fp32 on the CPU.

    The autoencoder `section["vae"]` decodes them; "" is the one that the latents were made with. It is loaded when it
    is first used, and its own scale and shift are taken where the prepared data are not. "none" shows the first three
    channels as red, green and blue, -3 as 0 and 3 as 1; of fewer channels, the first as grey.

    Args:
        section: `data` of a config.

    Raises:
        UsageError: there is no such autoencoder; or, on first use, it cannot be loaded or is for other latents.
    """
    return Decoder(section) if shows_pixels(section) else channels_as_pixels


def shows_pixels(section: Mapping[str, Any]) -> bool:
    """Returns False where `pixels` shows channels of latents rather than images."""
    return section["vae"] != NO_VAE


def identity(section: Mapping[str, Any]) -> str:
    """Returns a text that changes with the result of `pixels`: with meta.json, or with the autoencoder's files."""
    files = [_meta(section)] if _meta(section).is_file() else []
    name = _vae(section) if shows_pixels(section) else NO_VAE
    if folder := _folder(name):
        name, files = str(folder), [*files, *sorted(folder.iterdir())]
    return repr([name, *map(stamp, files)])


class Decoder:
    """The function that `pixels` returns."""

    def __init__(self, section: Mapping[str, Any]) -> None:
        self.channels = int(section["in_chans"])
        self.scaling: tuple[float, float] | None = None
        with _translate_errors():
            self.name = _vae(section)
            check_vae(self.name)
            if _meta(section).is_file():
                meta = read_meta(str(section["root"]))
                self.scaling = float(meta["scaling_factor"]), float(meta["shift_factor"])

    @cached_property
    def vae(self) -> VAE:
        with _translate_errors():
            vae = VAE(self.name)
            if self.channels not in (0, vae.channels):
                raise ValueError(f"vae={self.name} decodes {vae.channels} channels, not in_chans={self.channels}")
        return vae

    def __call__(self, latents: Tensor) -> Tensor:
        scale, shift = self.scaling or (self.vae.scale, self.vae.shift)
        return self.vae.decode(latents.float() / scale + shift)


def channels_as_pixels(latents: Tensor) -> Tensor:
    shown = latents[:, :3] if latents.shape[1] >= 3 else latents[:, :1]
    return (shown.float().cpu() / (2 * BOUND) + 0.5).clamp(0, 1)


def _vae(section: Mapping[str, Any]) -> str:
    """Returns the autoencoder that decodes, a folder or a name on the hub."""
    if section["vae"]:
        return str(section["vae"])
    if not _meta(section).is_file():
        raise ValueError(f"vae is not set, and {_meta(section)}, which says what made the latents, is not there")
    return str(read_meta(str(section["root"]))["vae"])


def _meta(section: Mapping[str, Any]) -> Path:
    return Path(section["root"]).expanduser() / META


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turns a ValueError into a UsageError that ends with what can be done about it."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"data: {error}; {OTHER_WAYS}") from error


def _folder(name: str) -> Path | None:
    """Returns the folder of an autoencoder's files, or None for a name on the hub."""
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        return None
    return (folder / "vae" if (folder / "model_index.json").is_file() else folder).resolve()


def _load(source: str) -> Any:
    from diffusers import AutoencoderKL
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # the error below says it in one line
    options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "output_loading_info": True}
    try:
        # In the midst of a validation: neither its random numbers nor its inference mode are for the autoencoder.
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            model, report = AutoencoderKL.from_pretrained(source, **options)
    except Exception as error:  # of many classes, some of them the network's
        cause = textwrap.shorten(str(error), 240, placeholder=" ...")
        raise ValueError(f"vae={source}: diffusers cannot load an AutoencoderKL from it: {cause}") from error
    finally:
        logging.set_verbosity(level)
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"vae={source}: {len(missing)} tensors of an AutoencoderKL are missing, such as {missing[0]}")
    return model.float().eval().requires_grad_(False)
