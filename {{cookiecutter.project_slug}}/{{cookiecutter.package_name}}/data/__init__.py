{%- set vit = cookiecutter.families in ("all", "vit") -%}
{%- set cnn = cookiecutter.families in ("all", "cnn") -%}
{%- set dit = cookiecutter.families in ("all", "dit") -%}
{%- set llm = cookiecutter.families in ("all", "llm") -%}
"""LightningDataModules, one for each kind of data; `module:` in configs/data/*.yaml names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Lightning takes seconds to import, for which prepare.py need not wait
    from torch import Tensor

    from .base import DataModule


@dataclass(frozen=True)
class Kind:
    """A kind of data.

    Args:
        build: `build(seed=..., **section_data)` returns the data module.
        pixels: `pixels(section_data)` returns a function from the model's inputs (B, C, H, W) to pixels in 0..1.
    """

    build: Callable[..., DataModule]
    pixels: Callable[..., Callable[[Tensor], Tensor]] | None = None


def get_kind(name: str) -> Kind:
    """Returns a kind of data by name, whose modules and libraries are imported only now."""
{%- if vit or cnn or dit %}
    if name == "images":
        from . import images

        return Kind(images.Images, images.pixels)
{%- endif %}
{%- if dit %}
    if name == "latents":
        from . import latents, vae

        return Kind(latents.Latents, vae.pixels)
{%- endif %}
{%- if llm %}
    if name == "tokens":
        from .tokens import Tokens

        return Kind(Tokens)
{%- endif %}
    raise ValueError(f"there is no kind of data {name}")
