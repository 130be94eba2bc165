"""Fewer words: `vocabulary50` keeps the more frequent half; the table and the last layer shrink with it.

References are not changed, so that quality pays honestly for words that can't be said any more. Tan et al. 2019,
"COMIC" (arXiv 1903.01072), shrink vocabularies further by spelling words with radix tokens.
"""

from dataclasses import replace

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change
from models.compression.finetuning import FineTuning, fine_tune
from models.compression.rebuilding import rebuild_decoder
from models.errors import ConfigError
from models.vocabulary import SPECIAL_WORDS, Vocabulary

MINIMUM_WORDS = 8


def check_vocabulary(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError when hardly a word would be left."""
    if _kept(captioner, ask) < MINIMUM_WORDS + len(SPECIAL_WORDS):
        raise ConfigError(f"'{ask}' would keep fewer than {MINIMUM_WORDS} of {len(captioner.vocabulary)} words.")


def reduce_vocabulary(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Keep `amount` per cent of the words, the most frequent ones, and fine-tune the decoder."""
    kept = _kept(captioner, ask)
    layers = captioner.decoder.sequence
    words = layers.get_layer("words").get_weights()
    changed = {"embedding": [layers.get_layer("embedding").get_weights()[0][:kept]]}
    changed["words"] = [weight[..., :kept] for weight in words]
    smaller = rebuild_decoder(captioner, replace(captioner.config, vocabulary_size=kept), changed)
    # A vocabulary is sorted by frequency, see Vocabulary.build.
    smaller = replace(smaller, vocabulary=Vocabulary(captioner.vocabulary.words[:kept]))
    tuning = FineTuning.of(ask, share=0.2, at_least=2, rate=0.2)
    outcome = fine_tune(smaller, ask, scope, context, tuning, Change())
    return replace(outcome, notes={"words_before": len(captioner.vocabulary), "words": kept})


def _kept(captioner: Captioner, ask: Ask) -> int:
    """Words that stay, the markers included."""
    return len(SPECIAL_WORDS) + round((len(captioner.vocabulary) - len(SPECIAL_WORDS)) * (ask.amount or 0) / 100)
