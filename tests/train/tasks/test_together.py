"""Several tasks in one run: shares are kept, the loss is the sum of what each task would have alone, and each is reported by its name."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest

import omnia
from data.errors import UserError
from data.tokenizer import character_tokenizer
from model.config import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.adapters.options import LoRA
from train.evaluation.checkpoint import evaluate_run
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.kinds import realise
from train.objectives.bind import bind
from train.objectives.tasks.options import Supervised, SupervisedTogether
from train.objectives.tasks.together import with_head
from train.runs.directory import open_corpora, open_run
from train.runs.resolve import resolve, with_new_parts
from train.sources.dataset import dataset_of
from train.step.adversarial.options import FGM
from train.tasks.classification import Classification
from train.tasks.code import Programs
from train.tasks.sequence import SequenceToSequence
from train.tasks.tagging import Tagging
from train.tasks.together import Together

ENCODER = TextEncoderConfig(context_length=32, num_layers=1, embed_dim=8, num_heads=2, pooler=False, prediction_head=False, token_types=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    texts = [(f"{a}{b} {word}", label) for word, label in [("good", "yes"), ("fail", "no")] for a in "aei" for b in "xyz"]
    (folder / "a.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    sentences = ["".join(f"{word} {tag}\n" for word, tag in [("in", "O"), (f"ro{a}e", "B-LOC"), ("now", "O")]) for a in "bcdfgh"]
    (folder / "b.conll").write_text("\n".join(sentences))
    character_tokenizer("abcdefghijklmnopqrstuvwxyz:\n ").save(str(folder / "tokenizer"))
    return folder


def experiment(folder, **changed) -> Experiment:
    tokenizer = str(folder / "tokenizer")
    tasks = (
        Classification(files=(str(folder / "a.csv"),), length=24, tokenizer=tokenizer, validation=0.3),
        Tagging(files=(str(folder / "b.conll"),), length=32, tokenizer=tokenizer, validation=0.3),
    )
    base = Experiment(
        steps=4,
        batch_size=8,
        model=ENCODER,
        data=Together(tasks=tasks, names=("mood", "places"), weights=(3.0, 1.0)),
        objective=SupervisedTogether(of=Supervised(head_dropout=0.0)),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(0, "constant"),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=4),
        samples=Samples(tokens=0),
        logging=Logging(every=1),
    )
    return dataclasses.replace(base, **changed)


def resolved(folder, **changed):
    """(experiment, dataset, sources), as a run has them."""
    whole = experiment(folder, **changed)
    sources = open_corpora(whole)
    whole = resolve(whole, sources)
    return whole, dataset_of(whole), sources


def test_each_step_has_every_task_in_its_share_and_rows_hold_texts_of_one(folder):
    whole, dataset, sources = resolved(folder)
    batches = dataset.batches(sources)
    for step in range(5):
        batch = batches.batch(step * 8, 8)
        texts, words = batch.weights
        assert texts.sum() == 6 and np.sum((batch.items >= 0) & (words.sum(1) > 0)[:, None]) == 2
        assert not np.any((texts.sum(1) > 0) & (words.sum(1) > 0))
        assert batch.tokens.shape == dataset.empty(len(batch.rows)).tokens.shape
    again = dataset.batches(sources).batch(8, 8)
    for one, other in zip(jax.tree.leaves(batches.batch(8, 8)), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_loss_is_the_sum_of_what_each_task_has_alone(folder):
    """Each task's own objective, on its rows alone, with the shares as weights; no task moves the head of another."""
    whole, dataset, sources = resolved(folder)
    bound, batch = bind(whole), dataset.batches(sources).batch(0, 8)
    params = nn.unbox(bound.start(jax.random.key(0)))
    assert set(params["task_heads"]) == {"mood", "places"}
    terms, metrics, _ = jax.jit(lambda p: bound.loss(p, batch, None))(params)
    total = 0.0
    for number, (name, share) in enumerate(zip(dataset.names, (0.75, 0.25), strict=True)):
        its = batch.of(number)
        rows = its.weights.sum(1) > 0
        alone = jax.tree.map(lambda x, rows=rows: x[rows], its)
        term = bind(dataset.each[number].experiment).loss(with_head(params, name), alone, None)[0]["loss"]
        found = terms[f"{name}/loss"]
        assert found.coefficient == share and float(found.total) == pytest.approx(float(term.total), rel=1e-5)
        assert float(found.weight) == float(term.weight)
        total += share * float(term.total / term.weight)
    assert float(metrics["loss"].total / metrics["loss"].weight) == pytest.approx(total, rel=1e-5)
    heads = jax.grad(lambda p: bound.loss(p, batch, None)[0]["mood/loss"].total)(params)["task_heads"]
    assert not np.any(heads["places"]["kernel"]) and np.any(heads["mood"]["kernel"])


