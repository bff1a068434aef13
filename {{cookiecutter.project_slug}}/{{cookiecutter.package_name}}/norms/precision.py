"""Parameters that stay fp32 in a module of 16 bits."""

from collections.abc import Callable, Iterable

from torch import Tensor


def keep_fp32(tensors: Iterable[Tensor], fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Returns `fn` of `nn.Module._apply` without its casts of `tensors` and their gradients to 16 bits.

    Their values are not rounded on the way. They move between devices, and between fp32 and float64, as `fn` says.
    """
    kept = [one for tensor in tensors for one in (tensor, tensor.grad) if one is not None]

    def apply(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        lost = result.is_floating_point() and result.element_size() < 4
        return tensor.to(result.device) if lost and any(tensor is one for one in kept) else result

    return apply
