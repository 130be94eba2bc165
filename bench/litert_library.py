"""LiteRT's C interface, as far as its profiler needs it: LiteRT's Python classes offer none.

The package's library does (https://github.com/google-ai-edge/LiteRT/tree/main/litert/c: litert_compiled_model.h,
litert_profiler.h). The operators are those of LiteRT's CompiledModel, whose kernels (XNNPACK's, else LiteRT's own) are
the interpreter's too. Tried with ai-edge-litert 2.3.
"""

import ctypes
from collections.abc import Mapping
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from math import prod
from pathlib import Path
from typing import Any

from models.errors import CaptionbenchError

_CPU, _HOST_MEMORY, _WRITE, _FLOAT32 = 1, 1, 1, 1  # LiteRT's enumerations
# Output shapes are not known before a run; a dimension beyond the batch is given so much room.
_ROOM, _LEAST_BYTES = 4096, 1 << 20
# LiteRtLayout: the rank (7 bits), then 8 dimensions and 8 strides of 32 bits; an element type stands before it.
_RANK_BITS, _WORDS = 0x7F, 64


class ProfilerError(CaptionbenchError):
    """LiteRT gave no profile; the message says why."""


class _Library:
    """The C functions, each checked for its status."""

    def __init__(self) -> None:
        import ai_edge_litert

        self._library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).parent / "libLiteRt.so"))

    def __call__(self, name: str, *arguments: Any) -> None:
        try:
            status = getattr(self._library, f"LiteRt{name}")(*arguments)
        except AttributeError:
            raise ProfilerError(f"this LiteRT has no function LiteRt{name}") from None
        if status:
            raise ProfilerError(f"LiteRt{name} answered {status}")

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """Call a function whose last argument receives a new object."""
        made = c_void_p()
        self(name, *arguments, byref(made))
        return made


class ProfiledModel:
    """A model compiled for the CPU with the profiler on. Nothing is freed: the process ends when it is done."""

    def __init__(self, path: Path, threads: int) -> None:
        self.call = _Library()
        self.environment = self.call.make("CreateEnvironment", 0, None)
        model = self.call.make("CreateModelFromFile", self.environment, str(path).encode())
        self.model = self.call.make("CreateCompiledModel", self.environment, model, self._options(threads))
        self.signature = self.call.make("GetModelSignature", model, c_size_t(0))
        self.profiler = self.call.make("CompiledModelGetProfiler", self.model)
        if not self.profiler:
            raise ProfilerError("this LiteRT does not switch its profiler on")

    def _options(self, threads: int) -> c_void_p:
        """Options are TOML under names that LiteRT looks up."""
        options = self.call.make("CreateOptions")
        self.call("SetOptionsHardwareAccelerators", options, _CPU)
        self._keep = []
        keeps = ctypes.CFUNCTYPE(None, c_void_p)(lambda payload: None)
        for name, text in {
            "xnnpack": f"num_threads = {threads}",
            "runtime_options_string": "enable_profiling = true",
        }.items():
            payload = ctypes.create_string_buffer(text.encode())
            self._keep += [payload, keeps]
            more = self.call.make("CreateOpaqueOptions", name.encode(), ctypes.cast(payload, c_void_p), keeps)
            self.call("AddOpaqueOptions", options, more)
        return options

    def inputs(self, feeds: Mapping[str, Any]) -> Any:
        """Buffers filled with the feeds, after telling the model their shapes."""
        made = []
        for place in range(self._count("Input")):
            kind = self._type("Input", place)
            value = feeds.get(self._name(place))
            dims = list(value.shape) if value is not None else [max(1, size) for size in _dimensions(kind)]
            kind[2 : 2 + len(dims)] = dims
            sizes = (c_int * len(dims))(*dims)
            self.call(
                "CompiledModelResizeInputTensor", self.model, c_size_t(0), c_size_t(place), sizes, c_size_t(len(dims))
            )
            content = _random_bytes(kind[0], dims) if value is None else value.tobytes()
            made.append(self._buffer(kind, len(content), content))
        return (c_void_p * len(made))(*made)

    def outputs(self) -> Any:
        """Buffers with room enough."""
        made = []
        for place in range(self._count("Output")):
            kind = self._type("Output", place)
            dims = _dimensions(kind)
            room = _ROOM if any(size < 1 for size in dims[1:]) else 1
            kind[2 : 2 + len(dims)] = [max(1, size) for size in dims]
            made.append(self._buffer(kind, max(_LEAST_BYTES, 8 * room * prod(max(1, size) for size in dims))))
        return (c_void_p * len(made))(*made)

    def run(self, inputs: Any, outputs: Any, times: int) -> None:
        """Run the model so many times."""
        for _ in range(times):
            self.call(
                "RunCompiledModel",
                self.model,
                c_size_t(0),
                c_size_t(len(inputs)),
                inputs,
                c_size_t(len(outputs)),
                outputs,
            )

    def summary(self, inputs: Any, outputs: Any, times: int) -> str:
        """The profiler's own account of so many runs, as text."""
        self.call("ResetProfiler", self.profiler)
        self.call("StartProfiler", self.profiler)
        self.run(inputs, outputs, times)
        self.call("StopProfiler", self.profiler)
        text = c_char_p()
        self.call("GetProfileSummary", self.profiler, self.model, byref(text))
        return (text.value or b"").decode(errors="replace")

    def _count(self, side: str) -> int:
        number = c_size_t()
        self.call(f"GetNumSignature{side}s", self.signature, byref(number))
        return number.value

    def _name(self, place: int) -> str:
        name = c_char_p()
        self.call("GetSignatureInputName", self.signature, c_size_t(place), byref(name))
        return (name.value or b"").decode()

    def _type(self, side: str, place: int) -> Any:
        tensor = self.call.make(f"GetSignature{side}TensorByIndex", self.signature, c_size_t(place))
        kind = (c_int * _WORDS)()
        self.call("GetRankedTensorType", tensor, kind)
        return kind

    def _buffer(self, kind: Any, size: int, content: bytes = b"") -> c_void_p:
        buffer = self.call.make("CreateManagedTensorBuffer", self.environment, _HOST_MEMORY, kind, c_size_t(size))
        if content:
            address = c_void_p()
            self.call("LockTensorBuffer", buffer, byref(address), _WRITE)
            ctypes.memmove(address, content, len(content))
            self.call("UnlockTensorBuffer", buffer)
        return buffer


def _dimensions(kind: Any) -> list[int]:
    return list(kind[2 : 2 + (kind[1] & _RANK_BITS)])


def _random_bytes(element: int, dims: list[int]) -> bytes:
    import numpy as np

    if element == _FLOAT32:
        return np.random.default_rng(0).random(dims, np.float32).tobytes()
    return bytes(8 * prod(dims))  # enough for any element
