"""What a run on media is made of: data of which nothing would be learned is refused, and data to judge by may be missing."""

import dataclasses

import numpy as np
import pytest

from data.errors import UserError
from data.media import packing
from data.media.kinds import Facts, Part, Sample, text_facts
from data.media.shards import write_media
from data.media.signals.encoding import encode_image
from tests.train.media.conftest import EXPERIMENT, MODEL
from tests.train.tiny_runs import check, start, train
from train.evaluation.checkpoint import evaluate_run
from train.experiment import Evaluation, Samples
from train.loop.telemetry import read_metrics
from train.objectives.media.options import AlignedLM, Alignment, Codebook, HiddenPatches, MediaClassification, MediaLM
from train.runs.resolve import resolve
from train.sources.dataset import dataset_of
from train.sources.media.options import MediaShards

PICTURE = encode_image(np.zeros((16, 16, 3), np.uint8))
KINDS = {
    "captions": [Part("text", "a caption", True)],
    "texts": [Part("text", "a text")],
    "classes": [],
    "nothing": [],
    "no pictures": [Part("text", "a caption", True)],
}


def samples_of(kind: str, count: int = 4):
    picture = [] if kind == "no pictures" else [Part("image", PICTURE)]
    parts = (*picture, *KINDS[kind])
    facts = [Facts(16, 16, bytes=len(PICTURE)) if part.kind == "image" else text_facts(part.content) for part in parts]
    return [(Sample(parts, label=0 if kind == "classes" else -1), facts)] * count


def experiment_on(folder, *sources: dict[str, str], objective=MediaLM()):
    """Of shards whose splits have samples of these kinds."""
    for number, splits in enumerate(sources):
        write_media(str(folder / str(number)), {split: samples_of(kind) for split, kind in splits.items()}, classes=["a"])
    data = MediaShards(shards=tuple(str(folder / str(number)) for number in range(len(sources))))
    model = dataclasses.replace(MODEL, context_length=32, encoders=MODEL.encoders[:1])
    return dataclasses.replace(EXPERIMENT, data=data, objective=objective, model=model)


@pytest.mark.parametrize(
    "objective, good, bad",
    [
        (MediaLM(), ("captions", "classes", "no pictures"), ("texts", "nothing")),
        (AlignedLM(), ("captions", "classes"), ("texts", "nothing", "no pictures")),
        (Alignment(), ("captions", "classes"), ("texts", "nothing", "no pictures")),
        (MediaClassification(classes=1), ("classes",), ("captions", "texts", "nothing")),
        (HiddenPatches(), ("captions", "classes", "nothing"), ("no pictures",)),
        (Codebook(), ("captions", "nothing"), ("no pictures",)),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, tuple) else "",
)
def test_data_of_which_nothing_would_be_learned_is_refused(objective, good, bad, tmp_path):
    for kind in good:
        made = experiment_on(tmp_path / f"good {kind}", {"train": kind}, objective=objective)
        dataset_of(made).check(dataset_of(made).open())
    for kind in bad:
        made = experiment_on(tmp_path / f"bad {kind}", {"train": kind}, objective=objective)
        with pytest.raises(UserError, match="nothing would be learned of it|to align"):
            dataset_of(made).check(dataset_of(made).open())


def test_each_source_must_have_something_to_learn(tmp_path):
    made = experiment_on(tmp_path, {"train": "captions"}, {"train": "texts"})
    with pytest.raises(UserError, match=r"1: none of its 4 samples for training has a text to learn"):
        check(made, dataset_of(made).open())


def test_what_is_judged_by_has_something_to_learn(tmp_path):
    """A loss over no token would be zero."""
    made = experiment_on(
        tmp_path, {"train": "captions", "validation": "captions"}, {"train": "captions", "validation": "texts"}, {"train": "captions"}
    )
    assert list(dataset_of(made).validation(dataset_of(made).open())) == ["0"]


