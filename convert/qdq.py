"""Turns graphs with FakeQuant into ONNX graphs that ONNX Runtime computes in integers.

FakeQuant becomes QuantizeLinear and DequantizeLinear (QDQ), which ONNX Runtime fuses with the operator between them.
tf2onnx's own handler knows neither narrow ranges (weights) nor ranges by channel (TF-MOT's convolutions).
"""

from typing import Any

from convert.fake_quant import FAKE_QUANT, rounding_of
from convert.qdq_folding import fold_quantized
from models.keras import quiet_native_code, tensorflow

# tf2onnx folds FakeQuant of a constant into a float constant; what comes through this operation is no constant to it.
_VEIL, _VEILED = "PlaceholderWithDefault", "/veil"


def convert_fake_quant(function: Any, opset: int) -> Any:
    """A tf.function whose graph holds FakeQuant -> an ONNX model with QDQ and INT8 weights, tensors named alike."""
    import tf2onnx
    from tf2onnx.convert import tensor_names_from_structed

    concrete = function.get_concrete_function()
    resource = tensorflow().dtypes.resource
    inputs, outputs = (
        [tensor.name for tensor in tensors if tensor.dtype != resource]
        for tensors in (concrete.inputs, concrete.outputs)
    )
    with quiet_native_code():  # an old function of TensorFlow, which tf2onnx uses, says that it is old
        frozen = tf2onnx.tf_loader.from_function(concrete, inputs, outputs)
        model, _ = tf2onnx.convert.from_graph_def(
            _veil_constants(frozen),
            name=concrete.name,
            input_names=inputs,
            output_names=outputs,
            opset=opset,
            custom_op_handlers=dict.fromkeys(FAKE_QUANT, (_convert_fake_quant, [])),
            tensors_to_rename=tensor_names_from_structed(concrete, inputs, outputs),
        )
    return fold_quantized(model)


def _veil_constants(definition: Any) -> Any:
    """Put a veil over each constant that a FakeQuant of a frozen graph rounds."""
    nodes = {node.name: node for node in definition.node}
    for node in [node for node in definition.node if node.op in FAKE_QUANT]:
        source = nodes[node.input[0].split(":")[0]]
        while source.op == "Identity":
            source = nodes[source.input[0].split(":")[0]]
        if source.op == "Const":
            veil = definition.node.add(name=f"{node.name}{_VEILED}", op=_VEIL, input=[source.name])
            veil.attr["dtype"].CopyFrom(source.attr["dtype"])
            veil.attr["shape"].shape.CopyFrom(source.attr["value"].tensor.tensor_shape)
            node.input[0] = veil.name
    return definition


def _convert_fake_quant(context: Any, node: Any, name: str, _: Any) -> None:
    """One FakeQuant node of tf2onnx' graph -> Q and DQ."""
    if "min" in node.attr:
        limits = [node.get_attr_value(key) for key in ("min", "max")]
    else:
        limits = [source.get_tensor_value(as_list=False) for source in node.inputs[1:]]
    rounding = rounding_of(limits[0], limits[1], narrow=bool(node.get_attr_value("narrow_range")))
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    source, output, veil = node.input[0], node.output[0], node.inputs[0]
    if veil.name.endswith(_VEILED):
        # A copy: tf2onnx transposes the kernel of a convolution in place.
        source = context.make_const(f"{name}__float", veil.inputs[0].get_tensor_value(as_list=False)).output[0]
    context.remove_node(name)
    parameters = [
        context.make_const(f"{name}__{key}", value).output[0]
        for key, value in (("scale", rounding.scale), ("zero", rounding.zero))
    ]
    axis = {"axis": len(shape) - 1} if rounding.scale.ndim else {}
    quantize = context.make_node("QuantizeLinear", [source, *parameters], attr=axis, name=f"{name}__quantize")
    context.make_node(
        "DequantizeLinear",
        [quantize.output[0], *parameters],
        attr=axis,
        name=f"{name}__dequantize",
        outputs=[output],
        shapes=[shape],
        dtypes=[dtype],
    )
