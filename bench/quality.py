"""Caption quality: BLEU-1..4, ROUGE-L and CIDEr-D as coco-caption computes them, with intervals.

START and END are never counted, but for the one protocol named `paper_*`, which continues the 2020 study
that this suite grew from. The numbers differ from coco-caption's in two ways: its tokenizer (see
models.tokens), and ROUGE-L of an empty caption against an empty reference, 0 here and 1 there, where ""
splits into one empty word. Captions and references are keyed by image id.
"""

import string
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from nltk.translate.bleu_score import closest_ref_length, modified_precision

from bench.cider import Words, cider_scores, prepare_references
from bench.result import Quality
from bench.statistics import FloatArray, bootstrap_ci95
from models.errors import DataError
from models.tokens import tokenize

# A compressed captioner with fewer than this share of the dense one's different captions has collapsed.
COLLAPSED_SHARE = 0.5
ROUGE_BETA = 1.2  # recall weighs 1.44 times precision (coco-caption)

# Added to coco-caption's numerators and denominators, so that no match is 0 and never 0 / 0.
_TINY, _SMALL = 1e-15, 1e-9
_ORDERS = np.arange(1, 5)

# The study kept the weights and the cleaning of its tutorial (Brownlee 2017); those of BLEU-3 sum to 0.9,
# which flatters it:
# https://machinelearningmastery.com/develop-a-deep-learning-caption-generation-model-in-python/
# Proof that this is the study's protocol: "two dogs are running through the grass" given to all 1000 test
# images of Flickr8k scores 0.418220, 0.169478, 0.107443, 0.043284 here, to the last digit what its notebooks
# print for four of its models (github.com/amanmohanty/idl-nncompress, decoder_train.ipynb and
# decoder_pruning.ipynb).
_PAPER_WEIGHTS = ((1.0,), (0.5, 0.5), (0.3, 0.3, 0.3), (0.25, 0.25, 0.25, 0.25))
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

Captions = Mapping[str, str]
References = Mapping[str, Sequence[str]]
WordCaptions = dict[str, Words]
WordReferences = dict[str, list[Words]]


def score_captions(captions: Captions, references: References, *, seed: int = 2012, resamples: int = 1000) -> Quality:
    """Score one caption an image; intervals are bootstraps over images.

    Raises DataError when there is nothing to score or captions and references are of different images.
    """
    words, reference_words = _split(captions, references)
    counts = _bleu_counts(words, reference_words)
    bleu = _coco_bleu(counts.sum(axis=0))
    cider = cider_scores(words, prepare_references(reference_words))
    paper = _paper_bleu(captions, references)
    return Quality(
        protocol=_protocol(references),
        bleu_1=float(bleu[0]),
        bleu_2=float(bleu[1]),
        bleu_3=float(bleu[2]),
        bleu_4=float(bleu[3]),
        cider=float(cider.mean()),
        rouge_l=float(np.mean([_rouge_l(words[image], reference_words[image]) for image in words])),
        bleu_4_ci95=bootstrap_ci95(counts, lambda sums: _coco_bleu(sums)[:, 3], seed=seed, resamples=resamples),
        cider_ci95=_mean_ci95(cider, seed=seed, resamples=resamples),
        paper_bleu_1=paper[0],
        paper_bleu_2=paper[1],
        paper_bleu_3=paper[2],
        paper_bleu_4=paper[3],
        images=len(words),
        caption_length_mean=float(np.mean([len(caption) for caption in words.values()])),
        distinct_captions=len({tuple(caption) for caption in words.values()}),
    )


def cider_mean(captions: Captions, references: References) -> float:
    """CIDEr-D (0..10) alone: cheap enough for every epoch. Raises DataError as `score_captions` does."""
    words, reference_words = _split(captions, references)
    return float(cider_scores(words, prepare_references(reference_words)).mean())


