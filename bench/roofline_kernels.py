"""Plain kernels that show what a machine can do: convolutions are all arithmetic, dense layers are all weights.

They are written by the exporters and quantizers that write captioners, so a runtime meets the same operators.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.build import EXPORT_VERSION, tool_versions
from convert.calibration import Calibration
from convert.exporters import EXPORTERS
from convert.graphs import GraphFunction
from convert.machine import for_machine, machine_kind
from convert.recipe import Format
from convert.scheme import FLOAT, Precision, Scheme
from convert.store import Store
from models.files import content_key
from models.keras import keras, tensorflow

FLOAT_BYTES = 4
# Raised when a change makes the same kernel give another file.
KERNELS_VERSION = 1
INPUT = "values"
# Of the ranges of INT8; the kernels' inputs are noise, so that more would find the same.
CALIBRATION_FEEDS = 4
# What each format can hold; a SavedModel has no integer kernels here.
PRECISIONS: Mapping[Format, tuple[Precision, ...]] = {
    Format.SAVED_MODEL: (Precision.FP32,),
    Format.TFLITE: (Precision.FP32, Precision.INT8_STATIC),
    Format.ONNX: (Precision.FP32, Precision.INT8_STATIC),
}


@dataclass(frozen=True)
class Kernel:
    """`layers` equal layers: convolutions of `window` x `window` over a square map, or dense where `window` is 0.

    Each has `channels` inputs and as many outputs, and a ReLU.
    """

    name: str
    channels: int
    layers: int
    window: int = 0
    side: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With a batch of one."""
        return (1, self.side, self.side, self.channels) if self.window else (1, self.channels)

    @property
    def weights(self) -> int:
        """Elements of all layers' kernels."""
        return self.layers * max(1, self.window) ** 2 * self.channels**2

    @property
    def multiply_adds(self) -> int:
        """Of one run."""
        return self.weights * self.side**2

    @property
    def weight_bytes(self) -> int:
        """In fp32."""
        return self.weights * FLOAT_BYTES

    @property
    def label(self) -> str:
        """For people."""
        if not self.window:
            return f"dense {self.channels} x {self.channels}"
        size = f"{self.window}x{self.window}, {self.channels} channels, {self.side}x{self.side}"
        return f"{self.layers} convolutions {size}"

    def feed(self, seed: int) -> dict[str, Any]:
        """Noise between 0 and 1, as images are."""
        return {INPUT: np.random.default_rng(seed).random(self.input_shape, np.float32)}


@dataclass(frozen=True)
class KernelSet:
    """Kernels whose best rate of multiply-adds, and of bytes of weights, is the machine's."""

    compute: tuple[Kernel, ...]
    memory: tuple[Kernel, ...]

    def of(self, format_: Format) -> list[tuple[Kernel, Precision]]:
        """What a format can hold. Weights are read in fp32 alone: a byte takes as long to read whatever it means."""
        compute = [(kernel, precision) for precision in PRECISIONS.get(format_, ()) for kernel in self.compute]
        return compute + [(kernel, Precision.FP32) for kernel in self.memory if compute]


PLAIN = KernelSet(
    # Enough products for every core; which of them is fastest differs by runtime and precision.
    compute=(
        Kernel("conv3", channels=128, layers=6, window=3, side=28),
        Kernel("conv1", channels=512, layers=4, window=1, side=28),
    ),
    # A dense layer at batch 1 uses every weight once. 67 MB are more than the last cache of most CPUs, so they come
    # from memory; 17 and 4 MB, as a decoder's step has, stay in a cache and are read several times faster.
    memory=tuple(Kernel(f"dense{width}", channels=width, layers=1) for width in (4096, 2048, 1024)),
)


def build_kernel(store: Store, kernel: Kernel, format_: Format, precision: Precision) -> Path:
    """The kernel's file, from the store when it was built before. Raises ConversionError."""
    scheme = _scheme(format_, precision)
    key = content_key(KERNELS_VERSION, EXPORT_VERSION, asdict(kernel), format_, str(scheme), tool_versions())

    def make(folder: Path) -> Mapping[str, Any]:
        feeds = [kernel.feed(seed) for seed in range(CALIBRATION_FEEDS)]
        return {"file": EXPORTERS[format_](_graph(kernel), scheme, Calibration({kernel.name: feeds}), folder)}

    entry = store.build("kernels", key, f"kernel {kernel.name} in {precision}", make)
    return entry.path / str(entry.facts["file"])


def _scheme(format_: Format, precision: Precision) -> Scheme:
    """INT8 in ONNX takes the integers that suit this machine, as recipes do."""
    if precision is Precision.FP32:
        return FLOAT
    scheme = Scheme(precision)
    return for_machine(scheme, frozenset(), machine_kind()) if format_ is Format.ONNX else scheme


def _graph(kernel: Kernel) -> GraphFunction:
    tf, model = tensorflow(), _keras_model(kernel)
    signature = {INPUT: tf.TensorSpec(kernel.input_shape, tf.float32, name=INPUT)}

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def call(feeds: Any) -> Any:
        return {"outputs": model(feeds[INPUT], training=False)}

    return GraphFunction(kernel.name, model, call, signature)


def _keras_model(kernel: Kernel) -> Any:
    """Weights are noise of a scale that keeps activations as large as they were (He et al., 2015)."""
    layers, initializers = keras().layers, keras().initializers
    inputs = layers.Input(batch_shape=kernel.input_shape, name=INPUT)
    flow = inputs
    for number in range(kernel.layers):
        options = {"activation": "relu", "kernel_initializer": initializers.HeNormal(seed=number)}
        if kernel.window:
            flow = layers.Conv2D(kernel.channels, kernel.window, padding="same", **options)(flow)
        else:
            flow = layers.Dense(kernel.channels, **options)(flow)
    # A small output, or copying it out would be timed too.
    outputs = layers.GlobalAveragePooling2D()(flow) if kernel.window else flow
    return keras().Model(inputs, outputs)