def test_a_run_resumes_and_reports_every_task_by_its_name(folder, monkeypatch, tmp_path, capsys):
    whole = experiment(folder)
    one, two = (start(tmp_path / name, whole) for name in ("one", "two"))
    train(one, report=True)
    assert "mood: " in (one.path / "sections.json").read_text() and "places: " in (one.path / "sections.json").read_text()
    train_and_stop(two.path, 2, monkeypatch)
    train(open_run(two.path))
    assert outcome(one) == outcome(two)
    found = evaluate_run(open_run(one.path), predictions=tmp_path / "answers.jsonl")
    assert {"mood/accuracy", "places/f1", "mood/examples"} <= set(found)
    assert found["loss"] == pytest.approx(0.75 * found["mood/loss"] + 0.25 * found["places/loss"])
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines].count("mood") == found["mood/examples"] and len(lines) == found["mood/examples"] + found[
        "places/examples"
    ]
    assert "mood/accuracy" in found["intervals"]
    files = [str(folder / "a.csv"), str(folder / "b.conll")]
    assert omnia.main(["evaluate", str(one.path), "--files", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mood/examples"] == 18
    assert omnia.main(["evaluate", str(one.path), "--files", files[0]]) == 2
    assert "1 files for the 2 tasks mood, places" in capsys.readouterr().err


def test_a_model_that_writes_reads_the_rows_of_all_tasks_as_text(folder):
    decoder = ModelConfig(context_length=32, num_layers=1, embed_dim=8, num_heads=2)
    task = Classification(files=(str(folder / "a.csv"),), length=32, written=8, tokenizer=str(folder / "tokenizer"))
    other = dataclasses.replace(task, prompt="{text}:", validation_files=(str(folder / "c.csv"),), files=(str(folder / "c.csv"),))
    (folder / "c.csv").write_text((folder / "a.csv").read_text().replace("yes", "so"))
    other = dataclasses.replace(other, validation_files=())
    whole, dataset, sources = resolved(folder, model=decoder, data=Together(tasks=(task, other)))
    assert dataset.names == ("classification", "classification_2")
    batch = dataset.batches(sources).batch(0, 8)
    alone = [own.batches(list(its)) for own, its in zip(dataset.each, dataset._divided(sources), strict=True)]
    assert batch.weights.sum() == sum(own.batch(0, 4).weights.sum() for own in alone)
    assert set(bind(whole).parts) and bind(whole).outputs is None


def test_texts_and_programs_are_learned_together(folder, tmp_path):
    """By a model that writes: from files to the measures of each, BLEU of the one and pass@1 of the other."""
    (folder / "d.jsonl").write_text("".join(json.dumps({"source": f"a{b}", "target": b}) + "\n" for b in "bcdefghijk"))
    programs = [{"text": f"one {b}", "code": "x", "test_list": ["pass"]} for b in "bcdefghijk"]
    (folder / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in programs))
    common = {"length": 48, "written": 8, "tokenizer": str(folder / "tokenizer"), "validation": 0.3}
    texts = SequenceToSequence(files=(str(folder / "d.jsonl"),), **common)
    code = Programs(files=(str(folder / "e.jsonl"),), prompt="{source}:", **common)
    decoder = ModelConfig(context_length=48, num_layers=1, embed_dim=8, num_heads=2)
    run = start(tmp_path / "run", experiment(folder, model=decoder, data=Together(tasks=(texts, code), names=("texts", "code"))))
    train(run)
    found = evaluate_run(run)
    assert {"texts/bleu", "texts/loss", "code/pass@1", "code/loss"} <= set(found)
    assert found["loss"] == pytest.approx((found["texts/loss"] + found["code/loss"]) / 2)


def test_several_tasks_take_perturbed_embeddings_and_adapters(folder):
    """FGM moves the rows of all tasks; adapters train every head."""
    whole, dataset, sources = resolved(folder, gradient=FGM(epsilon=0.1))
    bound, batch = bind(whole), dataset.batches(sources).batch(0, 8)
    params = nn.unbox(bound.start(jax.random.key(0)))
    method = realise(whole.gradient, whole, "example")
    gradients, metrics, _ = jax.jit(lambda p: method(bound.loss, p, batch, None))(params)
    assert metrics["adversarial"].total > metrics["loss"].total
    assert all(np.any(gradients["task_heads"][name]["kernel"]) for name in ("mood", "places"))
    tuned = dataclasses.replace(whole, start="r", adapters=LoRA(rank=2))
    assert {"task_heads/mood", "task_heads/places"} <= set(with_new_parts(tuned, whole).adapters.trained)


def test_every_task_knows_whose_data_it_is(folder, tmp_path):
    dataset = dataset_of(experiment(folder))
    dataset.place = tmp_path
    assert [each.place for each in dataset.each] == [tmp_path] * len(dataset.each)


def test_mistakes_are_said(folder):
    task = Classification()
    for options, words in (
        ({"tasks": (task,)}, "at least two"),
        ({"weights": (1.0,)}, "weights"),
        ({"names": ("a", "a")}, "names"),
        ({"names": ("a/b", "c")}, "names"),
        ({"weights": (0.0, 1.0)}, "above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            Together(**({"tasks": (task, Tagging())} | options))
    with pytest.raises(ValueError, match="r_drop"):
        SupervisedTogether(of=Supervised(r_drop=1.0))
    with pytest.raises(UserError, match=r"data.tasks.1.files"):
        open_corpora(experiment(folder, data=Together(tasks=(experiment(folder).data.tasks[0], Tagging()))))
