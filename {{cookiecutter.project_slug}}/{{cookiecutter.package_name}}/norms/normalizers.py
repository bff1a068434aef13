"""Norms that take statistics of their input. The output has the input's dtype, under autocast too."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .maps import BatchNorm2d
from .precision import keep_fp32
from .registry import register

RMS_SCALES = ("weight", "one_plus_weight", "none")


@register("ln")
class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last dimension (Ba et al. 2016, arXiv 1607.06450): torch's."""

    normalizes = True

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(dim, eps, affine, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)  # on CUDA, autocast makes it fp32


@register("rmsnorm")
class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467): torch's.

    It has by definition no bias, whatever `bias` says.

    Args:
        scale: "weight", which starts at 1; "one_plus_weight", where the weight starts at 0; or "none".
    """

    normalizes = True

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float = 1e-6,
        scale: str = "weight",
    ) -> None:
        if scale not in RMS_SCALES:
            raise ValueError(f"scale is {' or '.join(RMS_SCALES)}, not {scale}")
        self.scale = scale
        super().__init__(dim, eps, affine and scale != "none", device, dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.weight is not None and self.scale == "one_plus_weight":
            nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x.dtype)  # torch fuses it when the dtypes agree
        if weight is not None and self.scale == "one_plus_weight":
            weight = weight + 1
        return F.rms_norm(x, self.normalized_shape, weight, self.eps).to(x.dtype)


@register("bn")
class TokenBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) of (..., dim), with statistics over all but dim.

    The `nn.BatchNorm1d` is contained, for `nn.SyncBatchNorm.convert_sync_batchnorm` to find and replace. It stays
    fp32 when the module is cast to 16 bits, in which running statistics would stall, and takes 16-bit input as it is.

    Args:
        momentum: share of the newest batch in the running statistics.
    """

    normalizes = True
    over_maps = BatchNorm2d

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        self.bn = nn.BatchNorm1d(dim, eps, momentum, affine, device=device, dtype=dtype)
        if not bias:
            self.bn.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        self.bn.reset_running_stats()
        if self.bn.weight is not None:
            nn.init.ones_(self.bn.weight)
        if self.bn.bias is not None:
            nn.init.zeros_(self.bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.reshape(-1, x.shape[-1])).view(x.shape).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keep_fp32([*self.parameters(), *self.buffers()], fn), recurse)
