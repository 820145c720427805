"""From an experiment's optimizer and schedule to an optax transformation."""

import math
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from optax import contrib

from data.errors import UserError
from train.adapters.training import method_of
from train.experiment import SGD, Adafactor, Adagrad, AdamW, Experiment, Lion, Muon, Optimizer, Schedule, ScheduleFree, Yogi
from train.kinds import realise
from train.optimizers.hashed import partially_adaptive, with_hashed
from train.optimizers.muon import orthogonalize


def make_schedule(schedule: Schedule, peak: float, steps: int):
    """Learning rate by step: a linear warm-up to `peak`, then the decay to its last step (Loshchilov & Hutter 2017 for the cosine).

    wsd: warm-up, stable, decay. The decay is 1 - sqrt, which Hägele et al. (2024, sec. 3) found to end lower than a linear one.
    A run that is shorter than its warm-up never reaches the peak.
    """
    warmup, rest = schedule.warmup_steps, max(1, steps - 1 - schedule.warmup_steps)  # updates use the rates 0 to steps - 1
    decays = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=schedule.final_fraction),
        "linear": lambda: optax.linear_schedule(peak, peak * schedule.final_fraction, rest),
        "constant": lambda: optax.constant_schedule(peak),
        "wsd": lambda: _stable_then_decay(peak, peak * schedule.final_fraction, rest, max(1, round(schedule.decay_fraction * steps))),
    }
    decay = decays[schedule.decay]()
    # The first update is not wasted on a rate of zero: step i of the warm-up uses (i + 1) / (warmup + 1) of the peak.
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), decay], [warmup]) if warmup else decay


def _stable_then_decay(peak: float, final: float, steps: int, decay_steps: int):
    """`peak` until `decay_steps` before `steps` (or from the start, where that is sooner), then down to `final` by 1 - sqrt."""
    decay_steps = min(decay_steps, steps)

    def rate(step):
        progress = jnp.clip((step - (steps - decay_steps)) / decay_steps, 0.0, 1.0)
        return final + (peak - final) * (1.0 - jnp.sqrt(progress))

    return rate


def decayed(params):
    """True for the leaves that weight decay applies to: matrices and tables, not biases and norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _names(path)[-1] in ("kernel", "table"), params)


def per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, applied to each layer's (and each expert's) array by itself, kernels as matrices of inputs by outputs."""

    def split(tree):
        return jax.tree_util.tree_map_with_path(as_matrices, tree)

    def init(params):
        # Axis names are dropped: what is kept of a matrix no longer has its axes, and is small enough to be whole on every device.
        return jax.tree.map(jax.vmap(inner.init), split(nn.unbox(params)))

    def update(updates, state, params):
        leaves, treedef = jax.tree.flatten(split(updates))
        states, params = treedef.flatten_up_to(state), treedef.flatten_up_to(split(params))
        found = [jax.vmap(inner.update)(*each) for each in zip(leaves, states, params, strict=True)]
        updates = jax.tree.map(lambda new, old: new.reshape(old.shape), treedef.unflatten([new for new, _ in found]), updates)
        return updates, treedef.unflatten([kept for _, kept in found])

    return optax.GradientTransformation(init, update)


def factored() -> optax.GradientTransformation:
    """Adafactor (Shazeer & Stern 2018, algorithm 4, without its own schedule): second moments of rows and columns, updates clipped to a
    root mean square of 1, then scaled by that of what they update.

    optax factors the two largest axes of an array. Of a stack [layers, embed, heads, head] those need not be a matrix, so each layer's
    matrix goes through it alone.
    """
    steps = (optax.scale_by_factored_rms(min_dim_size_to_factor=1), optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms(1e-3))
    return per_layer(optax.chain(*steps))


