"""Checkpoints in shards, which FSDP writes: directories, read here in one process and without a process group.

`meta.pt` holds what is no tensor, and the other files what torch.distributed.checkpoint makes of the tensors.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

WEIGHTS = "state_dict."
PATHS = ("PosixPath", "WindowsPath")
HARMLESS = {  # of the modules that an index names, by what it needs of them
    "pathlib": PATHS,
    "pathlib._local": PATHS,
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        *("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
        *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    ),
}


def read_shards(folder: Path, device: str) -> dict[str, Any]:
    """The checkpoint as one file would hold it, without the optimiser's states; tensors whole, on `device`.

    Raises:
        OSError, UnpicklingError, ...: files are missing or damaged.
    """
    checkpoint = torch.load(folder / "meta.pt", weights_only=True, map_location=device)
    index = _index(folder)
    for shard in {place.relative_path for place in index.storage_data.values()}:
        (folder / shard).stat()
    weights = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype, device=device)
        for key, entry in index.state_dict_metadata.items()
        if key.startswith(WEIGHTS) and isinstance(entry, TensorStorageMetadata)
    }
    if device != "meta":
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there is one process
                dcp.load(weights, checkpoint_id=folder, no_dist=True)
        except CheckpointException as error:  # not an Exception
            raise OSError(f"{folder}: {error}") from error
    return checkpoint | {"state_dict": {key.removeprefix(WEIGHTS): tensor for key, tensor in weights.items()}}


def _index(folder: Path) -> Metadata:
    """What is where; torch unpickles it as it stands, so it is looked through first."""
    with (folder / ".metadata").open("rb") as file:
        index = _Unpickler(file).load()
    if not isinstance(index, Metadata):
        raise pickle.UnpicklingError(f"{folder}: no checkpoint")
    return index


class _Unpickler(pickle.Unpickler):
    """Makes what describes tensors and nothing else, as torch.load does under `weights_only`."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dtype or name in HARMLESS.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} in a checkpoint")
