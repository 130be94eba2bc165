"""Fuses an encoder and a step into one ONNX model: the step becomes the body of a Loop that decodes greedily.

The body keeps the step's constants, so that ONNX Runtime folds and packs them and fuses QDQ to integer kernels there as
it does in a step of its own. What the image gives (features, keys) is carried from step to step as it is: were it read
from outside of the body, ONNX Runtime 1.32 would crash while loading a model with QDQ, because its QDQ passes look for
that tensor among the Loop's listed inputs.
"""

from pathlib import Path
from typing import Any

import numpy as np

from convert.artifact import OUTPUT_SUFFIX
from convert.fused import IDS, LOG_PROBABILITY, GreedyLoop
from models.decoders import STATES
from models.errors import ConversionError
from models.vocabulary import END, PAD, START

ENCODER_PREFIX, STEP_PREFIX = "encoder/", "step/"


def fuse_onnx(encoder: Path, step: Path, loop: GreedyLoop) -> bytes:
    """The serialized model: `image` -> `ids`, `log_probability`. Raises ConversionError when the two don't fit."""
    import onnx

    models = [
        _prefixed(onnx.load(str(encoder)), ENCODER_PREFIX, rename_inputs=False),
        _prefixed(onnx.load(str(step)), STEP_PREFIX),
    ]
    main, body = (model.graph for model in models)
    _append_loop(main, _loop_body(body, loop), loop)
    fused = onnx.helper.make_model(
        main, ir_version=max(model.ir_version for model in models), opset_imports=_operator_sets(models)
    )
    try:
        onnx.checker.check_model(fused, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"the ONNX encoder and step don't fit into one model: {error}") from error
    return bytes(fused.SerializeToString())


def _prefixed(model: Any, prefix: str, *, rename_inputs: bool = True) -> Any:
    """A copy with names of its own and a batch of 1."""
    from onnx import compose

    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    del model.graph.value_info[:]  # they tell of a free batch
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return compose.add_prefix(model, prefix, rename_inputs=rename_inputs)


def _loop_body(graph: Any, loop: GreedyLoop) -> Any:
    """The step as the body of a Loop: it carries token, state and what the image gave, and gives out each word."""
    from onnx import TensorProto, helper, numpy_helper

    carried = list(graph.input)
    graph.initializer.append(numpy_helper.from_array(loop.penalties(), "penalties"))
    graph.initializer.append(numpy_helper.from_array(np.array(END, np.int64), "end"))
    inputs = [
        helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
        helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        *carried,
    ]
    outputs = [
        helper.make_tensor_value_info("continue", TensorProto.BOOL, []),
        *(_renamed(value, _next_name(value.name)) for value in carried),
        helper.make_tensor_value_info("word", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("word_log_probability", TensorProto.FLOAT, []),
    ]
    return helper.make_graph([*graph.node, *_choice()], "decode_step", inputs, outputs, list(graph.initializer))


def _choice() -> list[Any]:
    """The nodes that choose the likeliest word that may be said, and end the loop behind END."""
    from onnx import TensorProto, helper

    return [
        helper.make_node("Add", [f"{STEP_PREFIX}logits", "penalties"], ["scores"], "forbid"),
        helper.make_node("ArgMax", ["scores"], ["word"], "choose", axis=1, keepdims=0),
        helper.make_node("Cast", ["word"], ["next_token"], "carry", to=TensorProto.INT32),
        helper.make_node("LogSoftmax", ["scores"], ["log_probabilities"], "normalise"),
        helper.make_node("ReduceMax", ["log_probabilities"], ["word_log_probability"], "score", keepdims=0),
        helper.make_node("Equal", ["word", "end"], ["ended_row"], "compare"),
        helper.make_node("Squeeze", ["ended_row"], ["ended"], "only_row"),
        helper.make_node("Not", ["ended"], ["continue"], "go_on"),
    ]


def _next_name(carried: str) -> str:
    """The body's tensor that takes the place of this input in the next iteration."""
    name = carried.removeprefix(STEP_PREFIX)
    if name == "token":
        return "next_token"
    return f"{carried}{OUTPUT_SUFFIX}" if name in STATES else carried


def _renamed(value: Any, name: str) -> Any:
    copy = type(value)()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _append_loop(graph: Any, body: Any, loop: GreedyLoop) -> None:
    """Let the encoder's graph go on with the loop, and put its words into one row."""
    from onnx import TensorProto, helper, numpy_helper

    carried = [value.name for value in body.input[2:]]
    constants = {
        "max_length": np.array(loop.max_length, np.int64),
        "start": np.array([START], np.int32),
        "no_words": np.full((loop.max_length, 1), PAD, np.int64),
        "row_start": np.array([0], np.int64),
        "row_end": np.array([loop.max_length], np.int64),
        "row_shape": np.array([1, loop.max_length], np.int64),
    }
    initial = [_initial(name, graph, loop, constants) for name in carried]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    results = [*(f"final/{name}" for name in carried), "words", "log_probabilities"]
    graph.node.extend(
        [
            helper.make_node("Loop", ["max_length", "", *initial], results, "decode", body=body),
            helper.make_node("Concat", ["words", "no_words"], ["padded"], "pad", axis=0),
            helper.make_node("Slice", ["padded", "row_start", "row_end"], ["places"], "cut"),
            helper.make_node("Reshape", ["places", "row_shape"], ["row"], "lay"),
            helper.make_node("Cast", ["row"], [IDS], "narrow", to=TensorProto.INT32),
            helper.make_node("ReduceSum", ["log_probabilities"], [LOG_PROBABILITY], "sum"),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(IDS, TensorProto.INT32, [1, loop.max_length]))
    graph.output.append(helper.make_tensor_value_info(LOG_PROBABILITY, TensorProto.FLOAT, [1]))


def _initial(carried: str, graph: Any, loop: GreedyLoop, constants: dict[str, Any]) -> str:
    """What the first iteration takes: START, what the encoder says, or zeros for a state that it says nothing of."""
    name = carried.removeprefix(STEP_PREFIX)
    if name == "token":
        return "start"
    if f"{ENCODER_PREFIX}{name}" in {value.name for value in graph.output}:
        return f"{ENCODER_PREFIX}{name}"
    if name in STATES:
        constants["no_state"] = np.zeros((1, loop.units), np.float32)
        return "no_state"
    raise ConversionError(f"the ONNX step takes '{name}', which the encoder does not give; export both again.")


def _operator_sets(models: list[Any]) -> list[Any]:
    """One version of each domain that a node is of. Raises ConversionError when the models differ in one."""
    from onnx import helper

    used = {node.domain for model in models for node in model.graph.node} | {""}
    versions = {(entry.domain, entry.version) for model in models for entry in model.opset_import}
    domains = [domain for domain, _ in versions if domain in used]
    if len(domains) > len(set(domains)):
        raise ConversionError(
            f"encoder and step are of different operator sets: {sorted(versions)}; export both again."
        )
    return [helper.make_opsetid(domain, version) for domain, version in sorted(versions) if domain in used]
