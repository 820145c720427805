"""Sources that are joined with a text: what is missing adds nothing, and none outweighs the others for having more numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from train.objectives.tasks.fusion import Fusion
from train.objectives.tasks.heads import JudgedClasses
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.supervised import HeadLoss, name_of
from train.tasks.packing import Piece
from train.tasks.rows import HeadBatch, head_batch, in_one

EMBED = 8
FUSION = Fusion((("text", 0), ("table", 3), ("image", 5)), dropout=0.5)


def beside(there=(1, 1, 1), seed: int = 0) -> np.ndarray:
    """[1, 1, K]"""
    numbers = np.random.default_rng(seed).normal(size=8)
    return np.concatenate([[there[0]], [there[1]], numbers[:3], [there[2]], numbers[3:]]).astype(np.float32)[None, None]


def joined(beside_BSK, text=None, fusion: Fusion = FUSION, keys_B=None, params=None):
    text = np.random.default_rng(1).normal(size=(*beside_BSK.shape[:2], EMBED)) if text is None else text
    return np.asarray(fusion.join(params or {}, jnp.asarray(text, jnp.float32), jnp.asarray(beside_BSK), keys_B, EMBED))


def test_its_width_is_that_of_its_parts():
    assert joined(beside()).shape[-1] == FUSION.width(EMBED) == 1 + EMBED + 1 + 3 + 1 + 5 and FUSION.numbers == 1 + 1 + 3 + 1 + 5


@pytest.mark.parametrize("source", [0, 1, 2])
def test_a_missing_source_says_that_it_is_and_nothing_else(source):
    """Whatever numbers stand in its place."""
    there = [1, 1, 1]
    there[source] = 0
    one, other = (joined(beside(there, seed), text) for seed, text in ((0, None), (5, np.ones((1, 1, EMBED)))))
    whole = joined(beside())
    begin, end = ((0, 9), (9, 13), (13, 19))[source]
    np.testing.assert_array_equal(one[..., begin:end], other[..., begin:end])
    assert (one[0, 0, begin : end - 1] == 0).all() and one[0, 0, end - 1] > 0 == whole[0, 0, end - 1]


def test_sources_weigh_alike_however_many_numbers_they_have():
    """The mean square of a source's vector is that of a hidden state, D."""
    many = np.concatenate([beside(seed=seed) for seed in range(4000)])
    x = joined(many)
    for begin, end in ((0, 8), (9, 12), (13, 18)):
        assert abs(np.square(x[..., begin:end]).sum(-1).mean() / EMBED - 1) < 0.05


def test_in_training_sources_are_left_out_by_chance_but_never_all():
    rows = 2000
    keys = jax.random.split(jax.random.key(0), rows)
    x = joined(np.repeat(beside(), rows, 0), keys_B=keys)
    there = x[:, 0, [8, 12, 18]] == 0
    assert there.any(-1).all() and abs(there[:, 0].mean() - (0.5 + 0.125)) < 0.04  # all are kept where none would be
    alone = joined(np.repeat(beside((0, 1, 0)), rows, 0), keys_B=keys)
    assert (alone[:, 0, 12] == 0).all() and (alone[:, 0, 8] > 0).all()  # what is missing does not come back
    np.testing.assert_array_equal(x, joined(np.repeat(beside(), rows, 0), keys_B=keys))


def test_a_text_alone_has_nothing_beside_it():
    np.testing.assert_array_equal(joined(np.asarray(FUSION.text_alone((1, 1)))), joined(beside((1, 0, 0)) * (np.arange(11) == 0)))


def test_hidden_units_stand_beside_the_numbers():
    fusion = Fusion((("table", 3),), hidden=4)
    params = jax.tree.map(lambda leaf: leaf.value, fusion.start(jax.random.key(0), 0.5), is_leaf=lambda leaf: hasattr(leaf, "value"))
    row = beside()[..., 1:5]
    x = np.asarray(fusion.join(params, None, jnp.asarray(row), None, EMBED))
    assert x.shape[-1] == fusion.width(EMBED) == 8 and not fusion.reads_text
    plain = np.asarray(Fusion((("table", 3),)).join({}, None, jnp.asarray(row), None, EMBED))
    np.testing.assert_allclose(x[..., :3], plain[..., :3], rtol=1e-6)


