"""From latents back to images; apart from the data module, so that a sample need not wait for Lightning."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import require
from .latents_shards import META, shards
from .latents_vae import VAE

NO_VAE = "none"
BOUND = 3.0  # standard deviations: black and white of a channel that is shown as it is


def pixels(section: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """From what the net works on (B, C, h, w) to pixels (B, 3, H, W) in 0..1 on the CPU.

    The autoencoder decodes it that `section["vae"]` names: "" is the one that the latents were made with, if it was a
    folder and that is still there. Its own scale and shift are taken if the prepared data are not there, as where a
    checkpoint has been copied to. Without one, or with "none", the first three channels are shown as red, green and
    blue, -3 as 0 and 3 as 1 in each of them; of fewer than three, the first as grey (B, 1, h, w).

    Raises:
        UsageError: the autoencoder cannot be loaded, or is not for latents of this kind.
    """
    root, name = str(section["root"]), str(section["vae"])
    prepared = shards(root) if (Path(root).expanduser() / META).is_file() else None
    if not name and prepared and Path(prepared.vae).is_absolute() and Path(prepared.vae).is_dir():
        name = prepared.vae
    if name in ("", NO_VAE):
        return channels_as_pixels
    vae = VAE(name, "data.vae")
    fits = section["in_chans"] in (0, vae.channels)
    require(fits, f"data.vae={name}: it decodes {vae.channels} channels, and data.in_chans={section['in_chans']}")
    scale, shift = (prepared.scale, prepared.shift) if prepared else (vae.scale, vae.shift)
    return lambda latents: vae.decode(latents.float() / scale + shift)


def channels_as_pixels(latents: Tensor) -> Tensor:
    shown = latents[:, :3] if latents.shape[1] >= 3 else latents[:, :1]
    return (shown.float().cpu() / (2 * BOUND) + 0.5).clamp(0, 1)
