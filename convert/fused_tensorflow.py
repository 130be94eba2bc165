"""The fused graph as a TensorFlow function: image in, ids of the greedy caption out, a `tf.while_loop` between them."""

from types import SimpleNamespace
from typing import Any

from convert.fused import IDS, IMAGE, LOG_PROBABILITY, GreedyLoop
from convert.graphs import GraphFunction
from convert.recipe import Graph
from models.captioner import Captioner, encoder_graph
from models.decoders import STATES
from models.keras import tensorflow
from models.vocabulary import END, PAD, START


def fused_graph(captioner: Captioner) -> GraphFunction:
    """Encoder, greedy loop and step in one function, at a batch of 1."""
    tf = tensorflow()
    encoder, step = encoder_graph(captioner), captioner.decoder.step
    loop = GreedyLoop(captioner.max_length, captioner.config.units, len(captioner.vocabulary.words))
    signature = {IMAGE: tf.TensorSpec([1, *encoder.input.shape[1:]], encoder.input.dtype, name=IMAGE)}

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        zeros = {name: tf.zeros([1, loop.units]) for name in STATES}
        return _decode(step, zeros | encoder(feeds[IMAGE], training=False), loop)

    held = SimpleNamespace(variables=[*encoder.variables, *step.variables])
    return GraphFunction(Graph.FUSED, held, call, signature)


def _decode(step: Any, prepared: dict[str, Any], loop: GreedyLoop) -> dict[str, Any]:
    """The greedy caption of what the encoder prepared."""
    tf = tensorflow()

    def goes_on(place: Any, token: Any, *_: Any) -> Any:
        return tf.logical_and(place < loop.max_length, token[0] != END)

    def advance(place: Any, token: Any, ids: Any, total: Any, *states: Any) -> Any:
        outputs = step({**prepared, "token": token, **dict(zip(STATES, states, strict=True))}, training=False)
        scores = outputs["logits"] + loop.penalties()
        word = tf.argmax(scores, axis=1, output_type=tf.int32)
        ids = tf.tensor_scatter_nd_update(ids, [[0, place]], word)
        total += tf.reduce_max(tf.nn.log_softmax(scores), axis=1)
        return place + 1, word, ids, total, *(outputs[name] for name in STATES)

    start = (tf.constant(0), tf.constant([START]), tf.fill([1, loop.max_length], PAD), tf.zeros([1]))
    states = tuple(prepared[name] for name in STATES)
    _, _, ids, total, *_ = tf.while_loop(goes_on, advance, (*start, *states))
    return {IDS: ids, LOG_PROBABILITY: total}
