"""(token, features, state) -> (logits, state): the registry of decoders.

A decoder is three Keras graphs over the same layers: `prepare` (raw features -> features and initial
state, computed once an image, on the encoder's side), `step` (one word with explicit state, what is
deployed) and `sequence` (a whole caption at once, what is trained). A new decoder costs one function
and one line in `DECODERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models.encoders import FeatureKind
from models.errors import ConfigError, unknown_name
from models.keras import keras, tensorflow
from models.layers import Arithmetic, LayerFactory, Output, layer_factory

# Names of the tensors; they are part of the artifact contract.
STATES = ("state_h", "state_c")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder. `raw_shape` is the encoder's output without the batch: (cells, channels) or (channels,)."""

    kind: str
    raw_shape: tuple[int, ...]
    vocabulary_size: int
    embedding: int = 256
    units: int = 512
    attention: int = 256
    dropout: float = 0.5
    arithmetic: str = Arithmetic.FLOAT  # of the layers of the step
    prepare_arithmetic: str = Arithmetic.FLOAT  # of the layers of `prepare`, which ship with the encoder
    output: str = Output.DENSE


@dataclass(frozen=True)
class Decoder:
    """Three graphs over shared layers, see the module's docstring."""

    prepare: Any  # raw -> {features, [keys, state_h, state_c]}
    step: Any  # {token, features, [keys], state_h, state_c} -> {logits, state_h, state_c}
    sequence: Any  # [raw, tokens int32 (batch, length)] -> logits (batch, length, words)


@dataclass(frozen=True)
class DecoderEntry:
    """How to build a decoder and what it looks at."""

    build: Callable[[DecoderConfig], Decoder]
    feature_kind: FeatureKind


def _merge(config: DecoderConfig) -> Decoder:
    """The 2020 study's decoder: an LSTM over words only, the image added after it.

    Tanti et al. 2018, "Where to put the image in an image caption generator" (arXiv 1703.09137), call it merge.
    """
    layers, make = keras().layers, layer_factory(config.arithmetic)
    project = layer_factory(config.prepare_arithmetic).dense(config.units, "image_projection", activation="relu")
    embed = make.embedding(config.vocabulary_size, config.embedding, "embedding")
    lstm = make.lstm(config.units, "lstm")
    hidden = make.dense(config.units, "hidden", activation="relu")
    words = _words(config, make, embed)
    drop = [layers.Dropout(config.dropout, name=f"dropout_{n}") for n in ("image", "embedding", "merged")]

    raw = layers.Input(config.raw_shape, name="raw")
    features = project(drop[0](raw))
    prepare = keras().Model(raw, {"features": features}, name="prepare")

    tokens = layers.Input((None,), dtype="int32", name="tokens")
    seen = lstm(drop[1](embed(tokens)))
    merged = hidden(layers.Add(name="merge")([seen, layers.Reshape((1, config.units))(features)]))
    sequence = keras().Model([raw, tokens], words(drop[2](merged)), name="sequence")

    inputs = _step_inputs({"features": (config.units,)}, config.units)
    output, new_state = _lstm_step(lstm, embed(inputs["token"]), inputs)
    logits = words(hidden(layers.Add(name="merge_step")([output, inputs["features"]])))
    return Decoder(prepare, _step_model(inputs, logits, new_state), sequence)


def _attention(config: DecoderConfig) -> Decoder:
    """Soft attention over the feature grid, asked by the LSTM's new state.

    The spatial attention of Lu et al. 2017, "Knowing when to look" (arXiv 1612.01887, section 2.2): the LSTM
    reads the word and the mean image; its output asks the grid, and both together name the next word. Because
    the question does not feed back into the LSTM, a whole caption trains without a loop.
    """
    layers, parts = keras().layers, _attention_layers(config)

    raw = layers.Input(config.raw_shape, name="raw")
    features = parts["grid"](parts["drop_image"](raw))
    keys = parts["key"](features)
    mean = layers.GlobalAveragePooling1D(name="mean_cell")(features)
    state = [parts["initial_h"](mean), parts["initial_c"](mean)]
    prepared = {"features": features, "keys": keys} | dict(zip(STATES, state, strict=True))
    prepare = keras().Model(raw, prepared, name="prepare")

    tokens = layers.Input((None,), dtype="int32", name="tokens")
    seen = parts["lstm"](parts["drop_embedding"](parts["embed"](tokens)), initial_state=state)
    logits = _look(parts, config, seen, features, keys, -1)
    sequence = keras().Model([raw, tokens], logits, name="sequence")

    cells = config.raw_shape[0]
    inputs = _step_inputs({"features": (cells, config.units), "keys": (cells, config.attention)}, config.units)
    output, new_state = _lstm_step(parts["lstm"], parts["embed"](inputs["token"]), inputs)
    output = layers.Reshape((1, config.units))(output)
    logits = _look(parts, config, output, inputs["features"], inputs["keys"], 1)
    logits = layers.Reshape((config.vocabulary_size,))(logits)
    return Decoder(prepare, _step_model(inputs, logits, new_state), sequence)