def averaging_adam(options: ScheduleFree, rate) -> optax.GradientTransformation:
    """Schedule-free AdamW (Defazio et al. 2024, algorithm 1): z takes Adam's steps, x averages z weighted by the squared rate, and
    gradients are taken at y between them. The parameters of the state are y."""
    step = (
        optax.scale_by_adam(0.0, options.beta2, options.epsilon),
        optax.add_decayed_weights(options.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(rate),
    )
    # optax counts these steps from 1, and those of the rate from 0.
    return contrib.schedule_free(optax.chain(*step), lambda count: rate(count - 1), b1=options.beta1)


def scale_by_adam_with_epsilon_hat(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam whose epsilon stands beside the uncorrected mean of squares, which makes early steps smaller."""
    adam = optax.scale_by_adam(beta1, beta2, eps=0.0)

    def update(gradients, state, params=None):
        _, state = adam.update(gradients, state, params)
        step = state.count.astype(jnp.float32)
        rate = jnp.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
        return jax.tree.map(lambda mean, square: rate * mean / (jnp.sqrt(square) + epsilon), state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


def orthogonal_momentum(options: Muon) -> optax.GradientTransformation:
    """Orthogonalised momentum (Jordan et al. 2024) of every layer's matrices, each scaled by sqrt(max(1, outputs / inputs)).

    Kernels are stacked [layers, *inputs, *outputs], those of experts [layers, experts, inputs, outputs]; each layer's or expert's is
    flattened to one matrix of inputs by outputs.
    """

    def orthogonal(updates, _):
        matrices = jax.tree_util.tree_map_with_path(as_matrices, updates)
        return jax.tree.map(lambda new, old: new.reshape(old.shape), jax.tree.map(_muon_step, matrices), updates)

    return optax.chain(optax.trace(options.momentum, nesterov=True), optax.stateless(orthogonal))


def _muon_step(x_NIO):
    inputs, outputs = x_NIO.shape[1:]
    return orthogonalize(x_NIO) * max(1.0, outputs / inputs) ** 0.5


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
    """The input and the output axes of a kernel: the attention's output projection reads two axes, all others one."""
    names = _names(path)
    first_input = ("layers" in names) + ("experts" in names)
    first_output = first_input + (2 if names[-2] == "out" and leaf.ndim - first_input == 3 else 1)
    return tuple(range(first_input, first_output)), tuple(range(first_output, leaf.ndim))


def as_matrices(path, leaf):
    """A leaf as [N, inputs, outputs] when it is a kernel, N being layers, or layers times experts; a table as [1, rows, columns]; others
    as [layers, size], or [1, size] outside of the stack."""
    names = _names(path)
    if names[-1] == "kernel":
        inputs, outputs = (math.prod(leaf.shape[axis] for axis in axes) for axes in _axes(path, leaf))
        return leaf.reshape(-1, inputs, outputs)
    if names[-1] == "table":
        return leaf[None]
    return leaf.reshape(leaf.shape[0] if "layers" in names else 1, -1)


def by_layer_depth(decay: float) -> optax.GradientTransformation:
    """Scales the updates of the layer d layers below the top of its stack by decay ** d, and those of embeddings as one more layer below
    (Howard & Ruder 2018, sec. 3.2). Layers that share parameters count as one."""

    def scale(updates, _):
        depth = max([leaf.shape[0] for path, leaf in jax.tree_util.tree_leaves_with_path(updates) if "layers" in _names(path)], default=0)

        def scaled(path, leaf):
            if "layers" in _names(path):
                powers = decay ** jnp.arange(leaf.shape[0] - 1, -1, -1, dtype=jnp.float32)
                return leaf * powers.reshape(-1, *(1,) * (leaf.ndim - 1))
            return leaf * decay**depth if _names(path)[0] in BELOW_THE_LAYERS else leaf

        return jax.tree_util.tree_map_with_path(scaled, updates)

    return optax.stateless(scale)


BELOW_THE_LAYERS = frozenset("embedding ngrams positions token_types embedding_norm embedding_projection relative_bias".split())
"""Parameters of text models that layers stand on."""


def freeze(optimizer: optax.GradientTransformation, names: tuple[str, ...]) -> optax.GradientTransformation:
    """The optimizer of all parameters but those that `names` freeze (see `frozen_leaves`); of these nothing is kept."""
    if not names:
        return optimizer

    def parts(params):
        return jax.tree.map(lambda count: "frozen" if count == math.inf else "trained", frozen_leaves(params, names))

    def above(tree):
        """Without the frozen layers of stacks that are partly frozen."""
        return jax.tree.map(lambda leaf, count: leaf[count:] if 0 < count < math.inf else leaf, tree, frozen_leaves(tree, names))

    def padded(new, old):
        below = old.shape[0] - new.shape[0] if old.ndim else 0
        return jnp.pad(new, [(below, 0)] + [(0, 0)] * (new.ndim - 1)) if below else new

    def update(updates, state, params=None):
        found, state = inner.update(above(updates), state, None if params is None else above(params))
        return jax.tree.map(padded, found, updates), state

    inner = optax.partition({"frozen": optax.set_to_zero(), "trained": optimizer}, parts)
    return optax.GradientTransformation(lambda params: inner.init(above(params)), update)


def frozen_leaves(params, names: tuple[str, ...]):
    """For each leaf how many of its layers `names` freeze, the lowest ones; infinity: all of it.

    A name is the beginning of parameters' names ("image/encoder"), or a pattern of one ("*norm"), or says how many layers of a stack are
    meant ("layers:4").
    """

    def frozen(path, _):
        own = f"{'/'.join(_names(path))}/"
        found = [count for name, _, count in (one.partition(":") for one in names) if fnmatchcase(own, f"{name}/*")]
        return math.inf if "" in found else max(map(int, found), default=0)

    return jax.tree_util.tree_map_with_path(frozen, params)


def without_gradient(params, names: tuple[str, ...]):
    """The parameters, those that `names` freeze as constants: nothing is computed for a gradient that nobody uses."""

    def held(leaf, count):
        if count == math.inf:
            return jax.lax.stop_gradient(leaf)
        return jnp.concatenate([jax.lax.stop_gradient(leaf[:count]), leaf[count:]]) if count else leaf

    return jax.tree.map(held, params, frozen_leaves(params, names)) if names else params


def make_optimizer(optimizer: Optimizer, schedule: Schedule, steps: int) -> optax.GradientTransformation:
    """Clip, update, decay, scale by the schedule."""
    parts = [optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []
    return optax.chain(*parts, *realise(optimizer, schedule, steps))


def scaled(options: Optimizer, schedule: Schedule, steps: int, update: optax.GradientTransformation) -> list[optax.GradientTransformation]:
    """The update, decayed and scaled by the schedule."""
    rate = make_schedule(schedule, options.learning_rate, steps)
    return [update, optax.add_decayed_weights(options.weight_decay, mask=decayed), optax.scale_by_learning_rate(rate)]


def adamw(options: AdamW, schedule: Schedule, steps: int):
    scale = scale_by_adam_with_epsilon_hat if options.epsilon_hat else optax.scale_by_adam
    adam = scale(options.beta1, options.beta2, options.epsilon)
    return scaled(options, schedule, steps, with_hashed(adam, partially_adaptive(options.beta1, options.beta2)))


def muon(options: Muon, schedule: Schedule, steps: int):
    update = optax.partition({"matrix": orthogonal_momentum(options), "rest": adam_beside_muon(options)}, _kinds)
    return scaled(options, schedule, steps, update)


def sgd(options: SGD, schedule: Schedule, steps: int):
    return scaled(options, schedule, steps, optax.trace(options.momentum) if options.momentum else optax.identity())


def yogi(options: Yogi, schedule: Schedule, steps: int):
    yogi = optax.scale_by_yogi(options.beta1, options.beta2, options.epsilon, initial_accumulator_value=0.0)
    return scaled(options, schedule, steps, yogi)


def adagrad(options: Adagrad, schedule: Schedule, steps: int):
    return scaled(options, schedule, steps, optax.scale_by_rss(initial_accumulator_value=0.0, eps=options.epsilon))


def lion(options: Lion, schedule: Schedule, steps: int):
    return scaled(options, schedule, steps, optax.scale_by_lion(options.beta1, options.beta2))


def adafactor(options: Adafactor, schedule: Schedule, steps: int):
    return scaled(options, schedule, steps, factored())


def schedule_free(options: ScheduleFree, schedule: Schedule, steps: int):
    if schedule.decay != "constant":
        raise UserError(
            f"schedule.decay is {schedule.decay}, but ScheduleFree averages instead of lowering the rate",
            "Set --schedule.decay constant, or choose another optimizer in the config file.",
        )
    return [averaging_adam(options, make_schedule(schedule, options.learning_rate, steps))]


def optimizer_of(experiment: Experiment, updates: int = 1) -> optax.GradientTransformation:
    """The optimizer of an experiment each of whose steps is so many updates."""
    steps, decay, method = experiment.steps * updates, experiment.optimizer.layer_decay, method_of(experiment)
    whole = freeze(make_optimizer(experiment.optimizer, experiment.schedule, steps), experiment.frozen)
    whole = optax.chain(whole, by_layer_depth(decay)) if decay < 1 else whole
    return whole if method is None else method.optimizer(whole, steps)
