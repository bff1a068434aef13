"""Warnings about norms, early enough to act on them."""

from collections.abc import Mapping
from statistics import median

SATURATED = 0.9  # share of saturated inputs above which a layer learns next to nothing from its input
DEAD = 0.05  # |alpha| below this share of its first value: the layer passes on little but its bias
WEAK = 1e-3  # gradient of alpha below this share of the median layer's ...
PATIENCE = 5  # ... in so many observations in a row


class NormWarnings:
    """Returns a warning of each kind once in a run, about the layer that is worst.

    - saturated: on more than SATURATED of its inputs.
    - dead: alpha is below DEAD of its first value, or its sign has changed, so that it went through 0.
    - weak: alpha's gradient is tiny compared with the other layers', PATIENCE times in a row.
    """

    def __init__(self) -> None:
        self.given: list[str] = []  # kinds
        self.first: dict[str, float] = {}  # alpha by layer where the run began
        self.weak: dict[str, int] = {}  # observations in a row with a tiny gradient, by layer

    def of_values(self, step: int, values: Mapping[str, float]) -> list[str]:
        """Returns warnings about the values by tag that the monitor has logged after `step` steps."""
        alphas = of_layers("alpha", values)
        self.first = self.first or alphas
        ratios = {layer: alpha / self.first[layer] for layer, alpha in alphas.items() if self.first.get(layer)}
        dead = {layer: ratio for layer, ratio in ratios.items() if ratio < DEAD}
        full = {layer: -share for layer, share in of_layers("saturated", values).items() if share > SATURATED}
        lines = []
        if worst := self._worst("saturated", full):
            later = "a smaller optim.lr or norm.alpha0, or a longer schedule.warmup_share"
            lines.append(
                f"{worst} saturates on {-full[worst]:.0%} of its inputs{_others(full)} and passes little gradient on; "
                f"try {later if step else 'a smaller norm.alpha0 or another model.init'}"
            )
        if worst := self._worst("dead", dead):
            change = "changed its sign" if dead[worst] < 0 else "died"
            lines.append(
                f"alpha of {worst} has {change}: {alphas[worst]:.2g}, from {self.first[worst]:.2g}{_others(dead)}; "
                "try a smaller optim.alpha_lr_factor or optim.lr"
            )
        return lines

    def of_gradients(self, values: Mapping[str, float]) -> list[str]:
        """Returns warnings about the gradients of alpha by tag."""
        sizes = of_layers("alpha_grad", values)
        usual = median(sizes.values()) if sizes else 0.0
        self.weak = {layer: self.weak.get(layer, 0) + 1 for layer, size in sizes.items() if size < WEAK * usual}
        lasting = {layer: sizes[layer] for layer, times in self.weak.items() if times >= PATIENCE}
        if not (worst := self._worst("weak", lasting)):
            return []
        return [
            f"alpha of {worst} has had almost no gradient {PATIENCE} times in a row: {lasting[worst]:.2g}, and the "
            f"median layer {usual:.2g}{_others(lasting)}; look at its saturated/ and input_std/, and try another "
            "norm.alpha0 or model.init"
        ]

    def _worst(self, kind: str, layers: Mapping[str, float]) -> str | None:
        """Returns the layer with the least value, the first time that there is one."""
        if not layers or kind in self.given:
            return None
        self.given.append(kind)
        return min(layers, key=lambda layer: layers[layer])


def of_layers(quantity: str, values: Mapping[str, float]) -> dict[str, float]:
    """Returns the values of one quantity by layer."""
    return {tag.partition("/")[2]: value for tag, value in values.items() if tag.startswith(f"{quantity}/")}


def _others(layers: Mapping[str, float]) -> str:
    return f" (and {len(layers) - 1} more)" if len(layers) > 1 else ""
