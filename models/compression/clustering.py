"""Weight sharing on TF-MOT's centroids: `cluster16` leaves 16 different values in each tensor.

TF-MOT finds the centroids (k-means++ on the values) and the assignment; training then moves the centroids with
the assignment fixed. Zeros that a pruning made stay zero and are the cluster of their own.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Scope
from models.compression.batch_norm import fold_batch_norms
from models.compression.change import Change
from models.compression.constraints import SharedValues, is_sparse
from models.compression.finetuning import FineTuning, fine_tune
from models.compression.weights import choose_weights
from models.errors import CompressionError, ConfigError
from models.fitting import Constraint
from models.keras import keras, model_optimization, tensorflow

LLOYD_ITERATIONS = 12


def check_cluster(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for layers that do not exist or have fewer weights than centroids."""
    for weight in choose_weights(captioner, ask, scope):
        if weight.variable.shape.num_elements() <= 2 * (ask.amount or 0):
            raise ConfigError(f"'{ask}': {weight.layer} has only {weight.variable.shape.num_elements()} weights.")


def cluster(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Share `amount` values (zero included where the tensor is pruned) in each chosen tensor, and fine-tune them."""
    if scope is not Scope.DECODER:
        captioner = replace(captioner, encoder=fold_batch_norms(captioner.encoder))
    keras().utils.set_random_seed(context.spec.seed)  # k-means++ draws its first centroids
    weights = choose_weights(captioner, ask, scope)
    count = ask.amount or 0

    def share() -> None:
        for weight in weights:
            weight.variable.assign(shared_values(weight.values, count, keep_zeros=is_sparse(weight)))

    def constraints(steps: int) -> list[Constraint]:
        return [SharedValues(weight) for weight in weights]

    tuning = FineTuning.of(ask, share=0.25, at_least=3, rate=0.2)
    outcome = fine_tune(captioner, ask, scope, context, tuning, Change(share, weights, constraints))
    many = [f"{r.layer}/{r.weight} {r.values}" for r in outcome.reached if r.values > count]
    if many:
        raise CompressionError(f"'{ask}' left more than {count} values: {', '.join(many)}.")
    return outcome


def shared_values(values: NDArray[np.float32], count: int, *, keep_zeros: bool) -> NDArray[np.float32]:
    """`values` with each replaced by the nearest of `count` centroids; zeros stay when `keep_zeros`."""
    chosen = values[values != 0] if keep_zeros else values.reshape(-1)
    centroids = _centroids(chosen, count - 1 if keep_zeros else count)
    shared = centroids[_nearest(chosen, centroids)]
    if not keep_zeros:
        return shared.reshape(values.shape)
    result = np.zeros_like(values)
    result[values != 0] = shared
    return result


def _centroids(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """TF-MOT's k-means++ start, then Lloyd's iterations, which TF-MOT leaves to training. Sorted."""
    # A sample is enough to start from, and k-means++ is slow on millions.
    sample = values[:: max(1, len(values) // 50_000)]
    centroids = np.sort(np.asarray(_initializer()(sample, count), np.float32))
    for _ in range(LLOYD_ITERATIONS):
        index = _nearest(values, centroids)
        sums = np.bincount(index, weights=values, minlength=count)
        sizes = np.bincount(index, minlength=count)
        centroids = np.sort(np.where(sizes > 0, sums / np.maximum(sizes, 1), centroids).astype(np.float32))
    return centroids


def _nearest(values: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.intp]:
    """Index of the nearest of sorted centroids: they part the line at their midpoints."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)


def _initializer() -> Any:
    model_optimization()
    from tensorflow_model_optimization.python.core.clustering.keras import clustering_centroids

    def start(values: NDArray[np.float32], count: int) -> Any:
        weight = tensorflow().constant(values)
        return clustering_centroids.KmeansPlusPlusCentroidsInitialisation(weight, count).get_cluster_centroids()

    return start
