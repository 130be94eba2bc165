"""Making an ONNX file smaller changes none of its results and no name that a user meets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.compact import compact
from convert.graphs import deployable_graphs
from convert.recipe import Graph
from convert.to_onnx import convert_to_onnx
from models.captioner import Captioner


@pytest.mark.parametrize("decoder", ["merge", "attention"])
def test_compact_graphs_compute_the_same(captioner: Callable[[str], Captioner], decoder: str) -> None:
    import onnx
    import onnxruntime

    for graph in deployable_graphs(captioner(decoder), Graph.STEP):
        model = convert_to_onnx(graph)
        before = model.SerializeToString()
        after = compact(model).SerializeToString()
        assert len(after) < len(before)
        onnx.checker.check_model(onnx.load_from_string(after))
        sessions = [onnxruntime.InferenceSession(content) for content in (before, after)]
        inputs, outputs = (
            [[value.name for value in listed(session)] for session in sessions]
            for listed in (onnxruntime.InferenceSession.get_inputs, onnxruntime.InferenceSession.get_outputs)
        )
        assert inputs[0] == inputs[1]
        assert outputs[0] == outputs[1]
        random = np.random.default_rng(1)
        feeds = {
            value.name: random.random([d if isinstance(d, int) else 2 for d in value.shape]).astype(np.float32)
            if "float" in value.type
            else np.array([3, 5], np.int32)
            for value in sessions[0].get_inputs()
        }
        for old, new in zip(*(session.run(outputs[0], feeds) for session in sessions), strict=True):
            assert np.array_equal(old, new)


def test_layers_can_still_be_named(captioner: Callable[[str], Captioner]) -> None:
    step = deployable_graphs(captioner("merge"), Graph.STEP)[1]
    names = [node.name for node in compact(convert_to_onnx(step)).graph.node if node.op_type == "MatMul"]
    assert all(any(f"/{layer}/" in f"/{name}/" for name in names) for layer in ("words", "hidden", "lstm_cell"))
    assert not any(name.startswith("StatefulPartitionedCall") for name in names)


def test_equal_constants_are_stored_once_and_others_kept(tmp_path: Path) -> None:
    from onnx import TensorProto, checker, helper, numpy_helper

    ones = np.ones((2, 2), np.float32)
    twins = [numpy_helper.from_array(ones, "a"), numpy_helper.from_array(ones.copy(), "b")]
    other = numpy_helper.from_array(np.ones(4, np.float32).reshape(4, 1), "c")  # same bytes, another shape
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["y"], "first"),
        helper.make_node("MatMul", ["y", "b"], ["z"], "second"),
        helper.make_node("MatMul", ["c", "x"], ["w"], "third"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "zw"]
    model = compact(helper.make_model(helper.make_graph(nodes, "g", [x], outputs, [*twins, other])))
    checker.check_model(model)
    assert sorted(tuple(tensor.dims) for tensor in model.graph.initializer) == [(2, 2), (4, 1)]
    assert [node.name for node in model.graph.node] == ["first", "second", "third"]
