"""What weights must obey while they learn: masks of zeros, and values shared by clusters.

A technique that was applied before is recognised by its traces in the weights, so that any later
fine-tuning keeps them (PQAT, CQAT, PCQAT and sparsity-preserving clustering follow from this).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.compression.weights import Weight
from models.keras import tensorflow

# Fewer zeros than this are chance; a pruned tensor has more.
SPARSE_FROM = 0.05
# TF-MOT clusters to at most a few hundred values; float weights that nobody clustered hardly repeat one.
CLUSTERED_UP_TO = 257


class KeptZeros:
    """Weights that are zero stay zero."""

    def __init__(self, weight: Weight) -> None:
        self._variable = weight.variable
        self._mask = tensorflow().Variable((weight.values != 0).astype(np.float32), trainable=False)

    def restore(self, step: int) -> None:
        """See Constraint. A checkpoint's weights obey already."""

    def apply(self, step: Any) -> None:
        """Zero them again."""
        self._variable.assign(self._variable * self._mask)

    def settled_from(self) -> int:
        """Always."""
        return 0


class SharedValues:
    """Weights with the same value keep sharing one: each becomes the mean of its cluster after a step.

    A cluster moves by the mean of its members' updates (Han et al. 2016, "Deep compression", arXiv 1510.00149,
    section 3, sum their gradients; Adam's steps do not grow with the sum). The value 0 stays 0.
    """

    def __init__(self, weight: Weight) -> None:
        tf = tensorflow()
        self._weight = weight
        values, index = np.unique(weight.values, return_inverse=True)
        self._index = tf.Variable(index.reshape(-1).astype(np.int32), trainable=False)
        self._count = len(values)
        self._keep = tf.constant((values != 0).astype(np.float32))

    def restore(self, step: int) -> None:
        """See Constraint. Clusters are read off the weights again."""
        values, index = np.unique(self._weight.values, return_inverse=True)
        if step and len(values) == self._count:
            self._index.assign(index.reshape(-1).astype(np.int32))
            self._keep = tensorflow().constant((values != 0).astype(np.float32))

    def apply(self, step: Any) -> None:
        """Average over clusters."""
        tf = tensorflow()
        variable = self._weight.variable
        means = tf.math.unsorted_segment_mean(tf.reshape(variable, [-1]), self._index, self._count) * self._keep
        variable.assign(tf.reshape(tf.gather(means, self._index), variable.shape))

    def settled_from(self) -> int:
        """Always."""
        return 0


def is_sparse(weight: Weight) -> bool:
    """Whether a technique put zeros here."""
    return weight.reached().zeros >= SPARSE_FROM


def is_clustered(weight: Weight) -> bool:
    """Whether a technique made values shared here."""
    reached = weight.reached()
    return reached.values <= CLUSTERED_UP_TO and reached.values < reached.elements / 4


def kept_structure(weights: Sequence[Weight]) -> list[KeptZeros | SharedValues]:
    """The constraints that keep what earlier techniques made of these weights."""
    kept: list[KeptZeros | SharedValues] = []
    for weight in weights:
        if is_clustered(weight):
            kept.append(SharedValues(weight))
        elif is_sparse(weight):
            kept.append(KeptZeros(weight))
    return kept
