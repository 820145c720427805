"""Private runs: they resume to the bit, keep their secret, say what they cost, and draw what they promise to draw."""

import dataclasses
import json
import shutil
import stat
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

import omnia
from data.errors import UserError
from data.tokenizer import byte_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.conftest import change
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.experiment import Evaluation, Experiment, MeshShape
from train.kinds import realise
from train.objectives.bind import bind
from train.objectives.tasks.options import Supervised
from train.objectives.text.options import MaskedLM
from train.privacy.drawing import KEY
from train.runs.directory import PRIVACY, open_run
from train.sources.dataset import dataset_of, open_sources
from train.sources.drawing import drawing_of
from train.step.federated.options import Federated
from train.step.private.gradient import SECRET as HIDDEN
from train.step.private.options import Private
from train.tasks.changes.augmentation import Augment
from train.tasks.classification import Classification

SECRET = bytes(range(16))
COINS = np.arange(2, dtype=np.uint64)


@pytest.fixture
def private(tiny):
    """Documents as units: 33 of two corpora."""
    return change(tiny, data={"weights": ()}, micro_batches=1, batch_size=16, gradient=Private(epsilon=4.0, delta=1e-3, micro_batch=4))


def with_secret(run):
    """The run, its secret known to the test."""
    (run.path / KEY).write_bytes(SECRET)
    return run


def test_a_stopped_run_goes_on_to_the_bit_and_says_what_it_cost(private, tmp_path, monkeypatch, capsys):
    whole = with_secret(start(tmp_path / "whole", private))
    train(whole, report=True)
    stopped = with_secret(start(tmp_path / "stopped", private))
    train_and_stop(stopped.path, 5, monkeypatch)
    train(open_run(stopped.path))
    assert outcome(whole) == outcome(stopped)
    facts = json.loads((whole.path / PRIVACY).read_text())
    assert facts == json.loads((stopped.path / PRIVACY).read_text())
    assert facts["steps"] == 8 and facts["unit"] == "document" and 3.0 < facts["epsilon_pld"] <= 4.0 < facts["epsilon_rdp"]
    assert whole.experiment.gradient.noise_multiplier == facts["noise_multiplier"] > 0
    assert "Differential privacy" in (whole.path / "report.html").read_text()
    assert omnia.main(["privacy", "audit", str(whole.path), "--canaries", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["passed"] and set(found["checks"]) == {"clipping", "padding", "noise", "independence"}
    assert found["epsilon"] == facts["epsilon_pld"] and found["epsilon_audited"] <= found["epsilon_claimed_step"]


def test_the_noise_is_the_same_on_parameters_that_are_split_over_devices(private, tmp_path):
    """Drawn once, after the sum of all devices: two private steps on eight are those on one. Without noise they are others."""
    small = change(private, steps=2, evaluation={"every": 0}, ema_decay=0.0)
    found = []
    for name, mesh, devices, noise in (("one", {}, 1, 2.0), ("eight", {"data": 2, "fsdp": 4}, 8, 2.0), ("silent", {}, 1, 0.0)):
        gradient = dataclasses.replace(small.gradient, epsilon=0.0, noise_multiplier=noise)
        run = with_secret(start(tmp_path / name, dataclasses.replace(small, mesh=MeshShape(**mesh), gradient=gradient)))
        train(run, devices=devices)
        params, _ = load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]))
        found.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    one, eight, silent = found
    np.testing.assert_allclose(one, eight, atol=2e-5)
    assert np.abs(one - silent).max() > 1e-3


def test_the_secret_stays_in_the_run_and_is_needed_to_go_on_alone(private, tmp_path):
    run = start(tmp_path / "run", dataclasses.replace(private, steps=2))
    train(run)
    assert len((run.path / KEY).read_bytes()) == 16 and stat.S_IMODE((run.path / KEY).stat().st_mode) == 0o600
    published = shutil.copytree(run.path, tmp_path / "published", ignore=shutil.ignore_patterns(KEY))
    assert evaluate_run(open_run(published))["loss"] == evaluate_run(run)["loss"]
    longer = open_run(published)
    with pytest.raises(UserError, match=f"{KEY} is missing"):
        train(dataclasses.replace(longer, experiment=dataclasses.replace(longer.experiment, steps=4)))
    for name in ("config.json", "metrics.jsonl"):
        assert (run.path / KEY).read_bytes().hex() not in (run.path / name).read_text()


