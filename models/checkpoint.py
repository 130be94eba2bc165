"""The state of a training between epochs, in one file that is replaced whole."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.files import write_atomic

Weights = list[NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands: finished epochs, their history, and the weights that were best."""

    epoch: int
    history: tuple[dict[str, float], ...]
    best_cider: float
    best_epoch: int
    best_weights: Weights

    @classmethod
    def start(cls, model: Any) -> "Checkpoint":
        """Before the first epoch."""
        return cls(0, (), -1.0, 0, model.get_weights())

    def is_stale(self, patience: int) -> bool:
        """Whether `patience` epochs have passed without a better validation CIDEr."""
        return self.epoch - self.best_epoch >= patience

    def after_epoch(self, model: Any, *, loss: float, cider: float, counts: bool = True) -> "Checkpoint":
        """The checkpoint one epoch on. An epoch that does not count (yet) can't be the best."""
        epoch = self.epoch + 1
        history = (*self.history, {"loss": loss, "validation_cider": cider})
        if counts and cider > self.best_cider:
            return Checkpoint(epoch, history, cider, epoch, model.get_weights())
        return replace(self, epoch=epoch, history=history)


def save_checkpoint(path: Path, checkpoint: Checkpoint, model: Any, optimizer: Any) -> None:
    """Write everything needed to go on from here."""
    head = {
        "epoch": checkpoint.epoch,
        "history": checkpoint.history,
        "best_cider": checkpoint.best_cider,
        "best_epoch": checkpoint.best_epoch,
    }
    arrays = {"head": np.array(json.dumps(head))}
    for group, weights in _groups(checkpoint, model, optimizer).items():
        arrays |= {f"{group}_{index:04d}": weight for index, weight in enumerate(weights)}
    write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_checkpoint(path: Path, model: Any, optimizer: Any) -> Checkpoint | None:
    """Restore model and optimizer in place; None where there is nothing to resume."""
    if not path.is_file():
        return None
    with np.load(path) as file:
        head = json.loads(str(file["head"]))
        groups = {
            group: [file[name] for name in sorted(file.files) if name.startswith(f"{group}_")]
            for group in ("model", "optimizer", "best")
        }
    model.set_weights(groups["model"])
    for variable, value in zip(optimizer.variables, groups["optimizer"], strict=True):
        variable.assign(value)
    return Checkpoint(head["epoch"], tuple(head["history"]), head["best_cider"], head["best_epoch"], groups["best"])


def _groups(checkpoint: Checkpoint, model: Any, optimizer: Any) -> dict[str, Weights]:
    return {
        "model": model.get_weights(),
        "optimizer": [variable.numpy() for variable in optimizer.variables],
        "best": checkpoint.best_weights,
    }
