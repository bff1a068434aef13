"""The autoencoder between pixels and latents: diffusers' AutoencoderKL, with weights from a folder or from the hub."""

import hashlib
import re
import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError, require
from ..utils import stamp

HUB_NAME = r"[\w.-]+/[\w.-]+"
NEEDS = "needs the package diffusers: uv sync --extra latents"
KINDS = ("*.json", "*.safetensors", "*.bin")
AT_A_TIME = 8 * 256 * 256  # pixels that are decoded together: every 256 x 256 of them take a gigabyte or so


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
        check_vae(given, key)
        self.source = str(_folder(given) or given)
        self.net = _load(self.source, f"{key}={given}")
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
        """Latents as `encode` gives them (B, C, h, w) -> pixels (B, 3, H, W) in 0..1 on the CPU.

        It is computed where the latents are; but once that was a GPU, the autoencoder stays there.
        """
        if latents.device.type != "cpu":
            with torch.inference_mode(False):  # whose tensors could not move again outside of it
                self.net.to(latents.device)
        device = self.net.device
        height, width = (side * self.factor for side in latents.shape[2:])
        if not len(latents):
            return torch.empty(0, 3, height, width)
        with torch.autocast(device.type, enabled=False):
            batches = latents.split(max(1, AT_A_TIME // (height * width)))
            parts = [self.net.decode(batch.to(device).float()).sample.cpu() for batch in batches]
        return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)

    def checksum(self) -> str:
        """Of the weights, wherever they were loaded from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def check_vae(given: str, key: str) -> None:
    """What can be said about an autoencoder without loading it or asking the hub.

    Raises:
        UsageError: diffusers, or the folder, is not there.
    """
    expected = "expected one with config.json and weights, or a name on the hub, as stabilityai/sd-vae-ft-ema is"
    folder = _folder(given)
    known = folder is not None or bool(re.fullmatch(HUB_NAME, given))
    require(known, f"{key}={given}: there is no such folder; {expected}")
    complete = folder is None or (folder / "config.json").is_file()
    require(complete, f"{key}={given}: the folder has no config.json; {expected}")
    require(find_spec("diffusers") is not None, f"{key}={given} {NEEDS}")


def fingerprint(given: str) -> str:
    """Changes with the name or the files of an autoencoder; what the hub has under a name is taken to stay."""
    folder = _folder(given)
    if folder is None:
        return given
    files = sorted(file for kind in KINDS for file in folder.glob(kind))
    return repr([str(folder), *map(stamp, files)])


def _folder(given: str) -> Path | None:
    """Where the autoencoder's files are; None: it is no folder."""
    folder = Path(given).expanduser()
    if not given or not folder.is_dir():
        return None
    return (folder / "vae" if (folder / "model_index.json").is_file() else folder).resolve()


def _load(source: str, given: str) -> Any:
    try:
        from diffusers import AutoencoderKL
        from diffusers.utils import logging
    except ImportError as error:
        raise UsageError(f"{given} {NEEDS}") from error
    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what goes wrong is said below, in one line
    how: dict[str, Any] = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "output_loading_info": True}
    try:
        # In the midst of a validation it must take none of its random numbers, nor become a part of its inference mode.
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            net, report = AutoencoderKL.from_pretrained(source, **how)
    except Exception as error:  # of many classes, some of them the network's
        cause = textwrap.shorten(str(error), 240, placeholder=" ...")
        raise UsageError(f"{given}: diffusers cannot load an AutoencoderKL from it: {cause}") from error
    finally:
        logging.set_verbosity(level)
    missing = sorted(report["missing_keys"])
    require(not missing, f"{given}: {len(missing)} tensors of an AutoencoderKL are missing, such as {missing[:1]}")
    return net.float().eval().requires_grad_(False)