def paired_difference_ci95(
    captions: Captions,
    baseline: Captions,
    references: References,
    *,
    seed: int = 2012,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % interval of CIDEr-D of `captions` minus that of `baseline`, the same images drawn for both.

    An interval without 0 is a difference. Raises DataError as `score_captions` does.
    """
    words, theirs, reference_words = _split_both(captions, baseline, references)
    return _cider_difference_ci95(words, theirs, reference_words, seed=seed, resamples=resamples)


def paired_differences(
    captions: Captions,
    baseline: Captions,
    references: References,
    *,
    seed: int = 2012,
    resamples: int = 1000,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals of CIDEr-D and of BLEU-4 of `captions` minus those of `baseline`, in this order.

    Each bootstrap draws the same images for both sides, so that what makes an image hard cancels out (paired
    bootstrap: Koehn 2004, "Statistical significance tests for machine translation evaluation", section 4). BLEU is
    that of the drawn images' summed counts, not a mean over images. An interval without 0 is a difference. Raises
    DataError as `score_captions` does.
    """
    words, theirs, reference_words = _split_both(captions, baseline, references)
    cider = _cider_difference_ci95(words, theirs, reference_words, seed=seed, resamples=resamples)
    counts = np.hstack([_bleu_counts(words, reference_words), _bleu_counts(theirs, reference_words)])
    half = counts.shape[1] // 2

    def bleu_4_difference(sums: FloatArray) -> FloatArray:
        mine, base = _coco_bleu(sums[:, :half]), _coco_bleu(sums[:, half:])
        difference: FloatArray = mine[:, 3] - base[:, 3]
        return difference

    return cider, bootstrap_ci95(counts, bleu_4_difference, seed=seed, resamples=resamples)


def _split_both(
    captions: Captions, baseline: Captions, references: References
) -> tuple[WordCaptions, WordCaptions, WordReferences]:
    """The words of two sets of captions in one order of images, and of the references."""
    words, reference_words = _split(captions, references)
    theirs, _ = _split(baseline, references)
    return words, {image: theirs[image] for image in words}, reference_words


def _cider_difference_ci95(
    words: WordCaptions, theirs: WordCaptions, references: WordReferences, *, seed: int, resamples: int
) -> tuple[float, float]:
    prepared = prepare_references(references)
    differences = cider_scores(words, prepared) - cider_scores(theirs, prepared)
    return _mean_ci95(differences, seed=seed, resamples=resamples)


def split_references(references: References) -> WordReferences:
    """The words of all references. Raises DataError when an image has none."""
    for image, sentences in references.items():
        # A lone string is a sequence of one-letter sentences: never what was meant.
        if isinstance(sentences, str) or not sentences:
            raise DataError(f"image '{image}' needs a list of references; received {sentences!r}.")
    return {image: [tokenize(sentence) for sentence in references[image]] for image in references}


def _split(captions: Captions, references: References) -> tuple[WordCaptions, WordReferences]:
    if not captions:
        raise DataError("no captions to score; caption at least one image.")
    for images, problem in (
        (captions.keys() - references.keys(), "captions without references"),
        (references.keys() - captions.keys(), "references without captions"),
    ):
        if images:
            shown = ", ".join(islice(sorted(images), 3))
            raise DataError(f"{len(images)} {problem} ({shown}...); both must be of the same images.")
    return {image: tokenize(caption) for image, caption in captions.items()}, split_references(references)


def _protocol(references: References) -> str:
    """What was compared with what, in one line: two scores compare only if these are equal."""
    numbers = sorted({len(sentences) for sentences in references.values()})
    span = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
    return f"coco|tok:captionbench-1|case:lower|refs:{span}|markers:no|bleu:closest-len|cider:D,n4,s6,idf:test|v1"


def _mean_ci95(scores: FloatArray, *, seed: int, resamples: int) -> tuple[float, float]:
    return bootstrap_ci95(scores[:, None], lambda sums: sums[:, 0] / len(scores), seed=seed, resamples=resamples)


def _bleu_counts(captions: WordCaptions, references: WordReferences) -> FloatArray:
    """A row for each image: matches of order 1..4, n-grams of order 1..4, length, reference length."""
    return np.array([_image_counts(words, references[image]) for image, words in captions.items()], dtype=np.float64)


def _image_counts(words: Words, references: Sequence[Words]) -> list[int]:
    matches = [modified_precision(references, words, int(order)).numerator for order in _ORDERS]
    # NLTK's denominators are at least 1, coco-caption's are 0 where the caption is too short.
    ngrams = [max(0, len(words) - int(order) + 1) for order in _ORDERS]
    return [*matches, *ngrams, len(words), closest_ref_length(references, len(words))]


def _coco_bleu(sums: FloatArray) -> FloatArray:
    """BLEU-1..4 of summed counts (last axis), smoothed like coco-caption's bleu_scorer.py."""
    precisions = (sums[..., 0:4] + _TINY) / (sums[..., 4:8] + _SMALL)
    ratio = (sums[..., 8:9] + _TINY) / (sums[..., 9:10] + _SMALL)
    brevity_penalty = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    bleu: FloatArray = np.cumprod(precisions, axis=-1) ** (1 / _ORDERS) * brevity_penalty
    return bleu


def _paper_bleu(captions: Captions, references: References) -> list[float]:
    """BLEU-1..4 of the 2020 study: NLTK's corpus_bleu, markers counted, no smoothing.

    corpus_bleu leaves an order without a match out, which prints BLEU-4 above BLEU-2; here it makes 0.
    """
    counts = _bleu_counts(
        {image: _paper_words(caption) for image, caption in captions.items()},
        {image: [_paper_words(sentence) for sentence in references[image]] for image in captions},
    )
    counts[:, 4:8] = np.maximum(counts[:, 4:8], 1)  # as NLTK counts captions that are too short
    sums = counts.sum(axis=0)
    precisions = sums[0:4] / sums[4:8]
    brevity_penalty = np.exp(min(0.0, 1 - sums[9] / sums[8]))  # markers: the length is never 0
    return [
        float(brevity_penalty * np.prod(precisions[: len(weights)] ** np.array(weights))) for weights in _PAPER_WEIGHTS
    ]


def _paper_words(sentence: str) -> list[str]:
    """The tutorial's cleaning: lower case, no punctuation, no one-letter words, letters only."""
    words = (word.translate(_NO_PUNCTUATION) for word in sentence.lower().split())
    return ["startseq", *(word for word in words if len(word) > 1 and word.isalpha()), "endseq"]


def _rouge_l(words: Words, references: Sequence[Words]) -> float:
    """ROUGE-L (Lin 2004): the best precision and the best recall over references, apart, as in coco."""
    common = [_common_subsequence(words, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(words)
    recall = max(n / len(reference) for n, reference in zip(common, references, strict=True) if n)
    beta = ROUGE_BETA**2
    return (1 + beta) * precision * recall / (recall + beta * precision)


def _common_subsequence(a: Words, b: Words) -> int:
    """Length of the longest common subsequence, one row at a time."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for column, other in enumerate(b, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]
