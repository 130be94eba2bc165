"""What to train: the frozen description of a captioner, hashed into the address of what it becomes."""

from dataclasses import dataclass
from enum import StrEnum


class EncoderTraining(StrEnum):
    """Whether the encoder learns with the decoder."""

    FROZEN = "frozen"  # features are computed once and cached
    TRAINED = "trained"


@dataclass(frozen=True)
class CaptionerSpec:
    """A captioner to train. `weights`: "imagenet", "random" or a path, see `models.encoders.build_encoder`."""

    name: str
    encoder: str
    decoder: str
    weights: str = "imagenet"
    encoder_training: EncoderTraining = EncoderTraining.FROZEN
    embedding: int = 256
    units: int = 512
    attention: int = 256
    dropout: float = 0.5
    minimum_count: int = 5
    max_length: int = 20
    epochs: int = 12
    batch: int = 64  # captions, or images with all their captions when the encoder learns too
    learning_rate: float = 4e-4
    captions_per_epoch: int = 5  # of each image, drawn anew every epoch
    patience: int = 3  # epochs without a better validation CIDEr before training ends
    seed: int = 2012
    # Share of the target spread over all words (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    label_smoothing: float = 0.0
    # Momentum of a running mean of the weights, a step at a time, which is what is validated and kept; 0: none
    # (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407, on why it generalizes).
    weight_averaging: float = 0.0

    @property
    def sees_nothing(self) -> bool:
        """Whether the encoder's weights are random and stay so: such a captioner has a size and a speed, no quality."""
        return self.weights == "random" and self.encoder_training is EncoderTraining.FROZEN
