"""A mixture of three: every source is known by its name wherever its validation is shown, also where it has none."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import omnia
from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text
from tests.train.conftest import change
from tests.train.tiny_runs import start, train
from train.checkpoints.journal import Journal
from train.experiment import MeshShape, TextData
from train.loop.telemetry import read_metrics
from train.runs.directory import create_run, open_corpora
from train.runs.resolve import resolve
from train.sources.dataset import dataset_of
from train.sources.text import check_samples, source_names


def test_names_are_as_long_as_needed_to_tell_sources_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_names(["/data/wiki", "code/", "gs://bucket/books"]) == ["wiki", "code", "books"]
    assert source_names(["/data/a/shards", "/data/b/shards"]) == ["a/shards", "b/shards"]
    assert source_names(["/data/wiki", "/other/wiki", "/data/code"]) == ["data/wiki", "other/wiki", "data/code"]
    assert source_names([".", "/data/wiki"]) == [tmp_path.name, "wiki"]
    assert len(set(source_names(["/data/wiki", "/data/wiki"]))) == 2


@pytest.fixture(scope="module")
def three(corpora, tmp_path_factory):
    """Two sources with a validation split and one without, in folders with names of their own."""
    folder = tmp_path_factory.mktemp("three")
    for name, held_out in (("stories", 0.3), ("recipes", 0.0), ("letters", 0.3)):
        lines = [json.dumps({"text": f"{name} {number} " * 30}) for number in range(40)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        prepare_text(PrepareText(output=str(folder / name), input=(str(folder / f"{name}.jsonl"),), validation=held_out, workers=1))
    return tuple(str(folder / name) for name in ("stories", "recipes", "letters"))


@pytest.fixture(scope="module")
def mixture(three):
    return TextData(shards=three, weights=(0.9, 0.09, 0.01))


def test_a_small_weight_gets_its_share_of_rows(mixture, tiny):
    experiment = dataclasses.replace(tiny, data=mixture)
    corpora = open_corpora(experiment)
    batch = dataset_of(resolve(experiment, corpora)).batches(corpora).batch(0, 1000)
    texts = [corpora[0].tokenizer().decode(row) for row in batch.targets]
    shares = [np.mean([name in text for text in texts]) for name in ("storie", "recipe", "letter")]
    np.testing.assert_allclose(shares, mixture.weights, atol=0.006)  # a short last row may lack the word


def test_sources_are_named_in_metrics_console_report_and_evaluate(mixture, tiny, tmp_path, capsys):
    experiment = dataclasses.replace(tiny, data=mixture, steps=2, batch_size=8, micro_batches=1, mesh=MeshShape())
    corpora = open_corpora(experiment)
    run = create_run(tmp_path / "run", resolve(experiment, corpora), corpora)
    summary = train(run, devices=8, report=True)

    (row,) = [row for row in read_metrics(run.path) if row["kind"] == "evaluation"]
    assert row["sources"] == ["stories", "recipes", "letters"] == summary["validation"]["sources"]
    assert {key for key in row if key.startswith("loss/")} == {"loss/0", "loss/2"}
    assert f"(stories {row['loss/0']:.4f}, recipes none, letters {row['loss/2']:.4f})" in capsys.readouterr().out

    page = (run.path / "report.html").read_text()
    assert all(f"<th>loss, {name}</th>" in page for name in ("stories", "letters"))
    assert "Validation loss by source" in page

    assert not omnia.main(["evaluate", str(run.path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["sources"] == row["sources"]
    assert [found[name] for name in ("loss/0", "loss/2")] == pytest.approx([row["loss/0"], row["loss/2"]], rel=1e-5)
    assert min(found["loss/0"], found["loss/2"]) <= found["loss"] <= max(found["loss/0"], found["loss/2"])

    assert not omnia.main(["evaluate", str(run.path)])
    shown = capsys.readouterr().out
    assert f"loss/stories     {found['loss/0']:.4f}" in shown
    assert "loss/recipes     none: no validation split" in shown
    assert "loss/0" not in shown and "['" not in shown


def test_data_that_moved_is_asked_for_and_taken_where_it_is(tiny, corpora, tmp_path):
    """Other data of the run's tokenizer can be measured though its own is gone; and the hint is not to prepare it again."""
    shutil.copytree(corpora[0], tmp_path / "here")
    run = start(tmp_path / "run", change(tiny, data={"shards": (str(tmp_path / "here"),), "weights": ()}))
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(UserError, match="here: the data of .*run is not there\n.*--data.shards PATH.*--shards PATH"):
        run.corpora()
    (moved,) = run.other_corpora((str(tmp_path / "there"),))
    assert moved.digest == run.digests[0]
    assert [corpus.path for corpus in run.other_corpora(corpora)] == list(corpora)
    with pytest.raises(UserError, match="nowhere/manifest.json: missing"):
        run.other_corpora((str(tmp_path / "nowhere"),))


