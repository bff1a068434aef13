"""Alphas that start from the measured scale of their inputs, as in data-dependent initialisation (LSUV)."""

import torch
from torch import Tensor, nn

from .maps import channels_last
from .pointwise import PointwiseNorm
from .transfer import Inputs, call


@torch.no_grad()
def alpha_from_data_(model: nn.Module, inputs: Inputs) -> dict[str, float]:
    """Divides every alpha by the rms of its norm's input on a batch, in place and in the order of execution.

    An alpha0 is then the rms of alpha * x at the start, whatever the scale of x. A norm's input comes from norms that
    are set already. One alpha for each channel takes the rms of its channel. (Mishkin and Matas 2015, arXiv 1511.06422,
    do so for weights.)

    Args:
        inputs: arguments of `model`, a tuple or by keyword.

    Returns:
        The mean alpha of each norm, by name.

    Raises:
        ValueError: there is no alpha, or an input is 0 or not finite.
    """
    found: dict[str, float] = {}
    names = {module: name for name, module in model.named_modules()}

    def start(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if names[norm] in found:
            return
        x, alpha = channels_last(norm, args[0]).float(), norm.get_parameter("alpha")
        square = x.square().flatten(0, -2).mean(0)
        rms = (square if len(alpha) > 1 else square.mean()).sqrt()
        if not (rms.isfinite().all() and rms.gt(0).all()):
            raise ValueError(f"the input of {names[norm]} is 0 or not finite, so that alpha cannot start from it")
        found[names[norm]] = alpha.div_(rms).mean().item()

    norms = [module for module in names if isinstance(module, PointwiseNorm) and "alpha" in module.scalars]
    if not norms:
        raise ValueError("this model has no norm with an alpha")
    hooks = [norm.register_forward_pre_hook(start) for norm in norms]
    try:
        call(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
