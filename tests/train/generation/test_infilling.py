"""From data.fim_rate to `omnia generate --suffix`: training sees rearranged segments, and only the gap is written."""

import dataclasses
import json

import numpy as np
import pytest

import omnia
from data.errors import UserError
from tests.train.tiny_runs import train
from train.experiment import MeshShape, TextData
from train.runs.directory import create_run, open_corpora
from train.runs.resolve import resolve
from train.sources.dataset import dataset_of


def with_rate(experiment, rate):
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, fim_rate=rate))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_the_rate_is_a_share(rate):
    with pytest.raises(ValueError, match="fim_rate"):
        TextData(fim_rate=rate)


def test_training_rows_are_rearranged_at_the_rate(tiny):
    """Through the same function as the loop, on a mixture: none at 0, all at 1, half at a half."""
    corpora = open_corpora(tiny)
    marker = corpora[0].tokenizer().specials["fim_prefix"]
    batches = {rate: dataset_of(resolve(with_rate(tiny, rate), corpora)).batches(corpora).batch(0, 300) for rate in (0.0, 0.5, 1.0)}
    found = {rate: (batch.tokens[:, 0] == marker).mean() for rate, batch in batches.items()}
    assert found[0.0] == 0
    assert 0.4 < found[0.5] / found[1.0] < 0.6
    assert np.array_equal(batches[0.0].segments, batches[1.0].segments)


def test_a_vocabulary_without_the_ids_is_refused(tiny):
    corpora = open_corpora(tiny)
    size = max(corpus.ids for corpus in corpora)
    small = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, vocab_size=size))
    dataset_of(resolve(small, corpora)).batches(corpora)
    with pytest.raises(UserError, match=f"model.vocab_size is {size}"):
        dataset_of(resolve(with_rate(small, 0.5), corpora)).batches(corpora)


def test_a_run_fills_gaps_if_it_was_trained_to(tiny, tmp_path, capsys):
    experiment = dataclasses.replace(with_rate(tiny, 0.9), steps=2, batch_size=8, micro_batches=1, mesh=MeshShape())
    corpora = open_corpora(experiment)
    train(create_run(tmp_path / "run", resolve(experiment, corpora), corpora))
    command = ["generate", str(tmp_path / "run"), "--prompt", "the ", "--max-new-tokens", "8", "--seed", "3"]
    capsys.readouterr()
    assert not omnia.main([*command, "--suffix", "cat"])
    shown = capsys.readouterr().out
    assert not omnia.main([*command, "--suffix", "cat", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert shown == found["text"] + "\n"
    assert found["prompt"] == "the " and 0 < len(found["ids"]) <= 8
    assert not omnia.main([*command, "--json"])
    assert json.loads(capsys.readouterr().out)["ids"] != found["ids"]
    assert not omnia.main(["inspect", str(tmp_path / "run"), "--step", "0"])
    assert "<fim_suffix>" in capsys.readouterr().out, "rows are shown as the run sees them"

    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["experiment"]["data"]["fim_rate"] = 0.0
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    for arguments, said in ((command, "not trained to fill in"), (["generate", str(tmp_path / "run"), "--interactive"], "--prompt")):
        assert omnia.main([*arguments, "--suffix", "cat"]) == 2
        assert said in capsys.readouterr().err
