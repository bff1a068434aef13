"""Model FLOPs utilisation (MFU): the share of a device's peak rate that training uses.

MFU = units a second x FLOPs per unit / (devices x peak rate), where a unit is a sample or a token (PaLM, arXiv
2204.02311, appendix B). FLOPs are those that the model's formula takes, in matrix products, convolutions and attention:
forward as counted, backward twice that. What activation checkpointing computes anew does not count, and attention
counts in full, not halved for a causal mask. For N parameters outside the embedding, L layers, width d and T tokens in
a text that comes to 6 N + 12 L d T per token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

BITS = {"16": "fp16", "bf16": "bf16", "32": "fp32"}  # trainer.precision, without -mixed and -true

# TFLOP/s of matrix products that add up in fp32, without sparsity, as NVIDIA publishes them; by the whole name, since
# parts of names mislead (an L40S is no L4). Lightning's table has the H200's and the H100 NVL's twice as high.
Rates = dict[str, float]
V100: Rates = {"fp16": 125, "fp32": 15.7}
A100: Rates = {"fp16": 312, "bf16": 312, "tf32": 156, "fp32": 19.5}
HOPPER: Rates = {"fp16": 989, "bf16": 989, "tf32": 494, "fp32": 67}
HOPPER_NVL: Rates = {"fp16": 835, "bf16": 835, "tf32": 417, "fp32": 60}
PEAK_TFLOPS: dict[str, Rates] = {
    **dict.fromkeys(("Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"), V100),
    "Tesla T4": {"fp16": 65, "fp32": 8.1},
    "NVIDIA A10": {"fp16": 125, "bf16": 125, "tf32": 62.5, "fp32": 31.2},
    **dict.fromkeys(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"), A100),
    **dict.fromkeys(("NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"), A100),
    "NVIDIA L4": {"fp16": 121, "bf16": 121, "tf32": 60, "fp32": 30.3},
    "NVIDIA L40S": {"fp16": 362, "bf16": 362, "tf32": 183, "fp32": 91.6},
    "NVIDIA H100 PCIe": {"fp16": 756, "bf16": 756, "tf32": 378, "fp32": 51.2},
    **dict.fromkeys(("NVIDIA H100 80GB HBM3", "NVIDIA H200"), HOPPER),
    **dict.fromkeys(("NVIDIA H100 NVL", "NVIDIA H200 NVL"), HOPPER_NVL),
}


def peak_rate(device: torch.device, precision: str) -> float | None:
    """FLOP/s that the device can do at most in matrix products; None for a CPU, and for what the table does not know.

    Args:
        precision: key `trainer.precision`. Products of 32 bits are TF32's if `torch.set_float32_matmul_precision`
            allows it.
    """
    if device.type != "cuda":
        return None
    kind = BITS.get(precision.partition("-")[0])
    if kind == "fp32" and torch.get_float32_matmul_precision() != "highest":
        kind = "tf32"
    tera = PEAK_TFLOPS.get(torch.cuda.get_device_name(device), {}).get(kind or "")
    return None if tera is None else tera * 1e12


@torch.no_grad()
def training_flops(model: nn.Module, inputs: Sequence[Any]) -> int:
    """FLOPs of one forward and backward pass per sample.

    Args:
        model: on the "meta" device, where nothing is computed.
        inputs: of the model, for a batch of samples; the sizes of the first one count.
    """
    one = [_like(value) if isinstance(value, Tensor) else value for value in inputs]
    with FlopCounterMode(display=False) as counter:
        model.eval()(*one)
    return 3 * counter.get_total_flops()


def _like(batch: Tensor) -> Tensor:
    """The first sample on the "meta" device, floats as the model has them there."""
    dtype = torch.get_default_dtype() if batch.is_floating_point() else batch.dtype
    return torch.empty_like(batch[:1], dtype=dtype, device="meta")
