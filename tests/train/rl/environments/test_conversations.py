"""Responses of several turns: what an environment answers lies between them, and is not learned from."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from model.decoding.sampling import Sampling
from model.heads import Head, score_tokens, vocabulary_table
from tests.train.rl.conftest import DECODER, PROMPT, STOP, parameters
from tests.train.rl.policies import TINY, Echo
from tests.train.tiny_runs import check, start, train
from train.devices.mesh import MeshShape, make_mesh
from train.loop.learner import learner_of
from train.loop.telemetry import read_metrics
from train.rl.environments.text_tasks import Letters
from train.rl.options import PPO, Prompts
from train.rl.policy.experience import inputs_of
from train.rl.policy.rollout import as_rollout, go_on, start_talk
from train.runs.directory import open_corpora

TURN, REPLY = 4, 3
ROOM = 2 * TURN + REPLY


def test_a_conversation_has_the_log_probabilities_of_its_tokens_in_a_row():
    """Rows end their first turn at different places; each is what the model says of the same ids without gaps or padding."""
    params, rng = parameters(), np.random.default_rng(0)
    lengths = jnp.asarray([2, 5, 3, 4], jnp.int32)
    prompts = jnp.asarray(rng.integers(4, 17, (4, PROMPT)), jnp.int32)
    replies, said = jnp.asarray(rng.integers(4, 17, (4, REPLY)), jnp.int32), jnp.asarray([3, 1, 0, 2], jnp.int32)
    sampling = Sampling(temperature=0.7, stop_ids=(STOP, *range(5, 12)))

    @jax.jit
    def talk(params):
        keys = jax.random.split(jax.random.key(2), 4)
        first = start_talk(DECODER, params, prompts, lengths, keys, sampling, turn=TURN, max_new_tokens=ROOM, samples=1)
        second = go_on(DECODER, params, first, replies, said, sampling, turn=TURN)
        return first, second, as_rollout(second.state, second.sampled_BS, second.stopped_B, ROOM)

    first, second, found = jax.device_get(talk(params))
    ends = first.state.ends_B
    assert len(set(ends.tolist())) > 1, "all rows ended at one place: choose another key"
    assert (found.mask_BR[2, ends[2] - PROMPT :] == 0).all() and found.stopped_B[2] == first.stopped_B[2]  # a row without a reply is over
    tokens_BT, valid_BT, positions_BT, _ = inputs_of(found)
    for row in range(4):
        inside = found.valid_BS[row] > 0
        ids = found.tokens_BS[row][inside]
        reply = replies[row, REPLY - int(said[row]) :].tolist()
        turn_one = found.tokens_BS[row, PROMPT : ends[row]].tolist()
        assert ids[: lengths[row] + len(turn_one) + len(reply)].tolist() == [
            *prompts[row, PROMPT - lengths[row] :].tolist(),
            *turn_one,
            *reply,
        ]
        np.testing.assert_array_equal(positions_BT[row][valid_BT[row] > 0], np.arange(valid_BT[row].sum()))
        hidden = DECODER.apply({"params": params}, jnp.asarray(ids[None, :-1])).hidden_BTD
        scored = score_tokens(Head(hidden, vocabulary_table(params)), jnp.asarray(ids[None, 1:]), temperature=0.7).log_probs[0]
        drawn = found.mask_BR[row][inside[PROMPT:]] > 0
        np.testing.assert_allclose(
            found.log_probs_BR[row][inside[PROMPT:]][drawn], np.asarray(scored)[lengths[row] - 1 :][drawn], atol=1e-4
        )
        assert drawn.sum() == len(turn_one) + (len(ids) - lengths[row] - len(turn_one) - len(reply))


TALK = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, context_length=20),
    data=Prompts(environments=(Echo(), Letters(length=3)), prompt_tokens=6, reply_tokens=6, validation=8),
    objective=PPO(group_size=2, response_tokens=4, critic="shared", epochs=1, kl_coefficient=0.0),
    steps=2,
)


def test_turns_are_learned_from_and_replies_are_not(tmp_path):
    """Rewards stand at the ends of turns; log-probabilities are the sampler's; one environment answers and the other does not."""
    run = start(tmp_path / "policy", TALK)
    summary = train(run)
    assert np.isfinite(summary["validation"]["score"]) and summary["validation"]["length"] > 0
    rows = [row for row in read_metrics(run.path) if row["kind"] == "train"]
    assert all(np.isfinite(row["loss"]) for row in rows) and len(rows) == 2

    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    learner = learner_of(run, run.corpora(), mesh)
    params = nn.unbox(learner.parameters(jax.random.key(0)))
    taken = learner._questions.take(0, 8)
    found, each = learner._sample(params, taken), [question for question in taken for _ in range(2)]
    mask, tokens = np.asarray(found.rollout.mask_BR), np.asarray(found.rollout.responses_BR)
    for row, question in enumerate(each):
        if question.environment == 0:
            said = [part.split("\n")[-1] for part in found.texts[row].split("\n[user] ")[:1]] + found.texts[row].split("\n")[2:]
            assert found.totals[row] == pytest.approx(sum(map(len, said)) / 10, abs=1e-5)
        else:
            assert "[user]" not in found.texts[row]
        turn_ends = (mask[row] == 1) & (np.append(mask[row][1:], 0) == 0)
        assert turn_ends[found.scores[row] != 0].all()
    assert {0, 1} == {question.environment for question in each}
    assert (tokens * mask).sum() > 0


@pytest.mark.parametrize("change, says", [({"reply_tokens": 12}, "in 2 turns"), ({"reply_tokens": 3}, "--data.reply-tokens")])
def test_what_does_not_fit_is_said(tmp_path, change, says):
    experiment = dataclasses.replace(TALK, data=dataclasses.replace(TALK.data, **change))
    with pytest.raises(UserError, match=says):  # noqa: PT012
        corpora = open_corpora(experiment)
        check(experiment, corpora)
        train(start(tmp_path / "run", experiment))
