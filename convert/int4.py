"""Rounding of weights to INT4 with one scale for each block of inputs, and what could not be rounded and why.

Symmetric, because ONNX Runtime's AVX2 kernel of one row multiplies weights with zero points wrongly
(github.com/microsoft/onnxruntime/issues/29853).

The scale of a block minimizes the squared error of its weights: all of a grid of scales that cut off the largest
weights are tried, as in Choukroun et al. 2019 (arXiv 1902.06822), and the best is refined by turns: the
least-squares scale for the integers, the nearest integers for the scale.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Two's complement in four bits.
LOWEST, HIGHEST = -8, 7
# Scales tried for a block: shares of the one that reaches its largest weight.
_SHARES = np.linspace(0.5, 1.0, 26, dtype=np.float32)
_REFINEMENTS = 3
# Blocks that are searched at once: bounds the memory of a large table.
_BLOCKS_AT_ONCE = 16384


class KeptReason(StrEnum):
    """Why a weight is not INT4."""

    CONVOLUTION = "the runtime has no INT4 kernel for convolutions on CPUs"
    LAYOUT = "the runtime's INT4 kernels read no weight of this layout"
    SMALL = "the runtime's INT4 kernels are wrong for so few outputs"


@dataclass(frozen=True)
class KeptWeight:
    """A weight that an INT4 file holds at a higher precision."""

    name: str  # of the tensor
    operator: str  # as the format calls it
    elements: int
    reason: KeptReason


@dataclass(frozen=True)
class Int4Blocks:
    """Weights (outputs, inputs) as integers times the scale of their block of `block_size` consecutive inputs."""

    integers: NDArray[np.int8]  # (outputs, inputs), -8 to 7
    scales: NDArray[np.float32]  # (outputs, blocks); the last block may be cut short
    block_size: int

    @property
    def values(self) -> NDArray[np.float32]:
        """What a runtime multiplies by."""
        return dequantize_blocks(self.integers, self.scales, self.block_size)


def round_int4(weights: NDArray[Any], block_size: int, *, positive_scales: bool = False) -> Int4Blocks:
    """Round weights (outputs, inputs) to INT4 in blocks of inputs.

    A negative scale lets a block that has its largest weight on the positive side use -8 for it; runtimes that
    refuse negative scales ask for `positive_scales`.
    """
    outputs, inputs = weights.shape
    blocks = -(-inputs // block_size)
    padded = np.pad(weights.astype(np.float32), ((0, 0), (0, blocks * block_size - inputs)))
    flat = padded.reshape(outputs * blocks, block_size)
    scales = np.concatenate(
        [
            _best_scales(flat[start : start + _BLOCKS_AT_ONCE], positive_scales)
            for start in range(0, len(flat), _BLOCKS_AT_ONCE)
        ]
    )
    integers = _nearest(flat, scales).astype(np.int8).reshape(outputs, blocks * block_size)
    return Int4Blocks(integers[:, :inputs], scales.reshape(outputs, blocks), block_size)


def dequantize_blocks(
    integers: NDArray[Any], scales: NDArray[Any], block_size: int, zeros: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """(integers - zeros) * scales, integers (outputs, inputs), the others (outputs, blocks); no zeros are all 0."""
    inputs = integers.shape[-1]

    def spread(by_block: NDArray[Any]) -> NDArray[np.float32]:
        return np.repeat(by_block.astype(np.float32), block_size, axis=-1)[..., :inputs]

    shifted = integers.astype(np.float32) if zeros is None else integers.astype(np.float32) - spread(zeros)
    return shifted * spread(scales)


def pack_nibbles(integers: NDArray[Any]) -> NDArray[np.uint8]:
    """Four-bit integers, signed or not -> two in a byte along the last axis, the earlier in the low half."""
    even = np.pad(integers, [(0, 0)] * (integers.ndim - 1) + [(0, integers.shape[-1] % 2)])
    nibbles = even.astype(np.uint8) & np.uint8(0xF)
    packed: NDArray[np.uint8] = nibbles[..., 0::2] | (nibbles[..., 1::2] << np.uint8(4))
    return packed


def unpack_nibbles(packed: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Undo `pack_nibbles`: the first `count` numbers of the last axis, 0 to 15."""
    both = np.stack([packed & np.uint8(0xF), packed >> np.uint8(4)], axis=-1)
    return both.reshape(*packed.shape[:-1], -1)[..., :count]


def signed_nibbles(nibbles: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Two's complement: 0 to 15 -> 0 to 7, -8 to -1."""
    return (nibbles.astype(np.int8) ^ 8) - 8


def _best_scales(blocks: NDArray[np.float32], positive: bool) -> NDArray[np.float32]:
    """The scale (blocks,) of least squared error for each row (blocks, size)."""
    rows = np.arange(len(blocks))
    extreme = blocks[rows, np.abs(blocks).argmax(axis=1)]
    # Up to 7 the largest weight keeps its sign; at -8 it is the other end that has room to spare.
    widest = [np.abs(extreme) / HIGHEST] if positive else [np.abs(extreme) / HIGHEST, extreme / LOWEST]
    best = np.where(extreme == 0, np.float32(1), widest[0]).astype(np.float32)
    error = _errors(blocks, best)
    for candidate in (side * share for side in widest for share in _SHARES):
        best, error = _better(blocks, best, error, np.where(extreme == 0, np.float32(1), candidate))
    for _ in range(_REFINEMENTS):
        best, error = _better(blocks, best, error, _least_squares(blocks, best))
    return best


def _better(
    blocks: NDArray[np.float32], best: NDArray[np.float32], error: NDArray[np.float32], candidate: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The better of two scales for each block, and its error."""
    found = _errors(blocks, candidate)
    return np.where(found < error, candidate, best), np.minimum(found, error)


def _least_squares(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scales that fit best to the integers that `scales` give; those themselves where all integers are 0."""
    integers = _nearest(blocks, scales)
    squares = (integers**2).sum(axis=1)
    fitted = (blocks * integers).sum(axis=1) / np.maximum(squares, 1)
    return np.where((squares > 0) & (fitted != 0), fitted, scales).astype(np.float32)


def _nearest(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    nearest: NDArray[np.float32] = np.clip(np.rint(blocks / scales[:, None]), LOWEST, HIGHEST)
    return nearest


def _errors(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    squared: NDArray[np.float32] = ((_nearest(blocks, scales) * scales[:, None] - blocks) ** 2).sum(axis=1)
    return squared
