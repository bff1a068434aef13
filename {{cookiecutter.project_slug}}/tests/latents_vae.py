"""A small autoencoder for tests."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL


def save_vae(folder: Path, **options: Any) -> Any:
    """A random AutoencoderKL that halves images, and gives latents of 4 channels."""
    torch.manual_seed(0)
    small = {"block_out_channels": (4, 8), "norm_num_groups": 2, "layers_per_block": 1, "latent_channels": 4}
    ends = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    net: Any = AutoencoderKL(**{**small, **ends, "scaling_factor": 0.5, "shift_factor": 0.1, **options})
    net.save_pretrained(folder)
    return net.eval()
