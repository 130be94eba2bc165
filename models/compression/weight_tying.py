"""One table for reading and writing words: `tie` replaces the last layer by a projection and the embedding.

Press and Wolf 2017 (arXiv 1608.05859). The tied captioner starts from the best approximation of the untied one, not
from noise: the last layer W (hidden, words) is split by its singular values into projection and table, and the
LSTM's input kernel is solved so that the new table says what the old one said.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.change import Change
from models.compression.finetuning import FineTuning, fine_tune
from models.compression.rebuilding import rebuild_decoder
from models.errors import ConfigError
from models.layers import Output


def check_tie(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for a captioner that is tied already."""
    if captioner.config.output == Output.TIED:
        raise ConfigError(f"'{ask}': the embedding and the last layer of '{captioner.name}' are tied already.")


def tie_weights(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Share the embedding with the last layer and fine-tune the decoder."""
    tied = rebuild_decoder(captioner, replace(captioner.config, output=Output.TIED.value), _tied_weights(captioner))
    tuning = FineTuning.of(ask, share=0.25, at_least=3, rate=0.5)
    return fine_tune(tied, ask, scope, context, tuning, Change())


def _tied_weights(captioner: Captioner) -> dict[str, list[Any]]:
    layers = captioner.decoder.sequence
    table = layers.get_layer("embedding").get_weights()[0]
    kernel, bias = layers.get_layer("words").get_weights()
    input_kernel, *rest = layers.get_layer("lstm").get_weights()
    projection, shared = _split(kernel, table.shape[1])
    # shared @ new_kernel = table @ input_kernel, as nearly as the shared table can.
    new_kernel = np.linalg.lstsq(shared, table @ input_kernel, rcond=1e-3)[0].astype(np.float32)
    return {
        "embedding": [shared],
        "lstm": [new_kernel, *rest],
        "words_projection": [projection, np.zeros(projection.shape[1], np.float32)],
        "words": [bias],
    }


def _split(kernel: NDArray[np.float32], size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Projection (hidden, size) and table (words, size) whose product is the nearest to `kernel` of that rank."""
    left, singular, right = np.linalg.svd(kernel, full_matrices=False)
    rank = min(size, len(singular))
    root = np.sqrt(singular[:rank])
    projection = np.zeros((kernel.shape[0], size), np.float32)
    table = np.zeros((kernel.shape[1], size), np.float32)
    projection[:, :rank], table[:, :rank] = left[:, :rank] * root, right[:rank].T * root
    return projection, table