def people(tmp_path, rows: int = 60):
    """An experiment on rows of ten people, who have from one to eleven each."""
    rng = np.random.default_rng(0)
    owner = np.sort(np.concatenate([np.arange(10), rng.integers(0, 10, rows - 10)]))
    texts = [{"text": f"{'ab'[number % 2] * 3} {number}", "label": "xy"[number % 2], "who": f"p{who}"} for number, who in enumerate(owner)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, texts)) + "\n")
    byte_tokenizer().save(str(tmp_path / "bytes"))
    shape: dict[str, Any] = {"context_length": 32, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "prediction_head": False}
    data = Classification(files=(str(tmp_path / "train.jsonl"),), tokenizer=str(tmp_path / "bytes"), length=32, validation=0.0)
    gradient = Private(noise_multiplier=1.0, delta=1e-2, user="who", user_rows=3, expected_batch=4)
    experiment = Experiment(
        steps=2,
        batch_size=16,
        model=TextEncoderConfig(**shape),
        data=data,
        objective=Supervised(),
        gradient=gradient,
        mesh=MeshShape(data=1),
    )
    return experiment, owner


def drawn_batches(experiment, tmp_path):
    sources = open_sources(experiment)
    drawing, dataset = drawing_of(experiment), dataset_of(experiment)
    assert drawing is not None
    experiment = dataclasses.replace(experiment, objective=experiment.objective.completed(sources))
    dataset = dataset_of(experiment)
    (tmp_path / KEY).write_bytes(SECRET)
    drawing.begin(tmp_path)
    return drawing.batches(dataset, sources)


def test_a_unit_is_a_user_with_few_of_its_rows(tmp_path):
    experiment, owner = people(tmp_path)
    batches = drawn_batches(experiment, tmp_path)
    assert batches.rows_per_epoch == 10
    seen = set()
    for step in range(12):
        batch = batches.batch(step * 16, 16)
        assert len(batch.tokens) == 16 * 3
        for place in range(16):
            numbers = []
            for row in range(3):
                ids = batch.tokens[3 * place + row][batch.segments[3 * place + row] > 0][1:-1]
                if ids.size:
                    numbers.append(int(bytes(ids.tolist()).decode().split()[1]))
            users = {int(owner[number]) for number in numbers}
            assert len(users) <= 1 and len(numbers) == len(set(numbers))
            if users:
                assert len(numbers) == min(3, int((owner == min(users)).sum()))
                seen |= set(numbers)
    assert len(seen) > 45, "other rows of a user each time"
    rows, make = batches.laid(0, 16, 1)
    whole = make(0, rows)
    for first, count in ((0, 5), (5, 13), (47, 1)):
        part = make(first, count)
        for name in ("tokens", "segments", "labels", "weights", "rows"):
            np.testing.assert_array_equal(getattr(whole, name)[first : first + count], getattr(part, name))


def summed(run, without=None):
    """(the units of a step, what it sums of their gradients, flat): of all units that are drawn, or of all but one, without noise."""
    experiment, sources = run.experiment, run.corpora()
    drawing = drawing_of(experiment)
    drawing.begin(run.path)
    batches = drawing.batches(dataset_of(experiment), sources)
    draw = batches._draw
    batches._draw = lambda step: np.array([one for one in draw(step) if one != without])
    bound = bind(experiment, make_mesh(MeshShape(data=1), jax.devices()[:1]))
    method: Any = realise(experiment.gradient, experiment, experiment.objective.unit)

    def mean(params, batch):
        return method(bound.loss, params, batch, jax.random.key(1), frozen={HIDDEN: np.zeros(2, np.uint32)})[0]

    params = nn.unbox(bound.start(jax.random.key(0)))
    found = jax.jit(mean)(params, batches.batch(0, experiment.batch_size))
    return draw(0), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)]) * experiment.gradient.expected_batch


@pytest.mark.parametrize("case", ["documents", "users"])
def test_one_unit_more_moves_the_sum_by_no_more_than_the_norm(case, private, tmp_path):
    """Through all that is drawn: a window of each document, masks, rows of a user, edits of their words, dropout. Of the units that stand
    behind the one that is taken away, nothing changes."""
    if case == "documents":
        model = TextEncoderConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2, dropout=0.2)
        experiment = change(private, objective=MaskedLM(), model=model)
    else:
        experiment = change(people(tmp_path)[0], model={"dropout": 0.2}, data={"augment": Augment(rate=0.5)})
    silent = {"epsilon": 0.0, "noise_multiplier": 0.0, "clip": 1e-3, "expected_batch": 6}
    run = with_secret(start(tmp_path / "run", change(experiment, batch_size=64, gradient=silent)))
    chosen, whole = summed(run)
    assert len(chosen) > 2
    _, less = summed(run, without=chosen[0])
    clip = run.experiment.gradient.clip
    assert 0.5 * clip < np.linalg.norm(whole - less) <= clip * (1 + 1e-3)


