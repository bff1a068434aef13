"""From latents back to images; apart from the data module, so that a sample need not wait for Lightning."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UsageError, require
from .latents_shards import META, Prepared, shards
from .latents_vae import VAE, check_vae, fingerprint

NO_VAE = "none"
BOUND = 3.0  # standard deviations: black and white of a channel that is shown as it is


def pixels(section: Mapping[str, Any], key: str = "data.vae") -> Callable[[Tensor], Tensor]:
    """From what the net works on (B, C, h, w) to pixels (B, 3, H, W) in 0..1 on the CPU, fp32.

    The autoencoder decodes it that `section["vae"]` names: "" is the one that the latents were made with. It is loaded
    when it is first used. Its own scale and shift are taken if the prepared data are not there, as where a checkpoint
    has been copied to. With "none" the first three channels are shown as red, green and blue, -3 as 0 and 3 as 1 in
    each of them; of fewer than three, the first as grey (B, 1, h, w).

    Args:
        section: `data` of a config.
        key: what the user calls `section["vae"]`.

    Raises:
        UsageError: there is no such autoencoder; or, on first use, it cannot be loaded or is for other latents.
    """
    return Decoder(section, key) if shows_pixels(section) else channels_as_pixels


def shows_pixels(section: Mapping[str, Any]) -> bool:
    """Whether `pixels` gives images, rather than channels of latents to look at."""
    return section["vae"] != NO_VAE


def identity(section: Mapping[str, Any]) -> str:
    """Changes with what `pixels` gives of these data: with their meta.json, or with the autoencoder."""
    digest = hashlib.sha256()
    if (meta := _meta(section)).is_file():
        digest.update(meta.read_bytes() + str(meta.stat().st_mtime_ns).encode())  # made anew, it may say the same
    if shows_pixels(section):
        name, _ = _autoencoder(section, "data.vae", _prepared(section))
        digest.update(fingerprint(name).encode())
    return digest.hexdigest()


class Decoder:
    """What `pixels` returns."""

    def __init__(self, section: Mapping[str, Any], key: str) -> None:
        self.key, self.channels = key, int(section["in_chans"])
        self.prepared = _prepared(section)
        self.name, self.called = _autoencoder(section, key, self.prepared)
        with _other_ways(key):
            check_vae(self.name, self.called)

    @cached_property
    def vae(self) -> VAE:
        with _other_ways(self.key):
            vae = VAE(self.name, self.called)
            fits = self.channels in (0, vae.channels)
            other = f"it decodes {vae.channels} channels, and data.in_chans={self.channels}"
            require(fits, f"{self.called}={self.name}: {other}")
        return vae

    def __call__(self, latents: Tensor) -> Tensor:
        made = self.prepared or self.vae
        return self.vae.decode(latents.float() / made.scale + made.shift)


def channels_as_pixels(latents: Tensor) -> Tensor:
    shown = latents[:, :3] if latents.shape[1] >= 3 else latents[:, :1]
    return (shown.float().cpu() / (2 * BOUND) + 0.5).clamp(0, 1)


def _autoencoder(section: Mapping[str, Any], key: str, prepared: Prepared | None) -> tuple[str, str]:
    """The one that decodes, a folder or a name on the hub, and how to refer to what named it."""
    if name := str(section["vae"]):
        return name, key
    meta = _meta(section)
    with _other_ways(key):
        require(prepared is not None, f"{key} is not set, and {meta}, which says what made the latents, is not there")
    assert prepared is not None
    return prepared.vae, f"{meta}: vae"


def _prepared(section: Mapping[str, Any]) -> Prepared | None:
    return shards(str(section["root"])) if _meta(section).is_file() else None


def _meta(section: Mapping[str, Any]) -> Path:
    return Path(section["root"]).expanduser() / META


@contextmanager
def _other_ways(key: str) -> Iterator[None]:
    """Ends a refusal with what can be done about it."""
    try:
        yield
    except UsageError as error:
        ways = f"{key}=FOLDER, or a name on the hub, decodes them, and {key}={NO_VAE} shows channels instead"
        raise UsageError(f"{error}; {ways}") from error
