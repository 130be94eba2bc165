"""Decoders of other sizes from the weights of a trained one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.captioner import Captioner
from models.decoders import DecoderConfig, build_decoder


def rebuild_decoder(captioner: Captioner, config: DecoderConfig, changed: Mapping[str, list[Any]]) -> Captioner:
    """The captioner with a decoder of `config`: layers in `changed` get those weights, all others their old ones."""
    decoder = build_decoder(config)
    for layer in decoder.sequence.layers:
        if layer.name in changed:
            layer.set_weights(changed[layer.name])
        elif layer.weights:
            layer.set_weights(captioner.decoder.sequence.get_layer(layer.name).get_weights())
    return replace(captioner, decoder=decoder, config=config)
