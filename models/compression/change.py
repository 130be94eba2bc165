"""What a technique does to the weights of a captioner, for a fine-tuning to start from and to keep to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from models.captioner import Captioner
from models.compression.constraints import kept_structure
from models.compression.weights import Weight, all_weights
from models.fitting import Constraint


class Start(StrEnum):
    """Which weights fine-tuning starts from."""

    DENSE = "dense"  # those before: the constraints compress step by step
    COMPRESSED = "compressed"


class Norms(StrEnum):
    """What happens to the batch norms of an encoder that reproduces features."""

    KEEP = "keep"  # the channels are those of the dense encoder, and so are their statistics
    MEASURE = "measure"  # other channels: statistics are measured once, then kept
    LEARN = "learn"  # an encoder from noise: they learn with it, and are measured at the end


def _nothing() -> None:
    """Compress nothing."""


def _unconstrained(steps: int) -> Sequence[Constraint]:
    """No constraint."""
    return ()


@dataclass(frozen=True)
class Change:
    """`compress` does it all at once, in place; `constraints(steps)` are what training of so many steps must obey.

    `dense` is the captioner whose features a frozen encoder learns again, by default the one that is compressed.
    """

    compress: Callable[[], None] = _nothing
    weights: Sequence[Weight] = ()
    constraints: Callable[[int], Sequence[Constraint]] = _unconstrained
    start: Start = Start.COMPRESSED
    dense: Captioner | None = None
    norms: Norms = Norms.KEEP

    def carry_out(
        self, captioner: Captioner, steps: int, score: Callable[[], float]
    ) -> tuple[Sequence[Constraint], float]:
        """Compress and score. Leaves the weights that training starts from; gives its constraints and the score.

        Weights that the change is not about keep the zeros and shared values that they have.
        """
        # A schedule's errors come before anything is computed; clusters are read off once they are there.
        mine = self.constraints(steps) if self.start is Start.DENSE else ()
        changed = {id(weight.variable) for weight in self.weights}
        kept = kept_structure([weight for weight in all_weights(captioner) if id(weight.variable) not in changed])
        before = [weight.values for weight in self.weights]
        self.compress()
        found = score()
        if self.start is Start.COMPRESSED:
            return [*self.constraints(steps), *kept], found
        for weight, values in zip(self.weights, before, strict=True):
            weight.variable.assign(values)
        return [*mine, *kept], found
