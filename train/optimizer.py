"""From an experiment's optimizer and schedule to an optax transformation."""

import jax
import optax

from data.errors import UserError
from train.experiment import SGD, AdamW, Optimizer, Schedule


def make_schedule(schedule: Schedule, peak: float, steps: int):
    """Learning rate by step: a linear warm-up to `peak`, then the decay to its last step (Loshchilov & Hutter 2017 for the cosine).

    A run that is shorter than its warm-up never reaches the peak.
    """
    warmup, rest = schedule.warmup_steps, max(1, steps - schedule.warmup_steps)
    decays = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=schedule.final_fraction),
        "linear": lambda: optax.linear_schedule(peak, peak * schedule.final_fraction, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }
    decay = decays[schedule.decay]()
    # The first update is not wasted on a rate of zero: step i of the warm-up uses (i + 1) / (warmup + 1) of the peak.
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), decay], [warmup]) if warmup else decay


def decayed(params):
    """True for the leaves that weight decay applies to: matrices and tables, not biases and norms."""

    def is_matrix(path, _):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return names[-1] in ("kernel", "table")

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def make_optimizer(optimizer: Optimizer, schedule: Schedule, steps: int) -> optax.GradientTransformation:
    """Clip, update, decay, scale by the schedule."""
    rate = make_schedule(schedule, optimizer.learning_rate, steps)
    match optimizer:
        case AdamW():
            update = optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.epsilon)
        case SGD():
            update = optax.trace(optimizer.momentum) if optimizer.momentum else optax.identity()
        case _:
            raise UserError(f"optimizer: {type(optimizer).__name__} is no optimizer", "Choose AdamW or SGD in the config file.")
    parts = [update, optax.add_decayed_weights(optimizer.weight_decay, mask=decayed), optax.scale_by_learning_rate(rate)]
    return optax.chain(*([optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []), *parts)
