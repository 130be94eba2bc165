"""A captioner: encoder + decoder + vocabulary + preprocessing contract, in Keras; saved and loaded as a folder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compression.encoder_qat import FILES as QUANTIZED_ENCODER_FILES
from models.compression.encoder_qat import is_quantized, load_quantized_encoder, save_quantized_encoder
from models.decoders import STATES, Decoder, DecoderConfig, build_decoder
from models.decoding import Search, Tensors, decode
from models.errors import ArtifactError
from models.files import write_text_atomic
from models.keras import keras
from models.preprocessing import Preprocessing
from models.vocabulary import Vocabulary

FILES = ("captioner.json", "vocabulary.json", "decoder.weights.h5")
ENCODER_FILE = "encoder.keras"


@dataclass(frozen=True)
class Captioner:
    """`encoder`: image -> raw features (Keras). `card` holds facts for the reader: names, seed, training history."""

    name: str
    encoder: Any
    decoder: Decoder
    config: DecoderConfig
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    max_length: int  # most words of a caption, END included
    card: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """Weights of encoder and decoder."""
        return int(self.encoder.count_params()) + int(self.decoder.sequence.count_params())


def encoder_graph(captioner: Captioner) -> Any:
    """The deployable encoder: `image` -> what the step needs (features, and the initial state where it has one)."""
    image = captioner.encoder.input
    return keras().Model(image, captioner.decoder.prepare(captioner.encoder(image)), name="encoder")


def caption_features(
    captioner: Captioner, raw: NDArray[np.floating[Any]], *, search: Search, batch: int = 250
) -> list[str]:
    """Caption raw encoder features in Keras; used while training."""
    sentences = []
    for start in range(0, len(raw), batch):
        prepared = captioner.decoder.prepare(np.asarray(raw[start : start + batch], np.float32), training=False)
        inputs = initial_inputs({name: value.numpy() for name, value in prepared.items()}, captioner.config.units)
        captions = decode(keras_step(captioner.decoder), inputs, search=search, max_length=captioner.max_length)
        sentences += [captioner.vocabulary.decode(caption.ids) for caption in captions]
    return sentences


def initial_inputs(prepared: Tensors, units: int) -> Tensors:
    """What the first step takes: the prepared tensors, and zeros for a state that does not depend on the image."""
    rows = len(next(iter(prepared.values())))
    zeros = {name: np.zeros((rows, units), np.float32) for name in STATES}
    return zeros | dict(prepared)


def keras_step(decoder: Decoder) -> Any:
    """The decoder as a step for `decode`, in Keras."""

    def step(token: NDArray[np.int32], inputs: Tensors) -> tuple[NDArray[np.float32], Tensors]:
        outputs = {k: v.numpy() for k, v in decoder.step({"token": token, **inputs}, training=False).items()}
        return outputs.pop("logits"), outputs

    return step


def save_captioner(captioner: Captioner, folder: Path) -> None:
    """Write `FILES` and the encoder into an existing folder (the store makes the folder appear whole)."""
    if is_quantized(captioner.encoder):
        save_quantized_encoder(captioner.encoder, folder)
    else:
        captioner.encoder.save(folder / ENCODER_FILE)
    captioner.decoder.sequence.save_weights(folder / "decoder.weights.h5")
    captioner.vocabulary.save(folder / "vocabulary.json")
    table = {
        "name": captioner.name,
        "decoder": dataclasses.asdict(captioner.config),
        "preprocessing": captioner.preprocessing.to_json(),
        "max_length": captioner.max_length,
        "card": dict(captioner.card),
    }
    write_text_atomic(folder / "captioner.json", json.dumps(table, indent=1) + "\n")


def load_captioner(folder: Path) -> Captioner:
    """Read what `save_captioner` wrote. Raises ArtifactError when a file is missing or malformed."""
    table = read_captioner_table(folder)
    try:
        raw_shape = tuple(table["decoder"].pop("raw_shape"))
        config = DecoderConfig(raw_shape=raw_shape, **table["decoder"])
        decoder = build_decoder(config)
        decoder.sequence.load_weights(folder / "decoder.weights.h5")
        encoder = _load_encoder(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{folder} is not a whole captioner: {error}. Remove it and train again.") from error
    return Captioner(
        table["name"],
        encoder,
        decoder,
        config,
        Vocabulary.load(folder / "vocabulary.json"),
        Preprocessing.from_json(table["preprocessing"]),
        table["max_length"],
        table["card"],
    )


def _load_encoder(folder: Path) -> Any:
    if (folder / ENCODER_FILE).is_file():
        return keras().models.load_model(folder / ENCODER_FILE, compile=False)
    return load_quantized_encoder(folder)


def captioner_files(folder: Path) -> list[Path]:
    """The files of a saved captioner. Raises ArtifactError naming those that are missing."""
    encoder = QUANTIZED_ENCODER_FILES if (folder / QUANTIZED_ENCODER_FILES[0]).is_file() else (ENCODER_FILE,)
    files = [folder / name for name in (*FILES, *encoder)]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ArtifactError(f"{folder} is not a captioner: it lacks {', '.join(missing)}. Train it again.")
    return files


def read_captioner_table(folder: Path) -> dict[str, Any]:
    """The JSON of a saved captioner, without loading Keras. Raises ArtifactError."""
    captioner_files(folder)
    try:
        table: dict[str, Any] = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{folder}/captioner.json is damaged: {error}. Train it again.") from error
    return table


def sentences_by_image(captioner: Captioner, images: Sequence[str], raw: NDArray[Any]) -> dict[str, str]:
    """Greedy captions by image id."""
    return dict(zip(images, caption_features(captioner, raw, search=Search.GREEDY), strict=True))
