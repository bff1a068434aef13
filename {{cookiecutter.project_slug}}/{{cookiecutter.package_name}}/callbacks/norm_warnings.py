"""What a person should be told about a norm while there is time to act."""

from collections.abc import Mapping
from statistics import median
from typing import Any

FULL = 0.9  # share of saturated inputs from which on a layer learns next to nothing from its input
FALLEN = 0.05  # |alpha| below this share of where it began: the layer passes on next to nothing but its bias
STILL = 1e-3  # gradient of alpha below this share of the median layer's ...
LOOKS = 5  # ... so many looks in a row


class NormWarnings:
    """One line for each kind of trouble in a run, about the layer that is worst.

    - saturated: on more than FULL of its inputs.
    - fallen: alpha is below FALLEN of its first value, or has changed its sign, so that it went through 0.
    - still: the gradient of alpha is next to none beside those of the other layers, for LOOKS looks.
    """

    def __init__(self) -> None:
        self.told: list[str] = []  # kinds; a run says each of them once, however often it is resumed
        self.still: dict[str, int] = {}  # looks in a row without a gradient, by layer

    def state_dict(self) -> dict[str, Any]:
        return {"told": list(self.told), "still": dict(self.still)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.told, self.still = list(state_dict["told"]), dict(state_dict["still"])

    def of_readings(self, step: int, values: Mapping[str, float], first: Mapping[str, float]) -> list[str]:
        """Lines on these readings by tag, after `step` steps; `first` has every alpha where the run began, by tag."""
        full = {layer: share for layer, share in _of("saturated", values).items() if share > FULL}
        begun, lines = _of("alpha", first), []
        now = {layer: alpha for layer, alpha in _of("alpha", values).items() if begun.get(layer)}
        fallen = {layer: alpha / begun[layer] for layer, alpha in now.items() if alpha / begun[layer] < FALLEN}
        if full and self._news("saturated"):
            worst = max(full, key=lambda layer: full[layer])
            grown = "a smaller optim.lr or norm.alpha0, or a longer schedule.warmup_share"  # by what has been learned
            lines.append(
                f"{worst} saturates on {full[worst]:.0%} of its inputs{_others(full)} and passes little gradient on; "
                f"try {grown if step else 'a smaller norm.alpha0 or another model.init'}"
            )
        if fallen and self._news("fallen"):
            worst = min(fallen, key=lambda layer: fallen[layer])
            change = "changed its sign" if fallen[worst] < 0 else "died"
            lines.append(
                f"alpha of {worst} has {change}: {now[worst]:.2g}, from {begun[worst]:.2g}{_others(fallen)}; "
                "try a smaller optim.alpha_lr_factor or optim.lr"
            )
        return lines

    def of_gradients(self, values: Mapping[str, float]) -> list[str]:
        """Lines on these gradients of alphas by tag."""
        found = _of("alpha_grad", values)
        usual = median(found.values()) if found else 0.0
        self.still = {
            layer: self.still.get(layer, 0) + 1 for layer, gradient in found.items() if gradient < STILL * usual
        }
        lasting = {layer: found[layer] for layer, looks in self.still.items() if looks >= LOOKS}
        if not lasting or not self._news("still"):
            return []
        worst = min(lasting, key=lambda layer: lasting[layer])
        return [
            f"alpha of {worst} has had next to no gradient for {LOOKS} looks: {lasting[worst]:.2g}, and the median "
            f"layer {usual:.2g}{_others(lasting)}; look at its saturated/ and input_std/, and try another norm.alpha0 "
            "or model.init"
        ]

    def _news(self, kind: str) -> bool:
        new = kind not in self.told
        self.told += [kind] * new
        return new


def _of(quantity: str, values: Mapping[str, float]) -> dict[str, float]:
    return {tag.partition("/")[2]: value for tag, value in values.items() if tag.partition("/")[0] == quantity}


def _others(layers: Mapping[str, float]) -> str:
    return f" (and so {len(layers) - 1} more)" if len(layers) > 1 else ""
