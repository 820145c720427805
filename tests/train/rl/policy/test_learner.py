"""Whole runs of policies: killed and resumed, on several devices, with rewards and prompts that are no good."""

import dataclasses
import shutil
import signal

import jax
import numpy as np
import pytest

from data.errors import UserError
from model.transformer import Decoder
from tests.train.rl.policies import POLICY, PROMPTS, TINY, outcome, policy
from tests.train.tiny_runs import check, start, train
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.experiment import Checkpoints, Evaluation, MeshShape
from train.loop.learner import learner_of
from train.loop.meter import Meter
from train.loop.telemetry import read_metrics
from train.rl.environments.environment import Environment, Prompt
from train.rl.environments.text_tasks import Addition, RandomWalks
from train.rl.options import DAPO, PreferenceLearning, Preferences, Prompts, RewardModelling
from train.rl.policy.questions import Questions, check_scores
from train.rl.policy.sampler import ResponseSampler
from train.rl.rewards.rewards import Judged, Reward
from train.rl.rewards.scoring import load_scorer
from train.runs.directory import open_corpora, open_run
from train.runs.resolve import resolve
from train.sources.dataset import dataset_of


def test_demonstrations_weigh_responses_alone(started):
    """A digit of the sum is predicted, one of the question is not; a demonstration is the same whenever it is asked for."""
    learner = learner_of(started, started.corpora(), make_mesh(MeshShape(data=1), jax.devices()[:1]))
    batch, again = learner.batches.batch(0, 6), learner.batches.batch(2, 2)
    tokenizer = started.tokenizer()
    for row in range(6):
        inside = batch.segments[row] > 0
        prompt, response = tokenizer.decode(batch.targets[row][inside]).split("=" if "=" in tokenizer.decode(batch.targets[row]) else ">")
        assert batch.weights[row].sum() == len(response) + 1  # with the end of the document
        assert (batch.weights[row][: len(prompt) + 1] == 0).all()
    np.testing.assert_array_equal(batch.targets[2:4], again.targets)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "dapo"])
def test_a_policy_that_is_killed_goes_on_as_if_nothing_had_happened(started, tmp_path, monkeypatch, kind):
    """Rows of metrics, parameters, optimizer, KL coefficient and cursor; DAPO takes a number of prompts that depends on what was drawn."""
    objectives = {"ppo": POLICY, "dapo": DAPO(group_size=2, response_tokens=4, most_draws=2)}
    experiment = policy(started, objectives[kind], evaluation=Evaluation(every=2))
    whole = start(tmp_path / "whole", experiment)
    train(whole)
    parts = start(tmp_path / "parts", experiment)
    record = Meter.record
    for last in (3, 4):

        def record_and_kill(self, step, *rest, last=last, **options):
            record(self, step, *rest, **options)
            if step == last < 4:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(Meter, "record", record_and_kill)
        assert train(open_run(parts.path))["step"] == last
    (expected_rows, expected), (found_rows, found) = outcome(whole), outcome(parts)
    assert found_rows == expected_rows
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    trained = [row for row in expected_rows if row["kind"] == "train"]
    assert len(trained) == 4 and {"objective/score", "objective/kl", "ppo/policy/clipfrac"} <= trained[0].keys()
    if kind == "ppo":
        assert expected[".carry['kl_coefficient']"] != np.float32(0.1) and expected[".cursor"] == 16
        assert abs(trained[0]["objective/kl"]) < 1e-4
        found = evaluate_run(parts)
        assert found["score"] == [row for row in expected_rows if row["kind"] == "evaluation"][-1]["score"] and 0 <= found["win_rate"] <= 1
    else:
        assert 16 <= expected[".cursor"] <= 32


