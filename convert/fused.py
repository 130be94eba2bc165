"""Fused graphs: one file that takes an image and returns the ids of its greedy caption, the loop inside.

A fused file is not converted anew: it is the encoder and the step of the same precision, put together as they are. So
it says what they say, whatever the precision is and however its ranges were found. See `convert.fused_onnx` (Loop) and
`convert.fused_tflite` (WHILE); the SavedModel, which is only fp32, is traced by `convert.fused_tensorflow`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.recipe import Format
from models.decoding import FORBIDDEN
from models.errors import UnsupportedError

# Tensors of the contract: float32 (1, height, width, 3) -> int32 (1, max_length), PAD behind END, and float32 (1,).
IMAGE, IDS, LOG_PROBABILITY = "image", "ids", "log_probability"


@dataclass(frozen=True)
class GreedyLoop:
    """What a fused graph must know of its captioner besides encoder and step."""

    max_length: int  # most words of a caption, END included
    units: int  # width of the state tensors
    words: int  # in the vocabulary

    def penalties(self) -> NDArray[np.float32]:
        """Float32 (1, words), added to the logits: minus infinity for what is never said, 0 for the rest."""
        row = np.zeros((1, self.words), np.float32)
        row[0, list(FORBIDDEN)] = -np.inf
        return row


def fuse(format_: Format, encoder: Path, step: Path, loop: GreedyLoop) -> bytes:
    """The content of one file that does what the files `encoder` and `step` do in a greedy loop, at a batch of 1.

    Raises UnsupportedError for a format whose files can't be put together, ConversionError when these can't.
    """
    if format_ is Format.ONNX:
        from convert.fused_onnx import fuse_onnx

        return fuse_onnx(encoder, step, loop)
    if format_ is Format.TFLITE:
        from convert.fused_tflite import fuse_tflite

        return fuse_tflite(encoder, step, loop)
    raise UnsupportedError(
        f"format '{format_}' has no fused graph: its files hold layers, and the decode loop is none. "
        "Ask for saved_model, tflite or onnx."
    )
