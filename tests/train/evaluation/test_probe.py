"""A linear probe finds the minimum that it names, and tells what vectors tell."""

import numpy as np
import pytest

from data.errors import UserError
from data.files import json_files
from tests.train.conftest import change
from train.evaluation.probe import PENALTY, fit, probe
from train.loop.loop import train
from train.runs.directory import create_run, open_corpora
from train.runs.resolve import resolve


def test_fit_is_at_the_minimum_of_its_loss():
    """The gradient of mean cross-entropy + penalty |w|^2, in NumPy, is zero there."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    found = fit(x, labels, 3)
    logits = x @ found["w"] + found["b"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True) - np.eye(3)[labels]
    np.testing.assert_allclose(x.T @ p / 60 + 2 * PENALTY * found["w"], 0, atol=2e-4)
    np.testing.assert_allclose(p.mean(0), 0, atol=2e-4)


def test_probe_tells_texts_that_differ_and_no_others(tiny, tmp_path):
    """Of an untrained model's vectors: which of two letters a text is made of, but no coin that was tossed for it."""
    experiment = change(tiny, steps=1, batch_size=8, micro_batches=1, mesh={"data": -1}, model={"num_layers": 1})
    corpora = open_corpora(experiment)
    run = create_run(tmp_path / "run", resolve(experiment, corpora), corpora)
    train(run)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(120):
        letter, kind = "ab"[number % 2], ("long", "short")[number // 2 % 2]
        rows.append({"text": letter * int(rng.integers(2, 9)), "label": letter, "held_out": number >= 80, "kind": kind})
    path = tmp_path / "probe.jsonl"
    path.write_text("\n".join(map(json_files.dumps, rows)))
    found = probe(str(run.path), str(path))
    assert found == {"accuracy": 1.0, "texts": 40, "accuracy_long": 1.0, "accuracy_short": 1.0}
    letters = list("abcdefgh ")
    tossed = [row | {"text": "".join(rng.choice(letters, 20)), "label": str(rng.integers(2))} for row in rows]
    path.write_text("\n".join(map(json_files.dumps, tossed)))
    assert 0.25 < probe(str(run.path), str(path))["accuracy"] < 0.75, "near chance, five deviations of it"


@pytest.mark.parametrize(
    "line", ['{"text": "a"}', '{"text": 1, "label": "b", "held_out": true}', '{"text": "a", "label": "b", "held_out": true}']
)
def test_files_that_are_no_probes_are_refused(tmp_path, line):
    (tmp_path / "probe.jsonl").write_text(line)
    with pytest.raises(UserError, match="held"):
        probe("nowhere", str(tmp_path / "probe.jsonl"))
