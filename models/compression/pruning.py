"""Magnitude pruning on TF-MOT's schedules and masks: `prune80`, and the 2:4 pattern: `two_of_four`.

TF-MOT's wrappers are not used: three graphs share the decoder's layers, and its callback updates masks only every
100 steps by default, which on a short run prunes nothing (github.com/tensorflow/model-optimization#173 and
its like). Here its mask update runs on our variables inside the training step, at a frequency that meets
the schedule's end, and the zeros are counted afterwards.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from models.captioner import Captioner
from models.compression.base import Ask, Context, Outcome, Reached, Scope
from models.compression.change import Change, Start
from models.compression.finetuning import FineTuning, fine_tune, is_reproduction, planned_steps
from models.compression.weights import Weight, choose_weights
from models.errors import CompressionError, ConfigError
from models.fitting import Constraint
from models.keras import model_optimization, tensorflow

SCHEDULES = ("polynomial", "constant")
# Mask updates of a polynomial schedule. Zhu and Gupta 2017 (arXiv 1710.01878, section 3) prune over many steps.
UPDATES = 20
MINIMUM_UPDATES = 4
# Share of the fine-tuning steps over which sparsity rises; the rest heals.
RAMP = 0.5


class Pruning:
    """TF-MOT's mask update on one weight, following one of its schedules."""

    def __init__(self, weight: Weight, schedule: Any, end_step: int, *, m_by_n: tuple[int, int] | None = None) -> None:
        tf = tensorflow()
        model_optimization()
        from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

        self._mask = tf.Variable(np.ones(weight.variable.shape, np.float32), trainable=False)
        self._weight, self._end_step = weight, end_step
        self._step = tf.Variable(0, dtype="int64", trainable=False)
        variables = [(weight.variable, self._mask, tf.Variable(0.0, trainable=False))]
        # The pooling and the block are TF-MOT's defaults: single weights.
        self._impl = pruning_impl.Pruning(lambda: self._step, variables, schedule, (1, 1), "AVG", m_by_n)
        # TF-MOT compares with a list and would pool blocks of one.
        self._impl._block_size = [1, 1]

    def restore(self, step: int) -> None:
        """See Constraint: the mask is where the weights are not zero."""
        if step:
            self._mask.assign((self._weight.values != 0).astype(np.float32))

    def apply(self, step: Any) -> None:
        """Update the mask when the schedule says so, and zero what it hides. TF-MOT counts steps from 1."""
        tf = tensorflow()
        with (
            tf.control_dependencies([self._step.assign(step + 1)]),
            tf.control_dependencies([self._impl.conditional_mask_update()]),
        ):
            self._impl.weight_mask_op()

    def settled_from(self) -> int:
        """After the schedule's last update."""
        return self._end_step


