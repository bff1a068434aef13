"""Images through an autoencoder into shards of latents, split by split; what was interrupted goes on with the rest."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ... import cli, utils
from ...data.images import ImageSet, Split
from ...data.latents_shards import DTYPE, gigabytes
from ...data.latents_vae import VAE
from ...data.transforms import image_transforms
from ...errors import UsageError, own_words, require

GOES_ON = "the same command goes on"


class Job:
    """Encodes the splits into shards (see latents_shards.py), those that are not there.

    Args:
        out: the folder, as the user wrote it.
        shard: images in a file.
    """

    def __init__(
        self, vae: VAE, splits: Mapping[str, Split], out: str, img_size: int, shard: int, batch_size: int, workers: int
    ) -> None:
        self.vae, self.splits, self.out, self.folder = vae, splits, out, Path(out).expanduser()
        side = img_size // vae.factor
        self.shape = (vae.channels, side, side)
        self.shard, self.batch_size, self.workers = shard, batch_size, workers
        _, self.transform = image_transforms(img_size, 3, (0.5,), (0.5,), "bicubic", 1.0, {})  # RGB in -1..1

    def files(self, name: str) -> dict[Path, range]:
        """The shards of a split, and which of its images are in them."""
        size = len(self.splits[name].indices)
        ranges = [range(start, min(start + self.shard, size)) for start in range(0, size, self.shard)]
        return {self.folder / f"{name}-{number:05}.npy": images for number, images in enumerate(ranges)}

    def labels(self, name: str) -> Path:
        return self.folder / f"{name}-labels.npy"

    def run(self) -> None:
        """Raises UsageError: an image cannot be read, or a shard not be made or written."""
        counts = {file: len(images) for name in self.splits for file, images in self.files(name).items()}
        done = {file: count for file, count in counts.items() if file.exists()}
        self._check_space(sum(counts.values()) - sum(done.values()))
        with cli.progress("images") as progress:
            bar = progress.add_task("", total=sum(counts.values()), completed=sum(done.values()))
            for name, split in self.splits.items():
                self._write(self.labels(name), split.source.targets[split.indices].astype(np.int64))
                missing = {file: images for file, images in self.files(name).items() if file not in done}
                batches = self._encoded(split, list(missing.values()))
                for file, images in missing.items():
                    array = np.empty((len(images), 2, 2, *self.shape), DTYPE)
                    for start in range(0, len(array), self.batch_size):
                        part = next(batches)
                        array[start : start + len(part)] = part.numpy()
                        progress.advance(bar, len(part))
                    finite = bool(np.isfinite(array).all())
                    require(finite, f"vae={self.vae.source}: it gives latents beyond the numbers that 16 bits can hold")
                    self._write(file, array)

    def _encoded(self, split: Split, ranges: list[range]) -> Iterator[Tensor]:
        """Batches (B, 2, 2, C, h, w) in fp16 of the images in each range; none goes on from one range to the next."""
        batches = [list(part[i : i + self.batch_size]) for part in ranges for i in range(0, len(part), self.batch_size)]
        dataset = ImageSet(split, "RGB", self.transform)
        loader = iter(DataLoader(dataset, batch_sampler=batches, num_workers=self.workers))
        for batch in batches:
            try:
                images, _ = next(loader)
                both = torch.stack((self.vae.encode(images), self.vae.encode(images.flip(-1))), dim=1)
                yield both.half().cpu()
            except torch.OutOfMemoryError as error:
                problem = f"batch_size={self.batch_size}: {len(batch)} images take more memory than the device has"
                raise UsageError(f"{problem}; {GOES_ON} with fewer") from error
            except UsageError as error:
                raise UsageError(f"{own_words(error)}; once it is replaced {GOES_ON}") from error

    def _write(self, file: Path, array: np.ndarray) -> None:
        def write(path: Path) -> None:
            with open(path, "wb") as opened:  # to a name, numpy would add .npy
                np.save(opened, array)

        try:
            utils.replace(file, write)
        except OSError as error:
            raise UsageError(f"out={self.out} cannot be written: {error.strerror}; {GOES_ON}") from error

    def _check_space(self, images: int) -> None:
        needed, free = gigabytes(images, self.shape), shutil.disk_usage(self.folder).free / 1e9
        require(needed <= free, f"out={self.out}: {needed:,.1f} GB are needed there, and {free:,.1f} GB are free")
