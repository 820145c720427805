"""From an experiment's optimizer and schedule to an optax transformation."""

import math

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from data.errors import UserError
from train.experiment import SGD, AdamW, Muon, Optimizer, Schedule


def make_schedule(schedule: Schedule, peak: float, steps: int):
    """Learning rate by step: a linear warm-up to `peak`, then the decay to its last step (Loshchilov & Hutter 2017 for the cosine).

    A run that is shorter than its warm-up never reaches the peak.
    """
    warmup, rest = schedule.warmup_steps, max(1, steps - 1 - schedule.warmup_steps)  # updates use the rates 0 to steps - 1
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
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] in ("kernel", "table"), params)


def muon(options: Muon) -> optax.GradientTransformation:
    """Orthogonalised momentum (Jordan et al. 2024) of every layer's matrices, each scaled by sqrt(max(1, outputs / inputs)).

    Kernels are stacked [layers, *inputs, *outputs], those of experts [layers, experts, inputs, outputs]; each layer's or expert's is
    flattened to one matrix of inputs by outputs.
    """

    def dimensions(updates):
        return jax.tree_util.tree_map_with_path(lambda path, leaf: MuonDimensionNumbers(*_axes(path, leaf)), updates)

    def scale(path, leaf):
        inputs, outputs = (math.prod(leaf.shape[axis] for axis in axes) for axes in _axes(path, leaf))
        return leaf * max(1.0, outputs / inputs) ** 0.5

    return optax.chain(
        scale_by_muon(beta=options.momentum, weight_dimension_numbers=dimensions),
        optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates)),
    )


def adam_beside_muon(options: Muon) -> optax.GradientTransformation:
    """Adam whose rate is its own, though the schedule that follows is Muon's."""
    return optax.chain(
        optax.scale_by_adam(options.beta1, options.beta2), optax.scale(options.adam_learning_rate / max(options.learning_rate, 1e-30))
    )


def _names(path) -> list[str]:
    return [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]


def _kinds(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: "matrix" if _names(path)[-1] == "kernel" else "rest", params)


def _axes(path, leaf) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The input and the output axes of a stacked kernel: the attention's output projection reads two axes, all others one."""
    names = _names(path)
    first_input = 2 if "experts" in names else 1
    first_output = first_input + (2 if names[-2] == "out" else 1)
    return tuple(range(first_input, first_output)), tuple(range(first_output, leaf.ndim))


def make_optimizer(optimizer: Optimizer, schedule: Schedule, steps: int) -> optax.GradientTransformation:
    """Clip, update, decay, scale by the schedule."""
    rate = make_schedule(schedule, optimizer.learning_rate, steps)
    match optimizer:
        case AdamW():
            update = optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.epsilon)
        case Muon():
            update = optax.partition({"matrix": muon(optimizer), "rest": adam_beside_muon(optimizer)}, _kinds)
        case SGD():
            update = optax.trace(optimizer.momentum) if optimizer.momentum else optax.identity()
        case _:
            raise UserError(f"optimizer: {type(optimizer).__name__} is no optimizer", "Choose AdamW, Muon or SGD in the config file.")
    parts = [update, optax.add_decayed_weights(optimizer.weight_decay, mask=decayed), optax.scale_by_learning_rate(rate)]
    return optax.chain(*([optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []), *parts)
