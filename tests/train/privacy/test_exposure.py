"""Exposure of planted secrets: its definition by enumeration, its mean for secrets nobody saw, and a model that learned one."""

import json
import math

import numpy as np
import pytest

import omnia
from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text
from model.config import ModelConfig
from tests.train.conftest import write_texts
from tests.train.tiny_runs import start, train
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, MeshShape, Samples, Schedule, TextData
from train.privacy.exposure import UNIFORM, exposures, filled, secrets

FORM = "pin ###"


def test_it_is_the_logarithm_of_the_space_less_that_of_the_rank():
    log_probs = np.random.default_rng(0).permutation(np.arange(1000.0))
    ranks = np.array([1 + (log_probs > one).sum() for one in log_probs])  # definition 1 of the paper
    found = exposures(log_probs, log_probs, 1000)
    np.testing.assert_allclose(found, np.log2(1000) - np.log2(ranks))
    assert found.max() == pytest.approx(math.log2(1000)) and found.min() == pytest.approx(0)
    assert found.mean() == pytest.approx(math.log2(1000) - math.lgamma(1001) / math.log(2) / 1000)  # of all ranks once
    assert found.mean() == pytest.approx(UNIFORM, abs=0.02)


def test_a_sample_of_the_space_tells_nearly_the_same():
    rng = np.random.default_rng(1)
    space = rng.normal(size=200_000)
    planted = space[:400]
    exact, drawn = exposures(planted, space, len(space)), exposures(planted, rng.choice(space, 10_000), len(space))
    low = exact < 8
    np.testing.assert_allclose(drawn[low], exact[low], atol=0.7)
    assert exposures([99.0], rng.choice(space, 10_000), len(space))[0] == pytest.approx(math.log2(10_001))


def test_secrets_are_different_and_of_their_form():
    found = secrets("a#b##", 300, seed=0)
    assert len(set(found)) == 300 and all(one[0] == "a" and one[2] == "b" and one[1].isdigit() for one in found)
    assert filled("a#b##", 7) == "a0b07" and secrets("a#b##", 300, seed=0) == found != secrets("a#b##", 300, seed=1)
    for form, count, said in (("none", 1, "1 to 15"), ("#", 9, "more digits")):
        with pytest.raises(UserError) as error:
            secrets(form, count, 0)
        assert said in str(error.value)


def test_a_model_gives_away_what_it_learned_by_heart_and_not_what_it_never_saw(tmp_path, capsys):
    write_texts(tmp_path / "texts", 0, 12)
    listed, folder = tmp_path / "secrets.txt", tmp_path / "planted"
    assert omnia.main(["privacy", "plant", f"--output={folder}", f"--secrets={listed}", f"--form={FORM}", "--count=2", "--repeats=9"]) == 0
    assert len(list(folder.iterdir())) == 18 and len(listed.read_text().split("\n")) == 3
    prepare_text(PrepareText(output=str(tmp_path / "shards"), input=(str(tmp_path / "texts"), str(folder)), validation=0.0, workers=1))
    plain = Experiment(
        steps=120,
        batch_size=16,
        model=ModelConfig(context_length=32, num_layers=1, embed_dim=32, num_heads=2),
        data=TextData(shards=(str(tmp_path / "shards"),)),
        optimizer=AdamW(learning_rate=1e-2),
        schedule=Schedule(warmup_steps=2),
        mesh=MeshShape(data=1),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    unseen = tmp_path / "unseen.txt"
    unseen.write_text("\n".join(secrets(FORM, 100, seed=9)) + "\n")

    def measured(run, file):
        capsys.readouterr()
        assert omnia.main(["privacy", "exposure", str(run.path), "--secrets", str(file), "--form", FORM, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    run = start(tmp_path / "run", plain)
    train(run)
    found = measured(run, listed)
    assert found["exact"] and found["size"] == 1000 and found["most"] == pytest.approx(math.log2(1000))
    assert min(one["exposure"] for one in found["secrets"]) > 7
    assert measured(run, unseen)["mean"] == pytest.approx(UNIFORM, abs=0.6)
    for lines, said in (("pin 12a\n", "is not of the form"), ("", "no secrets to rank")):
        (tmp_path / "bad.txt").write_text(lines)
        assert omnia.main(["privacy", "exposure", str(run.path), "--secrets", str(tmp_path / "bad.txt"), "--form", FORM]) == 2
        assert said in capsys.readouterr().err
