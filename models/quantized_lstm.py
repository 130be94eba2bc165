"""A quantization-aware LSTM: both matrix products of a step end in integers; gates and cell state stay in float."""

from functools import cache
from typing import Any

from models.keras import keras, tensorflow
from models.rounding import (
    SIGMOID_RANGE,
    TANH_RANGE,
    ActivationRange,
    round_fixed,
    round_weights,
    rounding_class,
    unflat,
    was_rounded,
)


@cache
def cell_class() -> Any:
    """QuantizedLSTMCell(units, name=...)."""
    tf = tensorflow()

    class QuantizedLSTMCell(rounding_class()):  # type: ignore[misc]
        """One step. Rounds x, h and both kernels, and both products, which must end in integers too."""

        def __init__(self, units: int, **options: Any) -> None:
            super().__init__(**options)
            self.units = self.output_size = units
            self.state_size = [units, units]

        def build(self, input_shape: Any) -> None:
            gates = 4 * self.units
            self.kernel = self.add_weight("kernel", (input_shape[-1], gates), initializer="glorot_uniform")
            self.recurrent_kernel = self.add_weight("recurrent_kernel", (self.units, gates), initializer="orthogonal")
            self.bias = self.add_weight("bias", (gates,), initializer=self._forget_nothing)
            self.add_input_range()
            self._from_input, self.from_state = (
                ActivationRange(self, "from_input"),
                ActivationRange(self, "from_state"),
            )
            super().build(input_shape)

        def _forget_nothing(self, shape: Any, dtype: Any = None) -> Any:
            # Forget gates start open, as in Keras (Jozefowicz et al. 2015, section 2.2).
            return tf.concat([tf.zeros(self.units), tf.ones(self.units), tf.zeros(2 * self.units)], 0)

        def read(self, inputs: Any, training: Any = None) -> Any:
            """The inputs' share of the gates, of one step or of a whole sequence at once."""
            rows, leading = self.round_input(inputs, training)
            product = tf.matmul(rows, round_weights(self.kernel))
            return unflat(self._from_input.round(product, training), leading)

        def move(self, read: Any, states: Any, recurrent_kernel: Any) -> tuple[Any, list[Any]]:
            """The state's share of the gates before rounding, and the new state. The kernel comes rounded."""
            product = tf.matmul(round_fixed(states[0], TANH_RANGE), recurrent_kernel)
            gates = read + self.from_state.round(product) + self.bias
            enter, forget, candidate, leave = tf.split(gates, 4, axis=1)
            memory = tf.sigmoid(forget) * states[1] + tf.sigmoid(enter) * tf.tanh(candidate)
            leave = round_fixed(tf.sigmoid(leave), SIGMOID_RANGE)
            state = round_fixed(leave * round_fixed(tf.tanh(memory), TANH_RANGE), TANH_RANGE)
            return product, [state, memory]

        def call(self, inputs: Any, states: Any, training: Any = None) -> tuple[Any, list[Any]]:
            _, states = self.move(self.read(inputs), states, round_weights(self.recurrent_kernel))
            return states[0], states

    return QuantizedLSTMCell


@cache
def lstm_class() -> Any:
    """QuantizedLSTM(cell, return_sequences=True, name=...)."""
    tf, backend = tensorflow(), keras().backend

    class QuantizedLSTM(keras().layers.RNN):  # type: ignore[misc]
        """A whole sequence with a QuantizedLSTMCell: kernels are rounded once, and ranges taken over all steps."""

        rounds_output = True

        def __call__(self, inputs: Any, *others: Any, **options: Any) -> Any:
            if not self.built:
                self.cell.input_was_rounded = was_rounded(inputs)
            return super().__call__(inputs, *others, **options)

        def call(self, inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None) -> Any:
            inputs, states, _ = self._process_inputs(inputs, initial_state, None)
            recurrent_kernel = round_weights(self.cell.recurrent_kernel)

            def step(read: Any, states: Any) -> tuple[Any, list[Any]]:
                product, states = self.cell.move(read, states, recurrent_kernel)
                extremes = [tf.reduce_min(product, 1, True), tf.reduce_max(product, 1, True)]
                return [states[0], *extremes], states

            _, (outputs, low, high), _ = backend.rnn(step, self.cell.read(inputs, training), states)
            if training:
                self.cell.from_state.observe(tf.reduce_min(low), tf.reduce_max(high))
            return outputs

    return QuantizedLSTM
