"""Fuses an encoder and a step into one TFLite model: the step becomes the body of a WHILE that decodes greedily.

The operators of both files are copied with their weights, scales and options. What of the step depends on the image
alone is done once, before the loop; the loop carries the result from step to step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.fused import IDS, IMAGE, LOG_PROBABILITY, GreedyLoop
from convert.fused_tflite_batch import fix_batch
from convert.fused_tflite_parts import ABSENT, GraphWriter, ModelWriter, Source
from convert.tflite_file import schema
from convert.to_keras import SIGNATURE
from models.decoders import STATES
from models.errors import ConversionError
from models.vocabulary import END, PAD, START

TOKEN, PLACE = "token", "place"


@dataclass(frozen=True)
class _Carried:
    """A tensor that the loop carries: its name, its index in the main graph before the loop, and in the step's file."""

    name: str
    initial: int
    step: int | None = None  # None for what only the loop itself knows


def fuse_tflite(encoder: Path, step: Path, loop: GreedyLoop) -> bytes:
    """The flatbuffer: `image` -> `ids`, `log_probability`. Raises ConversionError when the two don't fit."""
    writer = ModelWriter()
    main, condition, body = (writer.add_graph(name) for name in ("main", "goes_on", "decode_step"))
    encoding, stepping = fix_batch(encoder.read_bytes()), fix_batch(step.read_bytes())
    image = main.like(encoding.graph.tensors[encoding.inputs[IMAGE]], IMAGE)
    encoded = main.copy(encoding, encoding.graph.operators, {encoding.inputs[IMAGE]: image})
    prepared = {name: encoded[index] for name, index in encoding.outputs.items()}

    once, each = _split(stepping)
    from_image = {index: _given(name, prepared) for name, index in _image_inputs(stepping).items()}
    known = main.copy(stepping, once, from_image)
    carried = [*_own_tensors(main, loop), *_states(main, stepping, prepared, loop)]
    carried += [_Carried(f"kept_{index}", known[index], index) for index in _frontier(stepping, each, known)]

    _write_condition(condition, main, carried, loop)
    _write_body(body, main, carried, stepping, each, loop)
    finals = [main.like(main.graph.tensors[item.initial], f"final_{item.name}") for item in carried]
    options = schema().WhileOptionsT(condSubgraphIndex=condition.index, bodySubgraphIndex=body.index)
    main.add("WHILE", [item.initial for item in carried], finals, options)
    by_name = {item.name: final for item, final in zip(carried, finals, strict=True)}
    row = _reshape(main, by_name[IDS], (1, loop.max_length))
    _sign(writer, main, {IMAGE: image}, {IDS: row, LOG_PROBABILITY: by_name[LOG_PROBABILITY]})
    return writer.content()


def _image_inputs(stepping: Source) -> dict[str, int]:
    """The inputs of the step that are the same in each step of a caption."""
    return {name: index for name, index in stepping.inputs.items() if name not in (TOKEN, *STATES)}


def _given(name: str, prepared: dict[str, int]) -> int:
    if name not in prepared:
        raise ConversionError(f"the TFLite step takes '{name}', which the encoder does not give; export both again.")
    return prepared[name]


def _split(stepping: Source) -> tuple[list[Any], list[Any]]:
    """The step's operators: those that depend on nothing but the image, and the rest."""
    from_image = set(_image_inputs(stepping).values())
    once, each = [], []
    for operator in stepping.graph.operators:
        read = [int(index) for index in operator.inputs if index != ABSENT and not stepping.is_constant(index)]
        if read and from_image.issuperset(read):
            from_image.update(int(index) for index in operator.outputs)
            once.append(operator)
        else:
            each.append(operator)
    return once, each


def _frontier(stepping: Source, each: Sequence[Any], known: dict[int, int]) -> list[int]:
    """The step's tensors that are worked out before the loop and read in it."""
    read = {int(index) for operator in each for index in operator.inputs if index != ABSENT}
    return sorted(index for index in read & known.keys() if not stepping.is_constant(index))


def _own_tensors(main: GraphWriter, loop: GreedyLoop) -> list[_Carried]:
    """What the loop adds to the step: where it is, the last word, the words and their probability."""
    values: dict[str, NDArray[Any]] = {
        PLACE: np.zeros(1, np.int32),
        IDS: np.full(loop.max_length, PAD, np.int32),
        LOG_PROBABILITY: np.zeros(1, np.float32),
    }
    return [_Carried(name, main.constant(f"no_{name}", value)) for name, value in values.items()]


def _states(main: GraphWriter, stepping: Source, prepared: dict[str, int], loop: GreedyLoop) -> list[_Carried]:
    """Token and state: what the encoder says, or zeros for a state that it says nothing of."""
    initial = {TOKEN: main.constant("start", np.array([START], np.int32))}
    for name in STATES:
        if name in prepared:
            initial[name] = prepared[name]
        else:
            initial[name] = main.constant(f"no_{name}", np.zeros((1, loop.units), np.float32))
    return [_Carried(name, index, stepping.inputs[name]) for name, index in initial.items()]