@pytest.mark.parametrize(
    "options, said",
    [({"data": {"shots": 2}}, "data.shots shows other examples"), ({"objective": {"class_weights": "balanced"}}, "class_weights counts")],
)
def test_losses_of_a_unit_that_others_have_a_part_in_are_refused(options, said, tmp_path):
    experiment, _ = people(tmp_path)
    experiment = change(experiment, batch_size=64, gradient={"expected_batch": 6}, **options)
    with pytest.raises(UserError, match=said):
        train(start(tmp_path / "run", experiment))
    rounds = Federated(user="who", clip=0.1, noise_multiplier=1.0, delta=1e-2, expected_batch=6)
    with pytest.raises(UserError, match=said):
        realise(rounds, dataclasses.replace(experiment, gradient=rounds), "row")


def test_what_was_said_of_fewer_steps_goes_where_a_run_goes_on(private, tmp_path):
    run = start(tmp_path / "run", dataclasses.replace(private, steps=2))
    train(run, report=True)
    assert json.loads((run.path / PRIVACY).read_text())["steps"] == 2
    longer = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, steps=3, evaluation=Evaluation(every=0)))
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.loop.loop.write_sections", lambda path, sections: said.append((path / PRIVACY).exists()))
        patch.setattr("train.privacy.drawing.json_files.write", lambda *_: None)
        train(longer)
    assert said == [False]


@pytest.mark.parametrize(
    "gradient, said",
    [
        (Private(user="person"), "gradient.user asks for the column 'person'"),
        (Private(user="who", delta=0.5), "has 10 users"),
        (Private(user="who", delta=1e-3, expected_batch=9), "too little room"),
    ],
)
def test_what_promises_nothing_is_refused(tmp_path, gradient, said):
    experiment, _ = people(tmp_path)
    with pytest.raises(UserError, match=said):
        start(tmp_path / "run", dataclasses.replace(experiment, gradient=gradient))


def test_damaged_documents_are_counted_and_refused(private, monkeypatch):
    monkeypatch.setattr("train.sources.text.fill", lambda batch, rows, *more: np.ones(len(rows), bool))
    for allowed in (1, 0):
        experiment = change(private, data={"max_damaged": allowed})
        units = dataset_of(experiment).units(open_sources(experiment))
        if allowed:
            units.make(np.array([0, -1]), COINS)
        with pytest.raises(UserError, match=r"fails its digest"):
            units.make(np.array([0, 1]), COINS)


def test_text_has_no_users(private, tmp_path):
    with pytest.raises(UserError, match="does not say whose it is"):
        start(tmp_path / "run", dataclasses.replace(private, gradient=Private(user="who")))


@pytest.mark.parametrize(
    "options, said",
    [
        (["--examples", "100", "--batch-size", "10", "--epochs", "1"], "--epsilon or --noise-multiplier is needed"),
        (["--examples", "100", "--batch-size", "10", "--epsilon", "1"], "--epochs or --steps is needed"),
        (["--examples", "100", "--batch-size", "200", "--epsilon", "1", "--steps", "3"], "batch-size is 200"),
        (["--examples", "100", "--batch-size", "10", "--epsilon", "1", "--steps", "3", "--delta", "0.01"], "delta is 0.01"),
    ],
)
def test_a_plan_refuses_what_makes_no_sense(options, said, capsys):
    assert omnia.main(["privacy", "plan", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_plan_gives_noise_and_costs(capsys):
    known = ["--delta", "1e-5", "--examples", "60000", "--batch-size", "256", "--epochs", "15", "--json"]
    assert omnia.main(["privacy", "plan", "--epsilon", "3", *known]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 3516 and 2.9 < found["epsilon_pld"] <= 3.0 < found["epsilon_rdp"]
    assert omnia.main(["privacy", "plan", "--noise-multiplier", "1.3", *known]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon_pld"] == pytest.approx(0.864, abs=1e-3)
