"""What LiteRT's kernels compute in, by the names that its profiler gives them.

Operators that XNNPACK took over are called `Delegate/` and XNNPACK's own name, such as `Convolution (NHWC, QS8, QC8W)
IGEMM`: layout, then the numbers of activations and weights
(https://github.com/google/XNNPACK/blob/master/src/operator-utils.c). Those that LiteRT runs itself have the names of
the schema in capitals, which tell no numbers.
"""

import re

from bench.profile_kinds import Work

DELEGATED = "Delegate/"
# Their time is that of the operators inside, which are listed too.
CONTAINERS = frozenset({"WHILE", "IF", "CALL_ONCE", "STABLEHLO_COMPOSITE", "TfLiteXNNPackDelegate"})
MOVES = frozenset(
    {"RESHAPE", "TRANSPOSE", "GATHER", "GATHER_ND", "PACK", "UNPACK", "SHAPE", "STRIDED_SLICE", "SLICE"}
    | {"CONCATENATION", "SPLIT", "SPLIT_V", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE", "DEQUANTIZE", "CAST", "PAD", "PADV2"}
    | {"TILE", "FILL", "RANGE", "REDUCE_PROD", "EMBEDDING_LOOKUP", "BROADCAST_TO", "DYNAMIC_UPDATE_SLICE"}
)
_DELEGATED_MOVES = (
    "Convert",
    "Static Reshape",
    "Copy",
    "Transpose",
    "Concatenate",
    "Even Split",
    "Slice",
    "Constant Pad",
)
_FLOATS = {"F32": Work.FP32, "F16": Work.FP16, "BF16": Work.OTHER}


def kernel_work(name: str, sole: str) -> Work | None:
    """What a kernel does; `sole` is the arithmetic of the whole graph, if it has one. None for containers."""
    if name in CONTAINERS:
        return None
    if name.startswith(DELEGATED):
        return _delegated(name.removeprefix(DELEGATED))
    if name in MOVES:
        return Work.DATA_MOVEMENT
    return Work(sole) if sole in set(Work) else Work.OTHER


def plain_name(name: str) -> str:
    """A kernel's name without the mark of XNNPACK's: LiteRT's own are known by their capitals."""
    return name.removeprefix(DELEGATED)


def _delegated(name: str) -> Work:
    """The first numbers named are those of the activations; element-wise operators name none."""
    if name.removeprefix("Static ").startswith(_DELEGATED_MOVES) or name.startswith(_DELEGATED_MOVES):
        return Work.DATA_MOVEMENT
    described = re.search(r"\(([^)]*)\)", name)
    numbers = described[1].split(", ")[1:] if described else []
    if not numbers:
        return Work.OTHER
    if not numbers[0].startswith("Q"):
        return _FLOATS.get(numbers[0], Work.OTHER)
    return Work.INT4 if any(re.fullmatch(r"Q[BCS]4W?", each) for each in numbers) else Work.INT8
