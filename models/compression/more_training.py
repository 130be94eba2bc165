"""More training and nothing else: `train_on`, the control for every technique that fine-tunes.

A compressed captioner that was fine-tuned has also been trained longer; what it gains over the dense one may be
that alone.
"""

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change
from models.compression.finetuning import FineTuning, fine_tune, require_captions


def check_train_on(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for a frozen encoder."""
    require_captions(ask, scope, context)


def train_on(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Train as long and at the rate that `prune` does, without pruning."""
    tuning = FineTuning.of(ask, share=0.5, at_least=6, rate=0.5)
    return fine_tune(captioner, ask, scope, context, tuning, Change())
