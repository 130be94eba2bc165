"""Technique chains: what parses, what is refused and why, and in which order the halves are worked on."""

import pytest
from conftest import tiny_spec
from hypothesis import given
from hypothesis import strategies as st

from models.compression.base import Ask, Scope
from models.compression.chain import (
    apart_halves,
    canonical_technique,
    learned_technique,
    parse_technique,
    planned,
    technique_halves,
)
from models.compression.registry import TECHNIQUES
from models.errors import ConfigError
from models.spec import EncoderTraining


def parsed(text: str) -> list[str]:
    return [str(scoped) for scoped in parse_technique(text, TECHNIQUES)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", []),
        ("prune80", ["captioner:prune80"]),
        ("prune80 + cluster32", ["captioner:prune80", "captioner:cluster32"]),
        ("prune50/prune80", ["encoder:prune50", "decoder:prune80"]),
        ("prune50 // prune80", ["encoder:prune50", "decoder:prune80"]),
        ("none/two_of_four", ["decoder:two_of_four"]),
        ("prune80(layers=lstm|words,epochs=4)", ["captioner:prune80(epochs=4,layers=lstm|words)"]),
        ("tie", ["decoder:tie"]),
        ("tie+vocabulary50+prune80", ["decoder:tie", "decoder:vocabulary50", "captioner:prune80"]),
    ],
)
def test_chain_parses_to_scoped_asks(text: str, expected: list[str]) -> None:
    assert parsed(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prun80", "Did you mean 'prune'"),
        ("prune", "needs a number, from 1 to 99"),
        ("prune0", "the number must be from 1 to 99"),
        ("prune100", "the number must be from 1 to 99"),
        ("prune-5", "can't read technique"),
        ("cluster1", "the number must be from 2 to 256"),
        ("tie5", "takes no number"),
        ("prune80(steps=4)", "unknown option of 'prune80\\(steps=4\\)' 'steps'"),
        ("prune80(epochs)", "write epochs=VALUE"),
        ("cluster16+prune80", "new zeros would be one more value in every cluster"),
        ("prune80+distill_words50", "another network"),
        ("prune80+dsd50", "fills the zeros"),
        ("prune80+tie", "changes the shapes"),
        ("prune80+prune90", "can't follow"),
        ("a/b/c", "'CHAIN', 'ENCODER/DECODER' or"),
        ("a///b", "'CHAIN', 'ENCODER/DECODER' or"),
        ("tie/none", "works on the decoder, not on the encoder alone"),
        ("", "can't read technique"),
    ],
)
def test_chain_that_cant_work_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_technique(text, TECHNIQUES)


def test_halves_of_a_chain_are_named_apart() -> None:
    assert technique_halves("prune50/prune80+cluster16") == ("prune50", "prune80+cluster16")
    assert technique_halves("prune50//prune80") == ("prune50", "prune80")
    assert technique_halves("prune50") == ("prune50", "prune50")


def test_nothing_on_both_halves_is_nothing() -> None:
    assert canonical_technique("none / none") == "none"
    assert canonical_technique("none // none") == "none"


def test_halves_are_apart_only_where_both_change() -> None:
    assert apart_halves("prune50 // prune80") == ("prune50/none", "none/prune80")
    assert apart_halves("prune50/prune80") is apart_halves("prune80") is None
    assert canonical_technique("none//prune80") == "none/prune80"
    assert canonical_technique("prune50//none") == "prune50/none"


def plan_of(text: str, training: EncoderTraining) -> list[str]:
    from dataclasses import replace

    spec = replace(tiny_spec("merge"), encoder_training=training)
    return [str(scoped) for scoped in planned(parse_technique(text, TECHNIQUES), spec, TECHNIQUES)]


def test_trained_encoder_is_compressed_with_its_decoder() -> None:
    assert plan_of("prune80+cluster16", EncoderTraining.TRAINED) == ["captioner:prune80", "captioner:cluster16"]


def test_frozen_encoder_is_compressed_before_its_decoder() -> None:
    plan = plan_of("tie+prune80+cluster16", EncoderTraining.FROZEN)
    assert plan == ["encoder:prune80", "encoder:cluster16", "decoder:tie", "decoder:prune80", "decoder:cluster16"]


def test_student_comes_before_its_halves() -> None:
    plan = plan_of("distill_words50+prune80", EncoderTraining.FROZEN)
    assert plan == ["captioner:distill_words50", "encoder:prune80", "decoder:prune80"]


@given(
    st.sampled_from(sorted(name for name, t in TECHNIQUES.items() if Scope.DECODER in t.scopes)),
    st.data(),
)
def test_ask_reads_back_what_it_writes(name: str, data: st.DataObject) -> None:
    technique = TECHNIQUES[name]
    amount = data.draw(st.sampled_from(technique.amounts)) if technique.amounts else None
    values = st.text("abcz019.|*_", min_size=1, max_size=8)
    options = data.draw(st.dictionaries(st.sampled_from(technique.options), values)) if technique.options else {}
    ask = Ask(name, amount, tuple(sorted(options.items())))
    (scoped,) = parse_technique(f"none/{ask}", TECHNIQUES)
    assert scoped.ask == ask


@pytest.mark.parametrize(
    ("text", "learned"),
    [
        ("none", "none"),
        ("round/none", "none"),
        ("round / qat", "none/qat"),
        ("prune80 + round/none", "prune80/none"),
        ("prune50//prune80(layers=lstm|words)", "prune50//prune80(layers=lstm|words)"),
    ],
)
def test_what_a_captioner_learned_leaves_out_what_only_rounds(text: str, learned: str) -> None:
    assert learned_technique(text) == learned
