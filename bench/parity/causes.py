"""Why a caption left the reference's: rules over what a replay showed, the first that fits. docs/parity.md tells them.

A tie is when the reference itself hardly preferred its own word: by no more than the arithmetic's measured noise, and
never by more than 5 % in probability. What is no tie is found by putting the reference's tensors in place of the row's
own, one stage after the other, until it says the reference's word again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from bench.parity.evidence import Evidence, Examined
from bench.parity.record import Cause, Choice, Divergence
from models.decoding import Search
from models.vocabulary import END, Vocabulary

# Of the 12 000 words of 1000 captions an error of many small sources lets one leave four times its root mean square.
NOISE_FACTOR = 4.0
# A word 5 % likelier than another is no choice that a reader could tell; a larger gap needs another cause than a tie.
TIE_LIMIT = math.log(1.05)


def noise(margin_rms: float | None) -> float | None:
    """The margin (nats) below which a choice is a tie, from the measured error of margins; None where unknown."""
    return None if margin_rms is None else min(NOISE_FACTOR * margin_rms, TIE_LIMIT)


@dataclass(frozen=True)
class Rule:
    """A cause, when it applies (evidence, noise), and what the reader is told."""

    cause: Cause
    applies: Callable[[Evidence, float | None], bool]
    reason: Callable[[Evidence, str], str] = lambda evidence, contract: ""


def _end_moved(evidence: Evidence, _: float | None) -> bool:
    return END in evidence.moved and len(evidence.moved) <= 2


def _words_moved(evidence: Evidence, _: float | None) -> bool:
    return bool(evidence.moved)


def _recovers_from_pixels(evidence: Evidence, _: float | None) -> bool:
    return not evidence.pixels_equal and _recovers(evidence, evidence.token_from_pixels)


def _state_lost(evidence: Evidence, _: float | None) -> bool:
    return evidence.state_lost


def _is_tie(evidence: Evidence, limit: float | None) -> bool:
    if evidence.margin is None or limit is None:
        return False
    # A beam compares totals of several steps, whose errors add up as those of independent sources do.
    steps = evidence.step + 1 if evidence.search is Search.BEAM3 else 1
    return abs(evidence.margin) <= limit * math.sqrt(steps)


def _one_ends(evidence: Evidence, _: float | None) -> bool:
    return (evidence.token in (END, None)) != (evidence.reference_token in (END, None))


def _recovers_from_features(evidence: Evidence, _: float | None) -> bool:
    return _recovers(evidence, evidence.token_from_features)


def _recovers_from_state(evidence: Evidence, _: float | None) -> bool:
    return _recovers(evidence, evidence.token_from_state)


def _is_the_decoder(evidence: Evidence, _: float | None) -> bool:
    return evidence.replayed_token is not None and evidence.replayed_token == evidence.token


def _recovers(evidence: Evidence, token: int | None) -> bool:
    return token is not None and token == evidence.reference_token


RULES = (
    Rule(Cause.END_OF_SENTENCE, _end_moved, lambda e, c: "the end's logit stands in another word's place"),
    Rule(Cause.VOCABULARY, _words_moved, lambda e, c: f"the logits of {len(e.moved)} words stand in other places"),
    Rule(Cause.PREPROCESSING, _recovers_from_pixels, lambda e, c: c),
    Rule(Cause.MASKING, _state_lost, lambda e, c: "the state is zero or stands still"),
    Rule(Cause.TIE_FLIP, _is_tie),
    Rule(Cause.END_OF_SENTENCE, _one_ends),
    Rule(Cause.ENCODER, _recovers_from_features),
    Rule(Cause.DRIFT, _recovers_from_state),
    Rule(Cause.DECODER, _is_the_decoder),
)


def judge(evidence: Evidence, margin_rms: float | None, *, contract: str = "") -> tuple[Cause, str]:
    """The cause, and what names it closer. `contract`: what the image's preparation did differently."""
    limit = noise(margin_rms)
    for rule in RULES:
        if rule.applies(evidence, limit):
            return rule.cause, rule.reason(evidence, contract)
    if evidence.token_from_features is None:
        return Cause.UNKNOWN, "its graph shows neither features nor state that could be exchanged"
    return Cause.UNKNOWN, "a replay did not say its word again"


def judge_divergence(
    evidence: Evidence, examined: Examined, vocabulary: Vocabulary, said: tuple[str, str]
) -> Divergence:
    """The record of one image. `said`: the reference's caption and the row's."""
    cause, reason = judge(evidence, examined.margin_rms, contract=examined.contracts.get(evidence.image, ""))
    return Divergence(
        evidence.image,
        *said,
        first_step=evidence.step,
        cause=cause,
        reason=reason,
        margin=evidence.margin,
        noise=noise(examined.margin_rms),
        reference_choices=_choices(evidence.reference_choices, vocabulary),
        choices=_choices(evidence.choices, vocabulary),
        errors=evidence.errors,
        word_from_features=_word(evidence.token_from_features, vocabulary),
        word_from_state=_word(evidence.token_from_state, vocabulary),
    )


def _choices(choices: tuple[tuple[int, float], ...], vocabulary: Vocabulary) -> tuple[Choice, ...]:
    return tuple(Choice(vocabulary.words[token], log_probability) for token, log_probability in choices)


def _word(token: int | None, vocabulary: Vocabulary) -> str | None:
    return None if token is None else vocabulary.words[token]
