"""Memory that a forward pass leaves behind for backward, and the most that a step holds."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """What autograd keeps until the backward pass, the input included where it is kept, without the parameters.

    It is counted by storages, so what two operations save alike counts once.
    """
    sizes: dict[int, int] = {}
    own = {one.untyped_storage().data_ptr() for one in parameters}
    kept = []  # alive until all is counted, or an address would be used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor.detach())
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result
    return sum(sizes.values())


def peak_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """The most that `step` holds at once beyond what is there before; None where PyTorch does not count it."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step()
    return torch.cuda.max_memory_allocated(device) - before
