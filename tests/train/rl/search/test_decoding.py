"""More forward passes for a response: what they find, what they cost, and whose prompt a response is judged by."""

import dataclasses

import flax.linen as nn
import jax
import pytest

from data.errors import UserError
from tests.train.rl.policies import TINY, Echo
from tests.train.tiny_runs import start
from train.devices.mesh import MeshShape, make_mesh
from train.objectives.bind import bind
from train.rl.environments.text_tasks import Letters
from train.rl.options import GRPO, PPO, Prompts
from train.rl.rewards.rewards import Judged, RewardModel
from train.rl.search.decoding import measure_decoding

TASK = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, init_std=0.02),
    data=Prompts(environments=(Letters("copy", length=1, partial=False),), prompt_tokens=4, validation=24),
    objective=PPO(response_tokens=2, critic="shared"),
)


MODELLED = Judged(Letters(), RewardModel("somewhere"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return start(tmp_path_factory.mktemp("decoding") / "run", TASK)


@pytest.fixture
def untrained(run, monkeypatch):
    """A policy that finds every token about as likely as every other."""
    params = nn.unbox(bind(run.experiment).start(jax.random.key(0)))
    monkeypatch.setattr("train.rl.search.decoding.load_parameters", lambda run, mesh, step: (params, 7))
    monkeypatch.setattr("train.rl.search.decoding.inference_mesh", lambda shape: make_mesh(MeshShape(data=1), jax.devices()[:1]))


def test_passes_buy_what_they_can(run, untrained):
    """One digit and the end are wanted, the digit that of its own prompt: of 64 ids; few responses are right by chance.

    Every sample costs its length; N samples that of all.
    """
    sample = measure_decoding(run, "sample", 1)
    assert sample["decode"] == "sample" and sample["step"] == 7 and sample["prompts"] == 24
    assert sample["passes"] == sample["length"] <= 2 and sample["solved"] < 0.2
    search = measure_decoding(run, "search", 400, considered=40, batch_size=7)  # the last batch is a part
    assert search["passes"] == pytest.approx(400 * search["length"])
    best = measure_decoding(run, "best_of", 400)
    assert min(search["solved"], best["solved"]) > 0.5 > sample["solved"] and best["passes"] > 400, (search, best)
    assert best["solved"] == pytest.approx(best["score"])
    beams = measure_decoding(run, "beam", 100)
    assert beams["passes"] <= 200 and beams["solved"] >= sample["solved"]
    first = measure_decoding(run, "best_first", 150, considered=40)
    assert first["solved"] > sample["solved"] and first["passes"] == 300
    guided = measure_decoding(run, "guided", 20)
    assert guided["passes"] <= 20 * guided["length"]


@pytest.mark.parametrize(
    "changes, kind, passes, what",
    [
        ({"objective": GRPO(response_tokens=2)}, "search", 8, "needs a critic"),
        ({"data": TINY.data, "objective": TINY.objective}, "best_of", 8, "trained on reward"),
        ({"data": dataclasses.replace(TASK.data, environments=(Echo(),))}, "best_of", 8, "replies"),
        ({}, "search", 1, "too few"),
        (
            {"data": dataclasses.replace(TASK.data, environments=(Judged(Letters(), RewardModel("somewhere")),))},
            "best_first",
            8,
            "from within",
        ),
    ],
)
def test_what_cannot_be_decoded_so_is_refused(run, changes, kind, passes, what):
    other = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, **changes))
    with pytest.raises(UserError, match=what):
        measure_decoding(other, kind, passes)