def test_heads_of_other_sources_are_other_heads():
    table = (("text", 0), ("table", 4))
    fusions = (None, FUSION, Fusion(table), Fusion(table, columns="age"), Fusion(table, columns="weight"))
    names = {name_of(JudgedClasses(2), ("a", "b"), "mean", fusion) for fusion in fusions}
    assert len(names) == len(fusions)


def test_numbers_stand_with_their_text_in_a_row():
    items = [(Piece(np.arange(length, dtype=np.int32), label=0, beside=np.full(2, length, np.float32)),) for length in (3, 2, 4)]
    batch = head_batch(items, [[2, 0], [1]], np.arange(2), 8, 4, np.zeros((), np.int32), False, beside=2)
    assert batch.beside[:, :, 0].tolist() == [[4, 3, 0, 0], [2, 0, 0, 0]] and batch.beside.dtype == np.float32
    assert head_batch([(Piece(np.arange(3)),)], [[]], np.arange(1), 8, 4, np.zeros((), np.int32), False).beside is None
    assert "beside" not in in_one([batch._replace(beside=None)])._fields
    with pytest.raises(UserError, match="goes with no other"):
        in_one([batch])


def judged_batch(labels) -> HeadBatch:
    labels = np.asarray(labels, np.float32)[None]
    return HeadBatch(*[None] * 4, labels, np.ones(labels.shape[:2], np.float32), None, None)  # type: ignore[arg-type]


def test_a_judged_answer_earns_its_reward_by_the_ratio_of_its_probabilities():
    """And one that is simply true has the usual loss."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 3)), jnp.float32)
    p = np.asarray(jax.nn.softmax(logits))[0]
    batch = judged_batch([[0, 0, 0], [1, 1, 0.5], [2, -1, 0.25], [0, 1, 1e-4]])
    losses, _ = JudgedClasses(3, clip=2.0).losses(logits, batch)
    wanted = [-np.log(p[0, 0]), -p[1, 1] / 0.5, p[2, 2] / 0.25, -2.0]
    np.testing.assert_allclose(np.asarray(losses)[0], wanted, rtol=1e-5)
    slope = jax.grad(lambda logits: JudgedClasses(3, clip=2.0).losses(logits, batch)[0].sum())(logits)
    assert (np.asarray(slope)[0, 3] == 0).all() and np.asarray(slope)[0, 1, 1] < 0 < np.asarray(slope)[0, 2, 2]


def test_a_wrong_answer_is_unlearned_however_likely_it_has_become():
    """A reward that is clipped is no reason to go on; a loss that were clipped would keep the worst answers."""
    logits = jnp.asarray([[[5.0, 0.0]]], jnp.float32)
    batch = judged_batch([[0, -1, 0.01]])
    loss = lambda logits: JudgedClasses(2, clip=2.0).losses(logits, batch)[0].sum()  # noqa: E731
    p = float(jax.nn.softmax(logits)[0, 0, 0])
    assert np.isclose(float(loss(logits)), p / 0.01, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(jax.grad(loss)(logits))[0, 0], np.array([1, -1]) * p * (1 - p) / 0.01, rtol=1e-3)


def test_answers_that_were_judged_have_no_class_weights():
    batch = judged_batch([[0, 0, 0], [1, 0, 0], [1, -1, 0.25], [0, 1, 0.5]])
    head = HeadLoss(None, JudgedClasses(2), Supervised(), "mean", (3.0, 5.0))
    assert np.asarray(head.weights(batch))[0].tolist() == [3.0, 5.0, 1.0, 1.0]
    assert np.asarray(head.weights(batch._replace(weights=batch.weights * 0))).sum() == 0


def test_its_mean_estimates_what_another_policy_earns():
    """Answers drawn by one policy, judged, and weighed for another: its mean reward, exact by sum, within 4 standard errors."""
    draw = np.random.default_rng(0)
    then, now, reward = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6]), np.array([1.0, -1.0, 1.0])
    answers = draw.choice(3, size=20_000, p=then)
    batch = judged_batch(np.stack([answers, reward[answers], then[answers]], -1))
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(now, jnp.float32)), (1, len(answers), 3))
    losses = np.asarray(JudgedClasses(3, clip=100.0).losses(logits, batch)[0])[0]
    assert abs(-losses.mean() - now @ reward) < 4 * losses.std() / len(answers) ** 0.5
