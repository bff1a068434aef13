"""DyT and Derf fused for NVIDIA GPUs: the operator in op.py, the Triton kernels behind it in triton_pointwise.py.

Triton is imported when the operator first runs.
"""

from .op import check, fused, obstacle

__all__ = ["check", "fused", "obstacle"]
