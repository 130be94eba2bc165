"""The registry of techniques: a new one costs one module and one line here.

What a name means in a chain is parsed by `models.compression.chain`.
"""

from models.compression.base import Scope, Stage, Technique
from models.compression.clustering import check_cluster, cluster
from models.compression.distillation import (
    FEATURE_OPTIONS,
    WORD_OPTIONS,
    check_distill_features,
    check_student,
    distill_captions,
    distill_features,
    distill_words,
    train_student,
)
from models.compression.distillation import OPTIONS as STUDENT_OPTIONS
from models.compression.dsd import check_dsd, dense_sparse_dense
from models.compression.finetuning import OPTIONS
from models.compression.more_training import check_train_on, train_on
from models.compression.pruning import check_prune, check_two_of_four, prune, prune_two_of_four
from models.compression.qat import check_qat, train_quantized
from models.compression.structured import check_slim, slim
from models.compression.vocabulary_reduction import check_vocabulary, reduce_vocabulary
from models.compression.weight_rounding import check_round, round_weights
from models.compression.weight_tying import check_tie, tie_weights

_SHARES = tuple(range(1, 100))
_SCHEDULED = (*OPTIONS, "schedule")
_TUNED = ("epochs", "rate")
_SLIM = (*_TUNED, "images")
_CAPTIONER, _ENCODER, _DECODER = (Scope.CAPTIONER,), (Scope.ENCODER,), (Scope.DECODER,)

TECHNIQUES: dict[str, Technique] = {
    "prune": Technique(
        Stage.SPARSITY, prune, "zero the smallest N % of weights", _SHARES, _SCHEDULED, check=check_prune, revision=2
    ),
    "two_of_four": Technique(
        Stage.SPARSITY,
        prune_two_of_four,
        "zero two of every four inputs",
        (),
        OPTIONS,
        check=check_two_of_four,
        revision=2,
    ),
    "cluster": Technique(
        Stage.SHARING, cluster, "share N values in each tensor", tuple(range(2, 257)), OPTIONS, check=check_cluster
    ),
    "dsd": Technique(
        Stage.RETRAIN, dense_sparse_dense, "train N % sparse, then dense", _SHARES, _SCHEDULED, check=check_dsd
    ),
    "slim": Technique(
        Stage.SHAPE, slim, "remove filters and units to N % of the multiply-adds", _SHARES, _SLIM, check=check_slim
    ),
    "qat": Technique(
        Stage.ROUNDING,
        train_quantized,
        "train with the rounding of INT8",
        (),
        (*_TUNED, "layers", "images", "train"),
        check=check_qat,
    ),
    "round": Technique(
        Stage.ROUNDING,
        round_weights,
        "round weights to INT8, each making up for those before it; no training",
        (),
        ("images",),
        _ENCODER,
        check_round,
        learns=False,
    ),
    "student": Technique(
        Stage.STUDENT,
        train_student,
        "N % of the width, no teacher",
        _SHARES,
        STUDENT_OPTIONS,
        _CAPTIONER,
        check_student,
    ),
    "distill_words": Technique(
        Stage.STUDENT, distill_words, "N % of the width, soft words", _SHARES, WORD_OPTIONS, _CAPTIONER, check_student
    ),
    "distill_captions": Technique(
        Stage.STUDENT,
        distill_captions,
        "N % of the width, beam captions",
        _SHARES,
        STUDENT_OPTIONS,
        _CAPTIONER,
        check_student,
    ),
    "distill_features": Technique(
        Stage.STUDENT,
        distill_features,
        "an encoder of N % of the width that learns features",
        (*_SHARES, 100),
        FEATURE_OPTIONS,
        _ENCODER,
        check_distill_features,
    ),
    "vocabulary": Technique(
        Stage.SHAPE, reduce_vocabulary, "keep N % of the words", _SHARES, _TUNED, _DECODER, check_vocabulary
    ),
    "tie": Technique(
        Stage.SHAPE, tie_weights, "one table for reading and writing words", (), _TUNED, _DECODER, check_tie
    ),
    "train_on": Technique(
        Stage.RETRAIN, train_on, "more training, no compression: the control", (), _TUNED, check=check_train_on
    ),
}
