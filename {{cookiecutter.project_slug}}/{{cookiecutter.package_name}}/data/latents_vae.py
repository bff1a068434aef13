"""The autoencoder between pixels and latents: diffusers' AutoencoderKL, with weights from a folder or from the hub."""

import hashlib
import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError, require

HUB_NAME = r"[\w.-]+/[\w.-]+"
AT_A_TIME = 8  # images that are decoded together: each takes a gigabyte or so


class VAE:
    """An AutoencoderKL in evaluation mode, in fp32.

    Args:
        given: a folder that diffusers has saved one to, or a whole pipeline; or a name on the hub.
        key: what the user calls it.

    Attributes:
        source: `given`; of a folder, its whole path.
        channels: of the latents.
        factor: pixels per latent, on a side.
        scale, shift: (latent - shift) * scale has about unit variance.

    Raises:
        UsageError: diffusers, or the autoencoder, is not there or cannot be loaded.
    """

    def __init__(self, given: str, key: str) -> None:
        folder = Path(given).expanduser()
        local = bool(given) and folder.is_dir()
        expected = "expected one with config.json and weights, or a name on the hub, as stabilityai/sd-vae-ft-ema is"
        require(local or bool(re.fullmatch(HUB_NAME, given)), f"{key}={given}: there is no such folder; {expected}")
        self.source = str(folder.resolve()) if local else given
        subfolder = "vae" if local and (folder / "model_index.json").is_file() else None
        self.net = _load(self.source, subfolder, f"{key}={given}")
        config = self.net.config
        self.channels, self.factor = int(config.latent_channels), 2 ** (len(config.block_out_channels) - 1)
        self.scale, self.shift = float(config.scaling_factor), float(config.shift_factor or 0.0)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in -1..1 -> mean and std of the distributions of their latents (B, 2, C, h, w)."""
        found = self.net.encode(images.to(self.net.device)).latent_dist
        return torch.stack((found.mean, found.std), dim=1)  # (B, 2, C, h, w)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents as `encode` gives them (B, C, h, w) -> pixels (B, 3, H, W) in 0..1 on the CPU."""
        self.net.to(latents.device)
        with torch.autocast(latents.device.type, enabled=False):
            parts = [self.net.decode(part.float()).sample.cpu() for part in latents.split(AT_A_TIME)]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)

    def checksum(self) -> str:
        """Of the weights, wherever they were loaded from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def _load(source: str, subfolder: str | None, given: str) -> Any:
    try:
        from diffusers import AutoencoderKL
        from diffusers.utils import logging
    except ImportError as error:
        raise UsageError(f"{given} needs the package diffusers: uv sync --extra latents") from error
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is said below, in one line
    options = {} if subfolder is None else {"subfolder": subfolder}
    try:
        with warnings.catch_warnings(action="ignore"):
            net, report = AutoencoderKL.from_pretrained(
                source, low_cpu_mem_usage=False, output_loading_info=True, **options
            )
    except Exception as error:  # of many classes, some of them the network's
        cause = textwrap.shorten(str(error), 240, placeholder=" ...")
        raise UsageError(f"{given}: diffusers cannot load an AutoencoderKL from it: {cause}") from error
    finally:
        logging.set_verbosity(level)
    missing = sorted(report["missing_keys"])
    require(not missing, f"{given}: {len(missing)} tensors of an AutoencoderKL are missing, such as {missing[:1]}")
    return net.float().eval().requires_grad_(False)
