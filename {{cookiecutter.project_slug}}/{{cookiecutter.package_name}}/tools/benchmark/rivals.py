"""Other libraries' norms, to stand beside ours: those that are installed and that this machine can run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

Build = Callable[[int], nn.Module]  # of a width


def _of(module: str, name: str, **options: Any) -> Build:
    """Imports it when it is asked for."""
    return lambda dim: getattr(import_module(module), name)(dim, **options)


@dataclass(frozen=True)
class Rival:
    """Norms of a package, by our names.

    Args:
        capability: of the least CUDA device that they run on; None for any device.
    """

    package: str
    norms: Mapping[str, Build]
    capability: tuple[int, int] | None = None

    def missing(self, device: torch.device) -> str:
        """Why it cannot take part, in one line; empty if it can."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return f"not installed (pip install {self.package})"
        if self.capability is not None:
            wanted = "an NVIDIA GPU of capability {}.{} or more".format(*self.capability)
            if device.type != "cuda":
                return f"wants {wanted}, and this is {device}"
            if (this := torch.cuda.get_device_capability(device)) < self.capability:
                return "wants {}, and this has {}.{}".format(wanted, *this)
        return ""


RIVALS = {
    "torch": Rival("torch", {"ln": nn.LayerNorm, "rmsnorm": nn.RMSNorm}),
    "liger": Rival(
        "liger-kernel",
        {
            "dyt": _of("liger_kernel.transformers", "LigerDyT"),
            "ln": _of("liger_kernel.transformers", "LigerLayerNorm", bias=True),
            # in place it would overwrite dy, which others need
            "rmsnorm": _of("liger_kernel.transformers", "LigerRMSNorm", in_place=False),
        },
        capability=(7, 0),
    ),
}
