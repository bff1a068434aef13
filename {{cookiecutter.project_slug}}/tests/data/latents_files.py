"""Small folders of latents and small autoencoders, made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

LENGTHS = {"train": [7, 5, 1], "val": [3], "test": [2]}
SHAPE = (4, 8, 8)
SCALE, SHIFT = 0.5, 0.1


def written(root: Path, deviation: float = 0.5) -> dict[str, np.ndarray]:
    """Writes a folder of shards, and returns the contents of each split (N, 2, 2, C, h, w)."""
    random = np.random.default_rng(0)
    meta: dict[str, Any] = {"format": 1, "shape": SHAPE, "scaling_factor": SCALE, "shift_factor": SHIFT, "splits": {}}
    meta |= {"vae": str(root / "autoencoder"), "img_size": 16, "classes": ["cat", "dog", "eel"]}
    everything = {}
    for split, lengths in LENGTHS.items():
        arrays = [random.normal(size=(length, 2, 2, *SHAPE)).astype(np.float16) for length in lengths]
        for number, array in enumerate(arrays):
            array[:, :, 1] = deviation
            np.save(root / f"{split}-{number:05}.npy", array)
        labels = np.arange(sum(lengths), dtype=np.int64) % 3
        np.save(root / f"{split}-labels.npy", labels)
        shards = [{"file": f"{split}-{number:05}.npy", "images": length} for number, length in enumerate(lengths)]
        meta["splits"][split] = {"labels": f"{split}-labels.npy", "shards": shards}
        everything[split] = np.concatenate(arrays).astype(np.float64)
    (root / "meta.json").write_text(json.dumps(meta))
    return everything


def change(root: Path, **values: Any) -> None:
    meta = json.loads((root / "meta.json").read_text())
    (root / "meta.json").write_text(json.dumps(meta | values))


def save_vae(folder: Path, **options: Any) -> Any:
    """A random AutoencoderKL that halves images, and gives latents of 4 channels."""
    torch.manual_seed(0)
    small = {"block_out_channels": (4, 8), "norm_num_groups": 2, "layers_per_block": 1, "latent_channels": 4}
    ends = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model: Any = AutoencoderKL(**{**small, **ends, "scaling_factor": 0.5, "shift_factor": 0.1, **options})
    model.save_pretrained(folder)
    return model.eval()
