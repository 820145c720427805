"""One update of the train state: pure, unjitted, the same for every objective. The loop jits it."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from train.devices.mesh import RULES
from train.objectives.terms import Mean
from train.step.anomalies import choose, detect
from train.step.gradients import plain
from train.step.state import Purpose, State, random_key

COMPILER_OPTIONS: dict[str, dict[str, str | bool | int]] = {
    # Measured in docs/log.md. They go through jit, not the environment, which in a notebook comes too late.
    # Fast math lets sums be reordered and vectorised; infinities, NaN, division and functions keep their meaning, which are switches apart.
    # A collective waits for as long as a machine may sleep: by default the process is killed after 40 s, as when it was stopped by Ctrl-Z.
    "cpu": {
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_cpu_enable_fast_math": True,
        "xla_cpu_collective_call_terminate_timeout_seconds": 30 * 24 * 3600,
    },
}


def compiler_options(platform: str) -> dict | None:
    """XLA's switches for a backend, as `jax.jit(compiler_options=...)` wants them; recorded with the run."""
    return COMPILER_OPTIONS.get(platform)


def make_update(
    objective,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    gradient=plain,
    ema_decay: float = 0.0,
    spike: float = 0.0,
    rows: int = 0,
):
    """Make update(state, frozen, batch) -> state, metrics: gradient, optimizer, average. Metrics are Means over the global batch.

    gradient: how it is taken (train/step/gradients.py). rows: that a step consumes, where several share a row of the batch's arrays; 0:
    those of the arrays.

    A bad step (`anomalies.detect`, with its `spike`, or one whose objective has a metric `unsound` above 0) leaves parameters, optimizer,
    average and carry as they were, to the bit; step and cursor move on. metrics["skipped"].total is the number of bad steps in a row, up to
    this one.
    """

    def update(state: State, frozen, batch):
        key = random_key(seed, state.step, Purpose.OBJECTIVE)
        gradients, metrics, carry = gradient(objective, state.params, batch, key, frozen=frozen, carry=state.carry)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            # The average starts as the mean of what it has seen, so that early evaluations are not held back by the start.
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = jax.tree.map(lambda average, new: decay * average + (1.0 - decay) * new, ema, params)
        norm = optax.tree.norm(gradients)
        unsound = metrics["unsound"].total > 0 if "unsound" in metrics else False
        bad, history = detect(state.history, metrics["loss"].total / jnp.maximum(metrics["loss"].weight, 1e-8), norm, spike, unsound)
        metrics |= {"gradient_norm": Mean(norm, jnp.float32(1)), "skipped": Mean(history.skipped, jnp.float32(1))}
        before = (state.params, state.opt_state, state.ema, state.carry)
        params, opt_state, ema, carry = choose(bad, before, (params, opt_state, ema, carry))
        consumed = rows or jax.tree.leaves(batch)[0].shape[0]
        return State(state.step + 1, state.cursor + consumed, params, opt_state, history, ema, carry), metrics

    return update


def on_mesh(function, mesh: Mesh):
    """`function`, traced with the mesh and the logical axis rules in force, as its activations' constraints need them."""

    def call(*arguments, **options):
        with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
            return function(*arguments, **options)

    return call


def jit_update(update, mesh: Mesh, *, lower: bool = False):
    """The update compiled for a mesh; the old state's memory is reused for the new one. `lower` only lowers it, to be looked at."""
    jitted = jax.jit(update, donate_argnums=0, compiler_options=compiler_options(mesh.devices.flat[0].platform))
    return on_mesh(jitted.lower if lower else jitted, mesh)
