"""What a decoder remembers of the tokens that it has read."""

from torch import Tensor


class KVCache:
    """Keys and values of every layer, in memory for `room` tokens, which the first of them allocate.

    Attributes:
        length: tokens held; the net counts them on once all of its layers have read.
    """

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in keys and values (B, G, T, E) of the next tokens; returns those of all tokens, (B, G, S, E)."""
        end = self.length + keys.shape[2]
        if layer not in self._held:
            shape = (*keys.shape[:2], self.room, keys.shape[3])
            self._held[layer] = keys.new_empty(shape), values.new_empty(shape)
        all_keys, all_values = self._held[layer]
        all_keys[:, :, self.length : end] = keys
        all_values[:, :, self.length : end] = values
        return all_keys[:, :, :end], all_values[:, :, :end]
