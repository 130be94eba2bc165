"""CIDEr-D: tf-idf weighted n-gram agreement with the references of an image.

Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015,
arXiv 1411.5726; the constants are those of coco-caption, whose numbers these are: n-grams up to 4,
a Gaussian length penalty of sigma 6, inverse document frequencies from the test references, times 10.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
SIGMA = 6.0
SCALE = 10.0

Ngram = tuple[str, ...]
Words = Sequence[str]


@dataclass(frozen=True, slots=True)
class Vector:
    """One sentence: the tf-idf weight of each n-gram, their norm for each order, and its length."""

    weights: Mapping[Ngram, float]
    norms: tuple[float, ...]
    length: int


@dataclass(frozen=True, slots=True)
class PreparedReferences:
    """The references of a test set as vectors by image, with the document frequencies they give."""

    frequencies: Mapping[Ngram, int]
    vectors: Mapping[str, tuple[Vector, ...]]

    def vector(self, words: Words) -> Vector:
        """A sentence in the space of these references."""
        return _vector(words, self.frequencies, len(self.vectors))

    def score(self, image: str, caption: Vector) -> float:
        """CIDEr-D (0..10) of one caption of one image."""
        references = self.vectors[image]
        return SCALE * sum(_similarity(caption, reference) for reference in references) / len(references)


def prepare_references(references: Mapping[str, Sequence[Words]]) -> PreparedReferences:
    """Count in how many images each n-gram occurs, then weight every reference."""
    frequencies = Counter(ngram for sentences in references.values() for ngram in _distinct(sentences))
    vectors = {
        image: tuple(_vector(words, frequencies, len(references)) for words in sentences)
        for image, sentences in references.items()
    }
    return PreparedReferences(frequencies, vectors)


def cider_scores(captions: Mapping[str, Words], references: PreparedReferences) -> NDArray[np.float64]:
    """CIDEr-D (0..10) of each caption, in the order of `captions`. All 0 with one image: no word is rare."""
    return np.array(
        [references.score(image, references.vector(words)) for image, words in captions.items()],
        dtype=np.float64,
    )


def length_penalty(difference: float) -> float:
    """What a caption keeps of its score when it is longer or shorter than the reference by this."""
    return math.exp(-(difference**2) / (2 * SIGMA**2))


def _distinct(sentences: Iterable[Words]) -> set[Ngram]:
    return {ngram for words in sentences for ngram in _ngrams(words)}


def _ngrams(words: Words) -> list[Ngram]:
    return [
        tuple(words[start : start + order]) for order in range(1, ORDERS + 1) for start in range(len(words) - order + 1)
    ]


def _vector(words: Words, frequencies: Mapping[Ngram, int], images: int) -> Vector:
    log_images = math.log(images)
    # An n-gram that no reference holds is as rare as one that a single image holds.
    weights = {
        ngram: count * (log_images - math.log(frequencies.get(ngram, 1)))
        for ngram, count in Counter(_ngrams(words)).items()
    }
    squares = [0.0] * ORDERS
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight * weight
    # coco-caption counts bigrams for the length: no words and one word are equally long.
    return Vector(weights, tuple(math.sqrt(square) for square in squares), max(0, len(words) - 1))


def _similarity(caption: Vector, reference: Vector) -> float:
    """Mean over the orders of the clipped cosine, times the length penalty."""
    products = [0.0] * ORDERS
    for ngram, weight in caption.weights.items():
        other = reference.weights.get(ngram)
        if other is not None:
            products[len(ngram) - 1] += min(weight, other) * other
    cosines = (
        product / (norm * other_norm)
        for product, norm, other_norm in zip(products, caption.norms, reference.norms, strict=True)
        if product
    )
    return length_penalty(caption.length - reference.length) * sum(cosines) / ORDERS
