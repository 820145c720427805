"""Ranks follow the budget, to the triplet, and go where they are needed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.adapters.adalora import SingularTerms, budget_at, budgeted, deviation, most_important
from train.adapters.low_rank import NAME, merged
from train.adapters.method import overlaid
from train.adapters.options import AdaLoRA

STEPS, COUNT, WIDTH = 120, 5, 12
OPTIONS = AdaLoRA(rank=2, initial_rank=4, warmup=0.1, final=0.3, every=4, orthogonality=0.2, alpha=2.0)
END = 84  # of the phase in which ranks fall
PLANTED = 3


def leaves_of(seed: int, options: AdaLoRA, values: float = 0.0):
    """Terms of COUNT projections, of which one is stacked over two layers."""
    rng = np.random.default_rng(seed)

    def leaf(*stack):
        rank = options.initial_rank
        shapes = {"left": (WIDTH, rank), "values": (rank,), "right": (rank, WIDTH)}
        spread = {"left": 0.3, "values": values, "right": 0.3}
        return {NAME: {name: jnp.asarray(rng.normal(0, spread[name], (*stack, *shape)), jnp.float32) for name, shape in shapes.items()}}

    return {f"projection_{i}": leaf() for i in range(COUNT - 2)} | {"layers": {"projection": leaf(2)}}


def values_of(trained):
    flat = [trained[f"projection_{i}"][NAME]["values"] for i in range(COUNT - 2)] + [trained["layers"]["projection"][NAME]["values"]]
    return np.concatenate([np.asarray(one).reshape(-1) for one in flat])


@functools.cache
def planted_run(options: AdaLoRA):
    """Trained to a teacher that differs from the base in one projection, by a term of rank 4: (the values after each step, the last leaves,
    the losses, the regulariser at the start and at the end)."""
    method, rng = SingularTerms(options, None), np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(64, WIDTH)), jnp.float32)
    target = jnp.asarray(rng.normal(size=(WIDTH, 4)) @ rng.normal(size=(4, WIDTH)) * 0.3, jnp.float32)
    trained = leaves_of(0, options)

    def loss(trained):
        read = method.read({}, trained)

        def change(leaf):
            return leaf[NAME]["a"] @ leaf[NAME]["b"]

        terms = [change(read[f"projection_{i}"]) for i in range(COUNT - 2)] + list(change(read["layers"]["projection"]))
        wanted = [target if i == PLANTED else jnp.zeros_like(target) for i in range(COUNT)]
        # Every projection has its own noise to fit a little, so that none is without gradient.
        fitted = sum(jnp.square(x @ (term - one) - 0.02 * (i + 1)).mean() for i, (term, one) in enumerate(zip(terms, wanted, strict=True)))
        return fitted + sum(term.coefficient * term.total / term.weight for term in method.terms(trained).values()), fitted

    optimizer = method.optimizer(optax.adam(3e-2), STEPS)

    @jax.jit
    def step(trained, state):
        gradients, fitted = jax.grad(loss, has_aux=True)(trained)
        updates, state = optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, fitted

    state, seen, losses = optimizer.init(trained), [], []
    measured = SingularTerms(OPTIONS, None)
    before = measured.terms(trained)["orthogonality"].total
    for _ in range(STEPS):
        trained, state, fitted = step(trained, state)
        seen.append((values_of(trained), {name: float(mean.total / mean.weight) for name, mean in method.metrics(state).items()}))
        losses.append(float(fitted))
    return seen, trained, losses, (float(before), float(measured.terms(trained)["orthogonality"].total))


def test_exactly_the_budget_survives_at_each_choice():
    seen, *_ = planted_run(OPTIONS)
    budgets = []
    for step, (values, metrics) in enumerate(seen):
        if (step % OPTIONS.every == 0 and step <= END) or step >= END:
            budget = int(budget_at(step, OPTIONS, COUNT, STEPS))
            budgets.append(budget)
            alive = COUNT * OPTIONS.initial_rank if budget == COUNT * OPTIONS.initial_rank else budget
            assert (values != 0).sum() == alive and metrics["rank"] == pytest.approx(budget / COUNT)
    assert budgets[0] == COUNT * OPTIONS.initial_rank and budgets == sorted(budgets, reverse=True)
    assert budgets[-1] == COUNT * OPTIONS.rank and len(set(budgets)) > 5


def test_what_is_zero_in_the_last_phase_stays_zero():
    seen, *_ = planted_run(OPTIONS)
    zero = seen[END][0] == 0
    assert zero.sum() == COUNT * (OPTIONS.initial_rank - OPTIONS.rank)
    assert all((values[zero] == 0).all() and (values[~zero] != 0).all() for values, _ in seen[END:])


def test_the_planted_projection_gets_most_of_the_rank_and_beats_equal_ranks():
    """A term of rank 4 where the mean rank is 2: equal ranks cannot fit it."""
    seen, trained, losses, _ = planted_run(OPTIONS)
    ranks = (values_of(trained) != 0).reshape(COUNT, -1).sum(1)
    assert ranks[PLANTED] == OPTIONS.initial_rank and ranks.argmax() == PLANTED
    equal = AdaLoRA(rank=2, initial_rank=2, warmup=0.1, final=0.3, every=4, orthogonality=0.2, alpha=2.0)
    assert losses[-1] < 0.5 * planted_run(equal)[2][-1]


def test_the_regulariser_falls():
    """And without it the factors are further from orthogonal."""
    strong = dataclasses.replace(OPTIONS, orthogonality=2.0)
    *_, (before, after) = planted_run(strong)
    *_, (_, without) = planted_run(dataclasses.replace(OPTIONS, orthogonality=0.0))
    assert after < 0.2 * before and after < 0.2 * without


def test_the_regulariser_makes_no_triplet_important():
    """Gradients that are its own alone leave every sensitivity at zero."""
    trained = leaves_of(0, OPTIONS, values=0.5)
    optimizer = budgeted(optax.sgd(0.0), OPTIONS, STEPS)
    regular = jax.tree.map(lambda x: OPTIONS.orthogonality * x, jax.grad(deviation)(trained))
    _, state = optimizer.update(regular, optimizer.init(trained), trained)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(regular)) > 0.1
    assert all(float(jnp.abs(leaf).max()) < 1e-6 for leaf in jax.tree.leaves(state.sensitivity))


def test_merging_and_leaving_out_zero_triplets_change_nothing():
    """Down to projections without any rank left."""
    seen, trained, *_ = planted_run(AdaLoRA(rank=1, initial_rank=4, warmup=0.1, final=0.3, every=4, alpha=2.0))
    ranks = (values_of(trained) != 0).reshape(COUNT, -1).sum(1)
    assert ranks.min() == 0 and ranks.sum() == COUNT
    read, kernel = SingularTerms(OPTIONS, None).read({}, trained), jnp.ones((WIDTH, WIDTH))
    base: dict = {name: {"kernel": kernel} for name in trained if name != "layers"}
    base["layers"] = {"projection": {"kernel": jnp.stack([kernel] * 2)}}
    whole = merged(overlaid(base, read))
    for i in range(COUNT - 2):
        a, b = (np.asarray(read[f"projection_{i}"][NAME][name]) for name in "ab")
        kept = np.flatnonzero(np.abs(b).max(1))
        assert len(kept) == ranks[i]
        np.testing.assert_allclose(whole[f"projection_{i}"]["kernel"], kernel + a[:, kept] @ b[kept], rtol=1e-5, atol=1e-6)


def test_equal_scores_leave_the_first():
    """All scores are zero where nothing was learned yet: not all, and not none, go."""
    scores = {("a",): jnp.zeros((2, 4)), ("b",): jnp.zeros(4)}
    options = AdaLoRA(rank=1, initial_rank=4)
    stays = most_important(scores, options, STEPS, STEPS)
    np.testing.assert_array_equal(np.concatenate([np.ravel(one) for one in stays.values()]), [1] * 3 + [0] * 9)
    scores[("b",)] = jnp.array([0.0, 2.0, 1.0, 3.0])
    np.testing.assert_array_equal(most_important(scores, options, STEPS, STEPS)[("b",)], [0, 1, 1, 1])


@pytest.mark.parametrize("field", [{"rank": 9, "initial_rank": 4}, {"warmup": 0.6, "final": 0.5}, {"every": 0}])
def test_budgets_that_cannot_be_are_refused(field):
    with pytest.raises(ValueError, match=r"adapters\."):
        AdaLoRA(**field)


def test_the_optimizer_within_sees_what_it_would_alone():
    """But for the values that are set to zero."""
    trained, inner = leaves_of(3, OPTIONS, values=1.0), optax.sgd(0.1)
    gradients = jax.tree.map(jnp.ones_like, trained)
    optimizer = budgeted(inner, OPTIONS, STEPS)
    updates, _ = optimizer.update(gradients, optimizer.init(trained), trained)
    expected, _ = inner.update(gradients, inner.init(trained), trained)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