def test_eight_devices_do_what_one_does(started, tmp_path):
    """The responses are the same, so are the scores, and parameters after a step up to rounding."""
    found = {}
    for count, reference in ((1, "host"), (8, "copy")):  # where the reference is kept changes nothing either
        objective = dataclasses.replace(POLICY, minibatches=1, reference=reference)
        experiment = policy(started, objective, steps=1, batch_size=16, mesh=MeshShape(data=-1, fsdp=min(2, count)))
        run = start(tmp_path / str(count), experiment)
        train(run, devices=count)
        found[count] = outcome(run)
    one, eight = ([row for row in found[count][0] if row["kind"] == "train"][0] for count in (1, 8))
    assert one["objective/score"] == eight["objective/score"] and one["response/length"] == eight["response/length"]
    np.testing.assert_allclose(one["objective/entropy"], eight["objective/entropy"], rtol=1e-5)
    np.testing.assert_allclose(one["gradient_norm"], eight["gradient_norm"], rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class Broken(Reward):
    """A reward of some shape and type."""

    gives: str = "nan"

    def scores(self, prompts, responses, ids, mask):
        good = np.ones(len(prompts), np.float32)
        if self.gives == "nan":
            good[0] = np.nan
        return {"nan": good, "short": good[:-1], "integers": np.ones(len(prompts), int), "tokens": np.ones(mask.shape, np.float32)}[
            self.gives
        ]


def test_a_score_that_is_no_number_leaves_out_its_group(started, tmp_path):
    """Two responses to each of four prompts; one score is NaN: two responses less are learned from, and the parameters stay finite."""
    data = dataclasses.replace(PROMPTS, environments=(Judged(environment=Addition(digits=1), reward=Broken()),))
    plain = dataclasses.replace(POLICY, kl_target=0.0)
    run = start(tmp_path / "run", policy(started, plain, data=data, steps=1))
    train(run)
    rows, state = outcome(run)
    row = next(row for row in rows if row["kind"] == "train")
    assert row["tokens"] <= 6 * 4 and row["objective/score"] == 1.0
    assert all(np.isfinite(value).all() for value in state.values() if value.dtype == np.float32)


@pytest.mark.parametrize("gives, what", [("short", "shape"), ("integers", "type int")])
def test_what_is_no_reward_is_refused(gives, what):
    with pytest.raises(UserError, match=what):
        check_scores(Broken(gives).scores([None] * 3, [""] * 3, None, np.ones((3, 4))), 3, 4, "Broken")
    assert check_scores(Broken("tokens").scores([None] * 3, [""] * 3, None, np.ones((3, 4))), 3, 4, "Broken").shape == (3, 4)


@pytest.mark.parametrize("learn_behind", [True, False])
def test_what_is_judged_ends_at_the_cut(started, learn_behind):
    """Responses of four characters, cut at the first 1 from the second place on: by the ids themselves."""
    o = dataclasses.replace(POLICY, stop=False, cut_at="1", cut_after=1, learn_behind_cut=learn_behind, missing_stop="replace")
    experiment, mesh = policy(started, o), make_mesh(MeshShape(data=1), jax.devices()[:1])
    questions = Questions(experiment, open_corpora(experiment))
    params, _ = load_parameters(started, mesh)
    found = ResponseSampler(experiment, questions, Decoder(started.experiment.model), mesh)(params, questions.take(0, 32))
    drawn, mask = jax.device_get((found.rollout, found.rollout.mask_BR))
    (one,) = questions.tokenizer.encode("1").tolist()
    for ids, text, ended, learned in zip(drawn.responses_BR, found.texts, drawn.stopped_B, mask.sum(1), strict=True):
        places = [place for place in range(1, 4) if ids[place] == one]
        judged = ids[: places[0] + 1] if places else ids
        assert ended == bool(places) and learned == (4 if learn_behind else len(judged))
        assert text == questions.tokenizer.decode(judged)
    assert 0 < drawn.stopped_B.sum() < 64
    with pytest.raises(UserError, match="2 tokens"):
        Questions(policy(started, dataclasses.replace(o, cut_at="12")), open_corpora(experiment))


@dataclasses.dataclass(frozen=True)
class LongPrompts(Environment):
    """Every third prompt is too long."""

    def draw(self, rng):
        return Prompt("1" * (9 if rng.random() < 0.3 else 2))

    @property
    def held_out(self):
        return False

    def score(self, prompt, response):
        return 1.0


def test_a_prompt_without_room_is_an_error_or_an_empty_place(started):
    experiment = policy(started, data=Prompts(environments=(LongPrompts(),), prompt_tokens=4, max_unusable=99))
    sources = open_corpora(experiment)
    questions = Questions(experiment, sources)
    taken = questions.take(0, 40)
    assert 0 < len(questions.unusable) < 40
    assert {question.row for question in taken if question.environment < 0} == questions.unusable
    with pytest.raises(UserError, match="max-unusable"):
        Questions(dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, max_unusable=0)), sources).take(0, 40)


@pytest.mark.parametrize(
    "fields, what",
    [
        ({"batch_size": 6, "objective": dataclasses.replace(POLICY, group_size=4)}, "multiple of objective.group_size"),
        ({"objective": dataclasses.replace(POLICY, response_tokens=40)}, "do not fit the context"),
        ({"data": TINY.data}, "it reads prompts, and the data gives"),
    ],
)
def test_mistakes_are_said_before_anything_runs(started, fields, what):
    experiment = policy(started, **fields)
    corpora = open_corpora(experiment)
    with pytest.raises(UserError, match=what):
        check(resolve(experiment, corpora), corpora)


def test_rows_may_be_shorter_than_those_of_the_start_and_not_longer(started):
    """All else of the model is the start's."""
    shorter, longer = (
        resolve(experiment, open_corpora(experiment)).model
        for experiment in (policy(started, model=dataclasses.replace(TINY.model, context_length=n, embed_dim=32)) for n in (10, 99))
    )
    assert shorter == dataclasses.replace(started.experiment.model, context_length=10)
    assert longer == started.experiment.model


