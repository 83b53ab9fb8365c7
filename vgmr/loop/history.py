"""What a training noted of its epochs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """One value per epoch: losses in nats (train with all terms, validation the task loss), accuracy in 0 to 1.

    `coefficients` holds what a balancing method did, by modality: the mean over steps, for epochs in which it did.
    In regression there is no accuracy. `best_epoch` counts from 0; `seconds` is the wall time of the training, of
    epochs with several seeds in one pass this seed's share. `together` are the seeds of that pass, if it had
    several: the last bits of a training, and its dropout, depend on them.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    coefficients: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    seconds: float = 0.0
    together: list[int] = field(default_factory=list)
