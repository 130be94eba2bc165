"""The best single sentence given to every image: the floor that a captioner must beat."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench.cider import ORDERS, Ngram, PreparedReferences, Vector, Words, length_penalty, prepare_references
from bench.quality import score_captions, split_references
from bench.result import ConstantCaption
from models.errors import DataError
from models.tokens import tokenize

# Exact scores cost a pass over all references each, so only the most promising candidates get one.
FINALISTS = 20


def best_constant_caption(candidates: Sequence[str], references: Mapping[str, Sequence[str]]) -> ConstantCaption:
    """The candidate with the highest mean CIDEr-D over all images.

    Candidates are sentences of the training set; references, by image id, are those of the test set.
    Raises DataError when either is empty.
    """
    distinct = {words: None for sentence in candidates if (words := tuple(tokenize(sentence)))}
    if not distinct or not references:
        raise DataError("a constant caption needs training sentences to choose from and test references.")
    prepared = prepare_references(split_references(references))
    finalists = _preselect(list(distinct), prepared)
    best = max(finalists, key=lambda words: _mean_score(prepared.vector(words), prepared))
    caption = " ".join(best)
    return ConstantCaption(caption, score_captions(dict.fromkeys(references, caption), references))


def _mean_score(caption: Vector, references: PreparedReferences) -> float:
    return sum(references.score(image, caption) for image in references.vectors) / len(references.vectors)


def _preselect(candidates: list[Words], references: PreparedReferences) -> list[Words]:
    """The most promising candidates by a score that is linear, thus one dot product each.

    Without CIDEr-D's clipping a sum of cosines is one product with the sum of all reference
    directions; the length penalty is taken on average.
    """
    direction = _summed_direction(references)
    lengths = Counter(reference.length for reference in _all_vectors(references))
    penalties = {
        length: sum(count * length_penalty(length - other) for other, count in lengths.items())
        for length in range(max(map(len, candidates)) + 1)
    }

    def promise(words: Words) -> float:
        vector = references.vector(words)
        return _product(vector, direction) * penalties[vector.length]

    return sorted(candidates, key=promise, reverse=True)[:FINALISTS]


def _summed_direction(references: PreparedReferences) -> Mapping[Ngram, float]:
    """The sum of all references' unit vectors; images weigh equally however many references they have."""
    total: defaultdict[Ngram, float] = defaultdict(float)
    for sentences in references.vectors.values():
        for reference in sentences:
            for ngram, weight in reference.weights.items():
                if weight:
                    total[ngram] += weight / (reference.norms[len(ngram) - 1] * len(sentences))
    return total


def _product(caption: Vector, direction: Mapping[Ngram, float]) -> float:
    products = [0.0] * ORDERS
    for ngram, weight in caption.weights.items():
        products[len(ngram) - 1] += weight * direction.get(ngram, 0.0)
    return sum(product / norm for product, norm in zip(products, caption.norms, strict=True) if norm)


def _all_vectors(references: PreparedReferences) -> Iterable[Vector]:
    return (vector for sentences in references.vectors.values() for vector in sentences)
