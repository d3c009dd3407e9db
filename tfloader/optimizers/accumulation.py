"""Gradient accumulation around the whole optimizer: k small batches train as one large batch does."""

from __future__ import annotations

from numbers import Integral

from keras import ops

from tfloader.border import public
from tfloader.keras_private import variable_index
from tfloader.optimizers.extension import Extension, check_number, dense, number_of_replicas, refuse, require_tensorflow


class GradientAccumulation(Extension):
    """Collects the gradients of k batches, and updates on the k-th with their mean.

    All that counts or clips happens once an update: schedules, bias correction, averages, Lookahead, clipping. (Under
    Keras' gradient_accumulation_steps schedules and averages advance at every batch, and MirroredStrategy fails; under
    bert4keras updates came one batch late, and lr_schedule counted batches.)

    The mean equals the gradient of one large batch if all batches are equally large; where the loss is a mean over
    unmasked tokens, if these are equally many. The next `fit` completes an incomplete group, which is also saved.

    Args:
        grad_accum_steps: k.
    """

    saved_arguments = ("grad_accum_steps",)

    @public
    def __init__(self, *args, grad_accum_steps: int = 2, **kwargs):
        super().__init__(*args, **kwargs)
        require_tensorflow(self, "Keras' gradient_accumulation_steps")
        check_number(self, "grad_accum_steps", grad_accum_steps, 1, kind=Integral)
        twice = bool(self.gradient_accumulation_steps)
        refuse(self, (twice, "gradient_accumulation_steps would accumulate a second time."))
        self.grad_accum_steps = grad_accum_steps

    def prepare(self, variables):
        super().prepare(variables)
        self._batches = self.add_variable((), dtype="int", aggregation="only_first_replica", name="batches")
        self._sums = self.add_optimizer_variables(variables, "gradient_sum")

    def apply(self, grads, trainable_variables=None):
        import tensorflow as tf

        variables = list(self.trained.variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(variables)
        # A variable without gradient stays None, so that Keras warns of it.
        sums = [
            None if gradient is None else self._sums[variable_index(self, variable)]
            for gradient, variable in zip(grads, variables, strict=True)
        ]
        present = [item for item in sums if item is not None]
        apply_mean = super().apply

        def update():
            # Keras will sum over the replicas, and the sums are of all replicas already.
            parts = self.grad_accum_steps * number_of_replicas()
            apply_mean([None if item is None else item / parts for item in sums], variables)

        def once(strategy, gradients):
            for item, gradient in zip(present, gradients, strict=True):
                strategy.extended.update(item.value, _add, args=(gradient,), group=False)
            self._batches.assign_add(1)

            def finish():
                strategy.run(update)
                for item in present:
                    strategy.extended.update(item.value, _clear, group=False)

            tf.cond(self._batches.value % self.grad_accum_steps == 0, finish, lambda: None)

        replica = tf.distribute.get_replica_context()
        gradients = [dense(gradient) for gradient in grads if gradient is not None]
        replica.merge_call(once, args=(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients),))


def _add(total, gradient):
    total.assign_add(gradient)


def _clear(total):
    total.assign(ops.zeros_like(total))
