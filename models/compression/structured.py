"""Structured pruning: `slim50` keeps at most half of the multiply-adds of encoder and decoder step.

The result is an ordinary smaller captioner: fewer bytes in every file and fewer milliseconds on every runtime.
"""

from dataclasses import replace

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change, Norms
from models.compression.decoder_axes import slim_decoder, units_for_share
from models.compression.finetuning import FineTuning, fine_tune
from models.compression.slimming import slim_encoder


def check_slim(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for layers that are not understood or a share that can't be reached."""
    _slim(captioner, ask, scope)


def slim(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Remove filters and units down to `amount` per cent of the multiply-adds, and fine-tune what is left.

    An encoder that was never trained here learns the dense one's features again, so that no caption is needed.
    """
    smaller = _slim(captioner, ask, scope)
    tuning = FineTuning.of(ask, share=0.5, at_least=6, rate=1.0)
    return fine_tune(smaller, ask, scope, context, tuning, Change(dense=captioner, norms=Norms.MEASURE))


def _slim(captioner: Captioner, ask: Ask, scope: Scope) -> Captioner:
    share = (ask.amount or 100) / 100
    if scope is not Scope.DECODER:
        captioner = replace(captioner, encoder=slim_encoder(captioner.encoder, share=share))
    if scope is not Scope.ENCODER:
        units = units_for_share(captioner.config, share)
        decoder, config = slim_decoder(captioner.decoder, captioner.config, units=units)
        captioner = replace(captioner, decoder=decoder, config=config)
    return captioner
