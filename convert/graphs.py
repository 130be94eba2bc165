"""A captioner's deployable graphs as TensorFlow functions with named tensors and a dynamic batch.

All exporters start here, so that names and shapes are the same in every format.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.artifact import ENCODER
from convert.recipe import Graph
from models.captioner import Captioner, encoder_graph
from models.decoders import build_prefix
from models.files import content_key
from models.keras import tensorflow


@dataclass(frozen=True)
class GraphFunction:
    """`model` is the Keras graph; `function` maps keyword tensors to a dict; `signature` names its inputs."""

    name: str
    model: Any
    function: Any
    signature: dict[str, Any]


def deployable_graphs(captioner: Captioner, graph: Graph) -> list[GraphFunction]:
    """The encoder's and the decoder's graph."""
    decoder = captioner.decoder.step
    if graph is Graph.PREFIX:
        # The first place holds START, which max_length does not count.
        decoder = build_prefix(captioner.decoder, captioner.config, captioner.max_length)
    return [_graph_function(ENCODER, encoder_graph(captioner)), _graph_function(graph, decoder)]


def graph_fingerprint(model: Any) -> str:
    """What a Keras graph computes, as text: its layers, their names and order, and its weights bit by bit."""
    weights = [hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest() for value in model.get_weights()]
    return content_key(model.to_json(), weights)


def _graph_function(name: str, model: Any) -> GraphFunction:
    tf = tensorflow()
    inputs = model.input if isinstance(model.input, dict) else {model.input.name: model.input}
    signature = {
        key: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name=key) for key, tensor in inputs.items()
    }

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        return model(feeds if isinstance(model.input, dict) else feeds[model.input.name], training=False)

    return GraphFunction(name, model, call, signature)
