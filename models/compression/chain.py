"""Parses what is asked for: `prune80`, `prune80+cluster32+qat`, or by half: `prune50/prune80+qat`.

`+` chains techniques; `/` parts encoder and decoder; `none` is no technique. After `prune50/prune80` the decoder has
learned to live with the compressed encoder; in `prune50//prune80` each half is compressed beside a dense other half.
Parsed once, checked whole, before anything is trained.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from models.compression.base import ORDER_REASONS, Ask, Scope, Technique
from models.errors import ConfigError, unknown_name
from models.spec import CaptionerSpec, EncoderTraining

NONE = "none"
APART = "//"
_HALVES = re.compile("//?")
_ASK = re.compile(r"([a-z][a-z_]*?)(\d+)?(?:\(([^()]*)\))?")


@dataclass(frozen=True)
class ScopedAsk:
    """A technique and what it works on."""

    scope: Scope
    ask: Ask

    def __str__(self) -> str:
        """For a reader and for hashing."""
        return f"{self.scope}:{self.ask}"


def parse_technique(text: str, techniques: Mapping[str, Technique]) -> tuple[ScopedAsk, ...]:
    """The asks of a chain in order. Raises ConfigError for what does not parse or can't work."""
    halves = _HALVES.split(text.replace(" ", ""))
    if len(halves) > 2:
        raise ConfigError(f"a technique is 'CHAIN', 'ENCODER/DECODER' or 'ENCODER//DECODER'; received '{text}'.")
    scopes = (Scope.CAPTIONER,) if len(halves) == 1 else (Scope.ENCODER, Scope.DECODER)
    asks = []
    for scope, half in zip(scopes, halves, strict=True):
        chain = _parse_chain(half, techniques)
        _check_order(chain, techniques)
        asks += [ScopedAsk(_scope(ask, scope, techniques), ask) for ask in chain]
    return tuple(asks)


def canonical_technique(text: str) -> str:
    """The one way to write a chain: checked, without spaces, `none/none` as `none`, `//` only where both halves change.

    Raises ConfigError.
    """
    from models.compression.registry import TECHNIQUES

    parse_technique(text, TECHNIQUES)
    canonical = text.replace(" ", "")
    if NONE in (halves := _HALVES.split(canonical)):
        canonical = "/".join(halves)
    return NONE if canonical == f"{NONE}/{NONE}" else canonical


def apart_halves(text: str) -> tuple[str, str] | None:
    """The chains that lead to the two halves of a captioner compressed apart, `prune50//prune80`; else None."""
    encoder, apart, decoder = canonical_technique(text).partition(APART)
    return (f"{encoder}/{NONE}", f"{NONE}/{decoder}") if apart else None


def learned_technique(text: str) -> str:
    """The part of a chain that changes what a captioner says: without techniques that are meant to keep it."""
    from models.compression.registry import TECHNIQUES

    apart = APART if APART in text else "/"
    halves = [_parse_chain(half, TECHNIQUES) for half in _HALVES.split(text.replace(" ", ""))]
    learned = [[str(ask) for ask in chain if TECHNIQUES[ask.technique].learns] for chain in halves]
    return canonical_technique(apart.join("+".join(chain) or NONE for chain in learned))


def technique_halves(text: str) -> tuple[str, str]:
    """(the encoder's chain, the decoder's chain)."""
    first, *second = _HALVES.split(text)
    return first, second[0] if second else first


def planned(
    asks: tuple[ScopedAsk, ...], spec: CaptionerSpec, techniques: Mapping[str, Technique]
) -> tuple[ScopedAsk, ...]:
    """The order of work for a captioner: a frozen encoder is compressed first, then its decoder on its features.

    A captioner whose encoder learned with the decoder is compressed whole.
    """
    if spec.encoder_training is EncoderTraining.TRAINED:
        return asks
    halves = {Scope.ENCODER, Scope.DECODER}
    whole = [s for s in asks if s.scope is Scope.CAPTIONER and halves <= set(techniques[s.ask.technique].scopes)]
    if not whole:
        return asks
    kept = [s for s in asks if s not in whole]
    first = [s for s in kept if s.scope is Scope.CAPTIONER]
    encoder = [ScopedAsk(Scope.ENCODER, s.ask) for s in whole]
    decoder = [ScopedAsk(Scope.DECODER, s.ask) if s in whole else s for s in asks if s not in first]
    return (*first, *encoder, *decoder)


def _parse_chain(text: str, techniques: Mapping[str, Technique]) -> list[Ask]:
    if text == NONE:
        return []
    return [_parse_ask(part, techniques) for part in text.split("+")]


def _parse_ask(text: str, techniques: Mapping[str, Technique]) -> Ask:
    found = _ASK.fullmatch(text)
    if found is None:
        raise ConfigError(f"can't read technique '{text}': write NAME, NAME80 or NAME80(option=value,option=value).")
    name, digits, listed = found.groups()
    if name not in techniques:
        raise unknown_name("technique", name, techniques)
    technique = techniques[name]
    amount = int(digits) if digits else None
    _check_amount(text, amount, technique)
    return Ask(name, amount, _parse_options(text, listed or "", technique))


def _check_amount(text: str, amount: int | None, technique: Technique) -> None:
    if not technique.amounts:
        if amount is not None:
            raise ConfigError(f"'{text}': this technique takes no number.")
    elif amount is None:
        raise ConfigError(f"'{text}' needs a number, {_amounts(technique)}, e.g. '{text}{technique.amounts[-1]}'.")
    elif amount not in technique.amounts:
        raise ConfigError(f"'{text}': the number must be {_amounts(technique)}; received {amount}.")


def _amounts(technique: Technique) -> str:
    amounts = technique.amounts
    if len(amounts) > 8:
        return f"from {amounts[0]} to {amounts[-1]} (per cent)"
    return " or ".join(map(str, amounts))


def _parse_options(text: str, listed: str, technique: Technique) -> tuple[tuple[str, str], ...]:
    options = {}
    for pair in filter(None, listed.split(",")):
        key, equals, value = pair.partition("=")
        if key not in technique.options:
            raise unknown_name(f"option of '{text}'", key, technique.options)
        if not equals or not value:
            raise ConfigError(f"'{text}': write {key}=VALUE; received '{pair}'.")
        options[key] = value
    return tuple(sorted(options.items()))


def _scope(ask: Ask, scope: Scope, techniques: Mapping[str, Technique]) -> Scope:
    allowed = techniques[ask.technique].scopes
    if scope in allowed:
        return scope
    if scope is Scope.CAPTIONER and len(allowed) == 1:
        return allowed[0]
    raise ConfigError(f"technique '{ask}' works on the {' or the '.join(allowed)}, not on the {scope} alone.")


def _check_order(chain: list[Ask], techniques: Mapping[str, Technique]) -> None:
    for before, after in itertools.pairwise(chain):
        first, second = techniques[before.technique].stage, techniques[after.technique].stage
        shapes = first is second and before.technique != after.technique and first.name == "SHAPE"
        if second < first or (second is first and not shapes):
            raise ConfigError(
                f"'{after}' can't follow '{before}': {ORDER_REASONS[second]}. "
                f"Order: student, shape (slim, vocabulary, tie), dsd, prune, cluster, qat."
            )
