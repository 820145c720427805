"""A tiny policy, responses of it, and what it takes to learn from them."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.critic import Critic
from model.decoding.sampling import Sampling
from model.transformer import Decoder
from tests.train.rl.policies import train_start
from train.rl.options import PPO
from train.rl.policy.experience import evaluate_rollout, make_experience
from train.rl.policy.policy_gradient import PolicyGradientLoss
from train.rl.policy.rollout import rollout
from train.step.gradients import accumulated, plain

MODEL = ModelConfig(
    vocab_size=17,
    context_length=16,
    num_layers=2,
    embed_dim=16,
    num_heads=2,
    positions="rotary",
    norm="rmsnorm",
    bias=False,
    init_std=0.3,
    scan=True,  # compiles faster
)
STOP, ROOM, PROMPT, SAMPLES = 3, 6, 5, 2
DECODER = Decoder(MODEL)


@functools.cache
def parameters(layout: str = "none"):
    """A decoder's, and a critic's beside them whose head is not zero."""
    critic = Critic(MODEL, layout)
    params = nn.unbox(Decoder(MODEL).start(jax.random.key(0)) | critic.start(jax.random.key(1)))
    if "value" in params:
        params["value"]["weights"] = jnp.asarray(np.random.default_rng(0).normal(size=16), jnp.float32) * 0.3
    return params


@functools.cache
def drawn(temperature: float = 1.0, rows: int = 4):
    """Two responses to each of `rows` prompts of different lengths; some end, some do not."""
    rng = np.random.default_rng(1)
    lengths = jnp.asarray(rng.integers(1, PROMPT + 1, rows), jnp.int32)
    prompts = jnp.asarray(rng.integers(4, 17, (rows, PROMPT)), jnp.int32)
    keys = jax.random.split(jax.random.key(5), rows * SAMPLES)
    sampling = Sampling(temperature=temperature, stop_ids=(STOP, 5, 7))
    call = jax.jit(lambda params: rollout(DECODER, params, prompts, lengths, keys, sampling, max_new_tokens=ROOM, samples=SAMPLES))
    return call(parameters())


@functools.cache
def objective(options) -> PolicyGradientLoss:
    return PolicyGradientLoss(DECODER, Critic(MODEL, options.critic), options)


CARRY = {"kl_coefficient": jnp.float32(0.1), "steps": jnp.int32(0)}


@functools.cache
def _gradient(options, parts: int):
    def call(params, batch, frozen, carry):
        target = objective(options)
        if parts == 1:
            return plain(target, params, batch, None, frozen=frozen, carry=carry)[:2]
        return accumulated(target, params, batch, None, micro_batches=parts, frozen=frozen, carry=carry)[:2]

    return jax.jit(call)  # op by op, each op would be compiled by itself


def gradient(options, params, batch, *, frozen=None, carry=CARRY, parts: int = 1):
    """The gradient of the objective, and its metrics, the terms among them."""
    return _gradient(options, parts)(params, batch, frozen, carry)


@functools.cache
def _experience(options):
    critic, rows, kept = Critic(MODEL, options.critic), drawn(options.temperature), jnp.ones(8, jnp.float32)

    def call(params, reference, scores):
        estimates = evaluate_rollout(DECODER, critic, options, params, reference, rows, again=True, shards=1)
        return *make_experience(rows, estimates, scores, kept, options, options.kl_coefficient), estimates

    return jax.jit(call)


@jax.jit
def log_probs(params, batch):
    """log p of the targets, the whole logits at once."""
    hidden = DECODER.apply({"params": params}, batch.tokens, segments_BT=batch.segments, positions_BT=batch.positions).hidden_BTD
    log_p = jax.nn.log_softmax(hidden[:, -batch.targets.shape[1] :] @ params["embedding"]["table"].T)
    return jnp.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0]


def experience(options, scores=None, params=None, reference=None):
    """An Experience of `drawn`, its metrics, and the estimates."""
    params = parameters(options.critic) if params is None else params
    scores = jnp.asarray(np.random.default_rng(2).normal(size=8), jnp.float32) if scores is None else scores
    return _experience(options)(params, reference, scores)


@pytest.fixture(scope="session")
def started(tmp_path_factory):
    return train_start(tmp_path_factory.mktemp("started") / "run")


@pytest.fixture
def ppo():
    return PPO(group_size=SAMPLES, response_tokens=ROOM, critic="shared", kl_coefficient=0.1)


def change(options, **fields):
    return dataclasses.replace(options, **fields)


def moved(params):
    """Parameters near these, so that ratios are not 1."""
    keys = iter(jax.random.split(jax.random.key(9), 100))
    return jax.tree.map(lambda leaf: leaf + 0.02 * jax.random.normal(next(keys), leaf.shape), params)
