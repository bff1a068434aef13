"""What a data module of this project has besides Lightning's hooks."""

from typing import Any

import lightning as L


class DataModule(L.LightningDataModule):
    """`batch_size` is that of one device and forward pass."""

    batch_size: int

    @property
    def found(self) -> dict[str, Any]:
        """Keys of section `data` that the data themselves decide, such as the number of classes."""
        return {}

    def check_trainable(self, batches: int = 1) -> None:
        """Raises UsageError if the training data do not fill one optimiser step of so many batches."""