def test_a_run_goes_on_when_what_it_started_from_is_gone(started, tmp_path):
    """It keeps a copy, with the tokenizer and the model."""
    source = shutil.copytree(started.path, tmp_path / "source")
    made = start(tmp_path / "run", policy(started, start=str(source)))
    shutil.rmtree(source)
    assert resolve(made.experiment, made.corpora(), made) == made.experiment
    with pytest.raises(UserError, match="source: not a run"):
        resolve(made.experiment, made.corpora())


def test_a_start_whose_checkpoint_is_gone_is_named(started, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(started.path, copy)
    newest = max((path for path in (copy / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    shutil.rmtree(newest)
    with pytest.raises(UserError, match="is missing"):
        start(tmp_path / "run", dataclasses.replace(policy(started), start=str(copy)))


def test_a_policy_needs_something_to_stay_near(tmp_path):
    experiment = dataclasses.replace(TINY, data=PROMPTS, objective=POLICY)
    with pytest.raises(UserError, match="--start"):
        train(start(tmp_path / "run", experiment))


def test_prompts_of_validation_are_not_trained_on():
    experiment = dataclasses.replace(TINY, data=Prompts(environments=(Addition(digits=2),)), objective=POLICY)
    questions = Questions(experiment, open_corpora(experiment))
    held = {question.prompt.text for question in questions.take(0, 300, "validation")}
    trained = {question.prompt.text for question in questions.take(0, 2000)}
    assert not held & trained and len(held) > 200
    assert RandomWalks().prompt(0, 5) == RandomWalks().prompt(0, 5)


# ------------------------------------------------------------------------------------------------------------------ comparisons


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory):
    """A sum is right or wrong."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = [
        f'{{"prompt": "{a}+{b}=", "chosen": "{a + b}", "rejected": "{(a + b + 3) % 10}", "scores": [2, -1.5]}}'
        for a in range(6)
        for b in range(6)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_loss_of_a_whole_batch_refuses_micro_batches(started, comparisons):
    experiment = policy(started, PreferenceLearning(loss="kto"), data=Preferences(files=(comparisons,)), micro_batches=2)
    with pytest.raises(UserError, match="micro-batches"):
        check(experiment, open_corpora(experiment))


@pytest.mark.parametrize("loss", ["dpo", "orpo", "reward", "score"])
def test_comparisons_are_learned(started, tmp_path, comparisons, monkeypatch, loss):
    """At the start the policy is its reference: DPO's loss is ln 2 and its margin 0. Then it falls."""
    rewards = {"reward": RewardModelling(), "score": RewardModelling(loss="score", centre=0.0)}
    objective = rewards[loss] if loss in rewards else PreferenceLearning(loss=loss)
    data = Preferences(files=(comparisons,), validation=8)
    run = start(tmp_path / "run", policy(started, objective, data=data, steps=12, checkpoints=Checkpoints(every=0)))
    train(run)
    rows = [row for row in read_metrics(run.path) if row["kind"] == "train"]
    assert rows[-1]["loss"] < rows[0]["loss"]
    if loss == "dpo":
        assert abs(rows[0]["loss"] - np.log(2)) < 1e-5 and abs(rows[0]["margin"]) < 1e-5
    evaluated = [row for row in read_metrics(run.path) if row["kind"] == "evaluation"][-1]
    assert evaluated["examples"] == 8 and 0 <= evaluated["accuracy"] <= 1
    if loss == "reward":  # as a reward it is normalised over the responses that it was evaluated on
        texts = [Prompt(f"{a}+1=") for a in range(6)], [str(a + 1) for a in range(6)]
        normal = load_scorer(str(run.path))(*texts)
        monkeypatch.setattr("train.rl.rewards.scoring.normalisation", lambda path: (0.0, 1.0))
        plain = load_scorer(str(run.path))(*texts)
        deviation = (evaluated["score_square"] - evaluated["score_mean"] ** 2) ** 0.5
        np.testing.assert_allclose(normal, (plain - evaluated["score_mean"]) / deviation, rtol=1e-4, atol=1e-4)
        assert np.ptp(plain) > 0


@pytest.mark.parametrize(
    "text, what",
    [
        ("", "holds no records"),
        ('{"prompt": "a"}\n', "is not a comparison"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}\n', "equal responses"),
        ("{nonsense\n", "line 1"),
        ('{"prompt": "a", "responses": ["b", "c"], "best": 2}\n', "is not a comparison"),
    ],
)
def test_files_that_compare_nothing_are_refused(started, tmp_path, text, what):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    experiment = policy(started, RewardModelling(), data=Preferences(files=(str(path),)))
    with pytest.raises(UserError, match=what):
        dataset_of(experiment).batches(open_corpora(experiment))