def _look(parts: dict[str, Any], config: DecoderConfig, outputs: Any, grid: Any, keys: Any, length: int) -> Any:
    """Outputs (batch, length, units) ask grid and keys (batch, cells, ...) -> logits (batch, length, words)."""
    layers = keras().layers
    cells = config.raw_shape[0]
    question = layers.Reshape((length, 1, config.attention))(parts["question"](outputs))
    keys = layers.Reshape((1, cells, config.attention))(keys)
    energy = parts["energy"](layers.Activation("tanh")(layers.Add()([question, keys])))
    weights = layers.Softmax()(layers.Reshape((length, cells))(energy))
    context = layers.Dot(axes=(2, 1))([weights, grid])
    merged = parts["hidden"](layers.Concatenate()([outputs, context]))
    return parts["words"](parts["drop_merged"](merged))


def _attention_layers(config: DecoderConfig) -> dict[str, Any]:
    layers = keras().layers
    make, prepare = layer_factory(config.arithmetic), layer_factory(config.prepare_arithmetic)
    embed = make.embedding(config.vocabulary_size, config.embedding, "embedding")
    return {
        "grid": prepare.dense(config.units, "grid_projection", activation="relu"),
        "initial_h": prepare.dense(config.units, "initial_h", activation="tanh"),
        "initial_c": prepare.dense(config.units, "initial_c", activation="tanh"),
        "key": prepare.dense(config.attention, "key", use_bias=False),
        "embed": embed,
        "lstm": make.lstm(config.units, "lstm"),
        "question": make.dense(config.attention, "question"),
        "energy": make.dense(1, "energy", use_bias=False),
        "hidden": make.dense(config.units, "hidden", activation="tanh"),
        "words": _words(config, make, embed),
        "drop_image": layers.Dropout(config.dropout, name="dropout_image"),
        "drop_embedding": layers.Dropout(config.dropout, name="dropout_embedding"),
        "drop_merged": layers.Dropout(config.dropout, name="dropout_merged"),
    }


def _words(config: DecoderConfig, make: LayerFactory, embedding: Any) -> Callable[[Any], Any]:
    """Hidden vector -> logits."""
    if config.output == Output.DENSE:
        dense: Callable[[Any], Any] = make.dense(config.vocabulary_size, "words")
        return dense
    project, tied = make.dense(config.embedding, "words_projection"), make.tied_words(embedding, "words")
    return lambda hidden: tied(project(hidden))


def _step_inputs(constant: dict[str, tuple[int, ...]], units: int) -> dict[str, Any]:
    """The token, what `prepare` computed once (name -> shape), and the state."""
    layers = keras().layers
    inputs = {"token": layers.Input((), dtype="int32", name="token")}
    shapes = constant | dict.fromkeys(STATES, (units,))
    return inputs | {name: layers.Input(shape, name=name) for name, shape in shapes.items()}


def _lstm_step(lstm: Any, embedded: Any, inputs: dict[str, Any]) -> tuple[Any, list[Any]]:
    """One step with the cell of a whole-sequence LSTM layer, sharing its weights."""
    output, new_state = lstm.cell(embedded, [inputs[name] for name in STATES])
    return output, new_state


def _step_model(inputs: dict[str, Any], logits: Any, new_state: list[Any]) -> Any:
    outputs = {"logits": logits} | dict(zip(STATES, new_state, strict=True))
    return keras().Model(inputs, outputs, name="step")


DECODERS: dict[str, DecoderEntry] = {
    "merge": DecoderEntry(_merge, FeatureKind.VECTOR),
    "attention": DecoderEntry(_attention, FeatureKind.GRID),
}


def decoder_entry(kind: str) -> DecoderEntry:
    """Look a decoder up. Raises ConfigError naming the nearest valid name."""
    if kind not in DECODERS:
        raise unknown_name("decoder", kind, DECODERS)
    return DECODERS[kind]


def build_decoder(config: DecoderConfig) -> Decoder:
    """A fresh decoder of `config`."""
    return decoder_entry(config.kind).build(config)


def build_prefix(decoder: Decoder, config: DecoderConfig, length: int) -> Any:
    """The study's graph: (features, whole padded prefix int32 (batch, length)) -> logits of the next word.

    It runs the LSTM over all `length` places again for every word. The prefix is post-padded; `position`
    says which place holds the newest word, so that the padding needs no mask.
    """
    if config.kind != "merge":
        raise ConfigError(f"the prefix graph is the 2020 study's, for decoder 'merge'; received '{config.kind}'.")
    layers = keras().layers
    model = decoder.sequence
    features = layers.Input((config.units,), name="features")
    prefix = layers.Input((length,), dtype="int32", name="prefix")
    position = layers.Input((), dtype="int32", name="position")
    seen = model.get_layer("lstm")(model.get_layer("embedding")(prefix))
    merged = layers.Add()([seen, layers.Reshape((1, config.units))(features)])
    newest = tensorflow().gather(model.get_layer("hidden")(merged), position, batch_dims=1, axis=1)
    if config.output == Output.TIED:
        newest = model.get_layer("words_projection")(newest)
    inputs = {"features": features, "prefix": prefix, "position": position}
    return keras().Model(inputs, {"logits": model.get_layer("words")(newest)}, name="prefix")