def _inputs(graph: GraphWriter, main: GraphWriter, carried: Sequence[_Carried]) -> list[int]:
    """The inputs of a graph of the loop, one for each tensor that is carried."""
    graph.graph.inputs = [graph.like(main.graph.tensors[item.initial], item.name) for item in carried]
    return list(graph.graph.inputs)


def _write_condition(graph: GraphWriter, main: GraphWriter, carried: Sequence[_Carried], loop: GreedyLoop) -> None:
    """Go on while there is room and the last word is not END."""
    tensors = dict(zip((item.name for item in carried), _inputs(graph, main, carried), strict=True))
    boolean = schema().TensorType.BOOL
    has_room, is_open, goes_on = (graph.tensor(name, boolean, (1,)) for name in ("has_room", "is_open", "goes_on"))
    limit = graph.constant("max_length", np.array([loop.max_length], np.int32))
    end = graph.constant("end", np.array([END], np.int32))
    graph.add("LESS", [tensors[PLACE], limit], [has_room], schema().LessOptionsT())
    graph.add("NOT_EQUAL", [tensors[TOKEN], end], [is_open], schema().NotEqualOptionsT())
    graph.add("LOGICAL_AND", [has_room, is_open], [goes_on], schema().LogicalAndOptionsT())
    graph.graph.outputs = [goes_on]


def _write_body(
    graph: GraphWriter,
    main: GraphWriter,
    carried: Sequence[_Carried],
    stepping: Source,
    operators: Sequence[Any],
    loop: GreedyLoop,
) -> None:
    """One step, and the choice of its word."""
    inputs = _inputs(graph, main, carried)
    steps = {item.step: index for item, index in zip(carried, inputs, strict=True) if item.step is not None}
    mapped = graph.copy(stepping, operators, steps)
    tensors = dict(zip((item.name for item in carried), inputs, strict=True))
    following = tensors | {name: mapped[stepping.outputs[name]] for name in STATES}
    following |= _choose(graph, mapped[stepping.outputs["logits"]], tensors, loop)
    graph.graph.outputs = list(following.values())


def _choose(graph: GraphWriter, logits: int, tensors: dict[str, int], loop: GreedyLoop) -> dict[str, int]:
    """The likeliest word that may be said, written into its place."""
    types, floats, add = schema().TensorType, schema().TensorType.FLOAT32, schema().AddOptionsT
    scores = graph.tensor("scores", floats, (1, loop.words))
    normalised = graph.tensor("log_probabilities", floats, (1, loop.words))
    word, place = graph.tensor("word", types.INT32, (1,)), graph.tensor("next_place", types.INT32, (1,))
    ids = graph.tensor("next_ids", types.INT32, (loop.max_length,))
    best, total = (graph.tensor(name, floats, (1,)) for name in ("word_log_probability", "next_log_probability"))
    last_axis, one = graph.constant("axis", np.array([1], np.int32)), graph.constant("one", np.array([1], np.int32))

    graph.add("ADD", [logits, graph.constant("penalties", loop.penalties())], [scores], add())
    graph.add("ARG_MAX", [scores, last_axis], [word], schema().ArgMaxOptionsT(outputType=types.INT32))
    graph.add("DYNAMIC_UPDATE_SLICE", [tensors[IDS], word, tensors[PLACE]], [ids])
    graph.add("ADD", [tensors[PLACE], one], [place], add())
    graph.add("LOG_SOFTMAX", [scores], [normalised], schema().LogSoftmaxOptionsT())
    graph.add("REDUCE_MAX", [normalised, last_axis], [best], schema().ReducerOptionsT())
    graph.add("ADD", [tensors[LOG_PROBABILITY], best], [total], add())
    return {TOKEN: word, IDS: ids, PLACE: place, LOG_PROBABILITY: total}


def _reshape(graph: GraphWriter, index: int, shape: tuple[int, ...]) -> int:
    result = graph.tensor(IDS, schema().TensorType.INT32, shape)
    target = graph.constant("row_shape", np.array(shape, np.int32))
    graph.add("RESHAPE", [index, target], [result], schema().ReshapeOptionsT(newShape=list(shape)))
    return result


def _sign(writer: ModelWriter, main: GraphWriter, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    """Name the tensors that a driver gives and gets."""
    main.graph.inputs, main.graph.outputs = list(inputs.values()), list(outputs.values())

    def maps(tensors: dict[str, int]) -> list[Any]:
        return [schema().TensorMapT(name=name, tensorIndex=index) for name, index in tensors.items()]

    signature = schema().SignatureDefT(inputs=maps(inputs), outputs=maps(outputs), signatureKey=SIGNATURE)
    signature.subgraphIndex = main.index
    writer.model.signatureDefs.append(signature)