def test_other_data_must_have_the_runs_tokenizer(tiny, corpora, tmp_path):
    run = start(tmp_path / "run", tiny)
    text = tmp_path / "a.txt"
    text.write_text("the cat sat. " * 50)
    prepare_text(PrepareText(output=str(tmp_path / "other"), input=(str(text),), tokenizer="char", workers=1))
    with pytest.raises(UserError, match="another tokenizer than the run's"):
        run.other_corpora((str(tmp_path / "other"),))


def test_a_run_that_is_asked_for_less_than_it_has_done_says_so(tiny, tmp_path, capsys):
    """It used to say no more than that it was complete; and its config must not say less than was trained."""
    run = start(tmp_path / "run", tiny)
    journal = Journal(run.path / "checkpoints")
    journal.open()
    journal.step_folder(6).mkdir()
    journal.record(6, part=0, parts=1, identity="", good=True, loss=None)
    before = (run.path / "config.json").read_bytes()
    devices = ["--mesh.data", str(jax.device_count())]
    assert omnia.main(["train", str(run.path), "--steps", "5", *devices, "--batch-size", "16"]) == 0
    assert "has taken 6 steps, and 5 are asked for: nothing is trained" in capsys.readouterr().out
    assert (run.path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "learns", "validates"), [("ab", False, False), ("abcdefghij", True, False), ("abcdefghij" * 2, True, True)]
)
def test_a_corpus_without_a_token_to_predict_is_not_trained_on(text, learns, validates, tiny, tmp_path):
    """Cut at its tail, a document has nothing before its first token: a split of one token has nothing to predict, nor to validate with."""
    (tmp_path / "a.txt").write_text(text)
    corpus = prepare_text(PrepareText(output=str(tmp_path / "shards"), input=(str(tmp_path / "a.txt"),), validation=0.1, workers=1))
    assert bool(corpus.targets("validation")) == validates
    experiment = change(tiny, data={"shards": (corpus.path,), "weights": ()}, model={"vocab_size": 384})
    if learns:
        dataset_of(experiment).batches([corpus])
    else:
        with pytest.raises(UserError, match="holds no token to learn"):
            dataset_of(experiment).batches([corpus])


def test_sample_prompts_are_encoded_before_the_first_step(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("0123456789 " * 20)
    corpus = prepare_text(
        PrepareText(output=str(tmp_path / "shards"), input=(str(tmp_path / "a.txt"),), tokenizer="char", validation=0, workers=1)
    )
    asked = change(tiny, samples={"tokens": 4, "prompts": ("1", "the ")}, model={"vocab_size": 64})
    with pytest.raises(UserError, match="samples.prompts: 'the ': character 't' is not among"):
        check_samples(asked, [corpus])
    check_samples(change(asked, samples={"prompts": ("1", "")}), [corpus])
    check_samples(change(asked, samples={"tokens": 0}), [corpus])
