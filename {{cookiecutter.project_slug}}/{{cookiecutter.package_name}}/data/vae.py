"""The autoencoder of latents, diffusers' AutoencoderKL with weights from a folder or the hub; pixels of latents."""

import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .latents import read_meta
from .prepared import META

NO_VAE = "none"
BOUND = 3.0  # standard deviations that are black and white where a channel is shown as it is
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
        folder = Path(name).expanduser()
        if (folder / "model_index.json").is_file():
            folder /= "vae"
        self.source = str(folder.resolve()) if name and folder.is_dir() else name
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
        with torch.autocast(device.type, enabled=False):
            # One at a time: 256 x 256 pixels take about a gigabyte.
            pixels = [self.model.decode(latent.to(device).float()).sample.cpu() for latent in latents.split(1)]
        return (torch.cat(pixels) / 2 + 0.5).clamp(0, 1)


def pixels(section: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Returns a function from the model's latents (B, C, h, w) to pixels (B, 3, H, W) in 0..1, fp32 on the CPU.

    The autoencoder `section["vae"]` decodes them; "" is the one that the latents were made with. Its own scale and
    shift are taken where the prepared data are not. "none" shows the first three channels as red, green and blue,
    -3 as 0 and 3 as 1; of fewer channels, the first as grey.

    Args:
        section: `data` of a config.

    Raises:
        ValueError: the autoencoder cannot be loaded, or is for other latents.
    """
    name, root = section["vae"], str(section["root"])
    if name == NO_VAE:
        return channels_as_pixels
    try:
        meta = read_meta(root) if not name or (Path(root).expanduser() / META).is_file() else {}
        vae = VAE(name or meta["vae"])
        if section["in_chans"] not in (0, vae.channels):
            raise ValueError(f"vae={vae.source} decodes {vae.channels} channels, not in_chans={section['in_chans']}")
    except ValueError as error:
        raise ValueError(f"{error}; {OTHER_WAYS}") from error
    scale, shift = meta.get("scaling_factor", vae.scale), meta.get("shift_factor", vae.shift)
    return lambda latents: vae.decode(latents.float() / scale + shift)


def channels_as_pixels(latents: Tensor) -> Tensor:
    shown = latents[:, :3] if latents.shape[1] >= 3 else latents[:, :1]
    return (shown.float().cpu() / (2 * BOUND) + 0.5).clamp(0, 1)


def _load(source: str) -> Any:
    try:
        from diffusers import AutoencoderKL
        from diffusers.utils import logging
    except ModuleNotFoundError as error:
        raise ValueError(f"vae={source} needs the package diffusers: uv sync --extra latents") from error
    logging.set_verbosity(logging.CRITICAL)  # the error below says it in one line
    options: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "output_loading_info": True}
    try:
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
            model, report = AutoencoderKL.from_pretrained(source, **options)
    except Exception as error:  # of many classes, some of them the network's
        cause = textwrap.shorten(str(error), 240, placeholder=" ...")
        raise ValueError(f"vae={source} cannot be loaded, {EXPECTED}: {cause}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"vae={source}: {len(missing)} tensors of an AutoencoderKL are missing, such as {missing[0]}")
    return model.eval().requires_grad_(False)