def check_prune(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for a layer or schedule that does not exist."""
    choose_weights(captioner, ask, scope)
    schedule = ask.option("schedule", SCHEDULES[0])
    if schedule not in SCHEDULES:
        raise ConfigError(f"'{ask}': schedule must be {' or '.join(SCHEDULES)}; received '{schedule}'.")
    _schedule(ask, 0.5, planned_steps(ask, scope, context, _tuning(ask, scope, context, 0.5)))


def prune(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Zero the smallest weights of each chosen tensor until `amount` per cent are zero, while fine-tuning."""
    sparsity = (ask.amount or 0) / 100
    weights = choose_weights(captioner, ask, scope)

    def constraints(steps: int) -> list[Constraint]:
        schedule, end = _schedule(ask, sparsity, steps)
        return [Pruning(weight, schedule, end) for weight in weights]

    zero_at_once = functools.partial(_zero, weights, sparsity)
    change = Change(zero_at_once, weights, constraints, Start.DENSE)
    outcome = fine_tune(captioner, ask, scope, context, _tuning(ask, scope, context, sparsity), change)
    _assert_sparsity(ask, outcome.reached, sparsity)
    return outcome


def check_two_of_four(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> None:
    """Raises ConfigError for layers that do not exist or can't have the pattern."""
    _fitting(choose_weights(captioner, ask, scope), ask)


def prune_two_of_four(captioner: Captioner, ask: Ask, scope: Scope, context: Context) -> Outcome:
    """Two zeros in every four inputs of each output, as TFLite lays weights out, then fine-tune with fixed masks.

    Mishra et al. 2021, "Accelerating sparse deep neural networks" (arXiv 2104.08378), section 3.
    """
    weights = _fitting(choose_weights(captioner, ask, scope), ask)

    def constraints(steps: int) -> list[Constraint]:
        schedule = _sparsity_module().ConstantSparsity(0.5, begin_step=0, frequency=1)
        return [Pruning(weight, schedule, 1, m_by_n=(2, 4)) for weight in weights]

    zero_at_once = functools.partial(_two_of_four, weights)
    change = Change(zero_at_once, weights, constraints, Start.DENSE)
    outcome = fine_tune(captioner, ask, scope, context, _tuning(ask, scope, context, 0.5), change)
    _assert_sparsity(ask, outcome.reached, 0.5)
    return outcome


def _tuning(ask: Ask, scope: Scope, context: Context, sparsity: float) -> FineTuning:
    """On captions: taught by the dense captioner, and with less dropout, because fewer weights overfit less.

    Han et al. 2015 (arXiv 1506.02626, section 3.2) lower dropout by the root of the share of weights that is left. With
    80 % zeros a merge decoder on Flickr8k had a validation CIDEr of 0.30 without either and 0.35 with a teacher alone.
    """
    if is_reproduction(scope, context):
        return FineTuning.of(ask, share=0.5, at_least=6, rate=0.5)
    tuning = FineTuning.of(ask, share=0.5, at_least=8, rate=1.0, taught=0.9)
    dropout = context.spec.dropout * math.sqrt(1 - sparsity)
    return tuning if tuning.dropout is not None else replace(tuning, dropout=dropout)


def _schedule(ask: Ask, sparsity: float, steps: int) -> tuple[Any, int]:
    """TF-MOT's schedule, and the step of its last update, which must fall on a multiple of its frequency."""
    module = _sparsity_module()
    if ask.option("schedule", SCHEDULES[0]) == "constant":
        return module.ConstantSparsity(sparsity, begin_step=1, end_step=1, frequency=1), 1
    frequency = max(1, int(steps * RAMP / UPDATES))
    updates = min(UPDATES, int(steps * RAMP) // frequency)
    if updates < MINIMUM_UPDATES:
        raise ConfigError(
            f"'{ask}': {steps} fine-tuning steps are too few to reach {sparsity:.0%} step by step (at least "
            f"{int(MINIMUM_UPDATES / RAMP)} are needed); raise epochs, or say schedule=constant."
        )
    end = 1 + updates * frequency
    return module.PolynomialDecay(0.0, sparsity, begin_step=1, end_step=end, power=3, frequency=frequency), end


def _sparsity_module() -> Any:
    return model_optimization().sparsity.keras


def _zero(weights: Sequence[Weight], sparsity: float) -> None:
    """All at once: what the captions are before fine-tuning."""
    for weight in weights:
        values = weight.values
        keep = values.size - round(values.size * sparsity)
        threshold = np.sort(np.abs(values), axis=None)[-max(keep, 1)]
        weight.variable.assign(np.where(np.abs(values) >= threshold, values, 0))


def _fitting(weights: Sequence[Weight], ask: Ask) -> list[Weight]:
    """Weights whose inputs come in fours. An embedding is looked up, not multiplied. Raises ConfigError."""
    fitting = [w for w in weights if w.variable.shape[-2] % 4 == 0 and w.kind != "embedding"]
    if not fitting or (ask.option("layers", "") and len(fitting) < len(weights)):
        odd = [f"{w.layer} {tuple(w.variable.shape)}" for w in weights if w not in fitting]
        raise ConfigError(
            f"'{ask}': products whose number of inputs divides by 4 are needed; received {', '.join(odd)}."
        )
    return fitting


def _two_of_four(weights: Sequence[Weight]) -> None:
    model_optimization()
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_utils

    for weight in weights:
        rows = pruning_utils.weights_rearrange(weight.variable)
        mask = pruning_utils.generate_m_by_n_mask(rows, (2, 4))
        shaped = pruning_utils.m_by_n_sparsity_mask_prepare(mask, weight.variable.shape)
        weight.variable.assign(weight.variable * shaped)


def _assert_sparsity(ask: Ask, reached: Sequence[Reached], sparsity: float) -> None:
    """Raises CompressionError naming every tensor that has fewer zeros than asked."""
    # One weight of slack: TF-MOT rounds the number that stays, and never hides the last.
    short = [f"{r.layer}/{r.weight} {r.zeros:.1%}" for r in reached if r.zeros < sparsity - 1.5 / r.elements]
    if short:
        raise CompressionError(f"'{ask}' did not reach {sparsity:.0%} zeros: {', '.join(short)}.")