def test_shards_without_a_training_split_are_refused_by_name(tmp_path):
    made = experiment_on(tmp_path, {"validation": "captions"})
    with pytest.raises(UserError, match="0: no samples in the split 'train'; there are 'validation'"):
        check(made, dataset_of(made).open())


def test_samples_to_judge_by_that_fit_no_row_are_told_before_the_first_step(tmp_path):
    long = Sample((Part("image", PICTURE), Part("text", "x" * 100, True)))
    facts = [Facts(16, 16, bytes=len(PICTURE)), text_facts("x" * 100)]
    made = experiment_on(tmp_path, {"train": "captions"})
    write_media(str(tmp_path / "0"), {"train": samples_of("captions"), "validation": [(long, facts)]})
    with pytest.raises(UserError, match="none of 1 samples of validation fits"):
        check(made, dataset_of(made).open())


def test_without_samples_to_judge_by_a_run_trains_and_saves(tmp_path, capsys):
    made = experiment_on(tmp_path, {"train": "no pictures"})
    model = dataclasses.replace(made.model, num_layers=1, encoders=())  # a small program, soon compiled
    made = dataclasses.replace(made, model=model, steps=2, evaluation=Evaluation(every=1), samples=Samples(every=1, tokens=4))
    run = start(tmp_path / "run", made)
    summary = train(run)
    assert summary["step"] == 2 and summary["validation"] == {}
    assert not [row for row in read_metrics(run.path) if row["kind"] == "evaluation"]
    assert capsys.readouterr().out.count("no validation") == 1
    with pytest.raises(UserError, match="nothing to measure in a validation split"):
        evaluate_run(run)
    write_media(str(tmp_path / "other"), {"validation": samples_of("no pictures")})
    assert evaluate_run(run, shards=(str(tmp_path / "other"),))["samples"] == 4


def test_each_plan_of_rows_is_made_once_in_a_start(tmp_path, monkeypatch):
    """Checks before a run, the run and all of its evaluations ask for the same plans."""
    made = experiment_on(tmp_path, {"train": "captions", "validation": "captions"})
    model = dataclasses.replace(made.model, num_layers=1)
    made = dataclasses.replace(made, model=model, steps=2, evaluation=Evaluation(every=1), samples=Samples(tokens=0))
    planned: list[int] = []
    monkeypatch.setattr(packing, "_plans", {})
    monkeypatch.setattr(packing, "first_fit", lambda *costs, plan=packing.first_fit: planned.append(len(costs[0])) or plan(*costs))
    corpora = dataset_of(made).open()
    check(resolve(made, corpora), corpora)
    train(start(tmp_path / "run", made), corpora=corpora)
    assert len([row for row in read_metrics(tmp_path / "run") if row["kind"] == "evaluation"]) == 2
    assert len(planned) == len(packing._plans) <= 2


def test_samples_are_drawn_one_by_one_each_in_a_row_of_its_own():
    """For private gradients: a row holds one sample and nothing of others; padding has no weight."""
    dataset = dataset_of(EXPERIMENT)
    sources = dataset.open()
    units = dataset.units(sources)
    assert units.what == "sample" and units.size > 100
    coins = np.arange(40, 44, dtype=np.uint64)
    batch = units.make(np.array([5, -1, 77, 5]), coins)
    assert len(set(batch.rows.tolist())) == 4 and batch.counts.tolist() == [1, 0, 1, 1]
    assert batch.segments.max(1).tolist() == [1, 0, 1, 1]
    np.testing.assert_array_equal(batch.targets[0], batch.targets[3])
    alone = units.make(np.array([77]), coins[2:3])
    for name in ("tokens", "targets", "weights", "labels"):
        np.testing.assert_array_equal(getattr(alone, name)[0], getattr(batch, name)[2])
    seen = {units.make(np.array([number]), coins[:1]).targets.tobytes() for number in range(20)}
    assert len(seen) > 10
    with pytest.raises(UserError, match="do not say whose they are"):
        dataset.units(sources, user="who")
