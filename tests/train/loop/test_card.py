"""A model card says what the run's files say, of every kind of run, and leaves no field empty."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

import omnia
from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text
from data.tokenizer import byte_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.bridge.published_models import write_folder
from tests.train.conftest import change, write_texts
from tests.train.tiny_runs import start
from train.adapters.options import LoRA
from train.bridge.importing import import_model, save_parameters
from train.experiment import Exact, Experiment, MeshShape, Schedule
from train.loop.card import FAIRNESS, PRIVACY, card_of, write_card
from train.loop.telemetry import Telemetry
from train.objectives.bind import bind
from train.objectives.tasks.options import Supervised
from train.rl.options import PreferenceLearning
from train.runs.serialize import to_json
from train.step.federated.options import Federated
from train.step.private.options import Private
from train.tasks.classification import Classification

GOLDEN = Path(__file__).parents[2] / "golden" / "format_1" / "run"
SECTIONS = ["Model", "Intended use", "Training data", "Training", "Measures", "Privacy", "Fairness", "Responsible use"]
FACTS = {"epsilon_pld": None, "epsilon_rdp": 2.5, "delta": 1e-5, "unit": "document", "units": 24, "noise_multiplier": 1.0, "clip": 1.0}


def checked(card: str) -> dict[str, str]:
    """The facts of a card: every section is there, no field is empty or a placeholder, and no table is broken."""
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == SECTIONS
    assert not re.search(r"\bNone\b|\bnan\b|\binf(inity)?\b|\bnull\b|TODO|FIXME|\{\w*\}|<\w+>|\[\]|\(\)", card)
    facts = {}
    for line in card.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 2 and all(cells), line
            facts[cells[0]] = cells[1]
    for section in re.split(r"^## .*$", card, flags=re.MULTILINE):
        assert section.strip()
    return facts


def logged(run) -> None:
    """What a run that has trained has beside its config."""
    with Telemetry(run.path, total_steps=4) as told:
        told.train(
            4, {"loss": 2.0, "gradient_norm": 1.0, "learning_rate": 1e-3, "tokens_per_second": 9.0, "data_wait": 0.0, "step_ms": 1.0}
        )
        told.evaluation(4, {"loss": 2.25, "accuracy": float("nan")})
    (run.path / "summary.json").write_text(json.dumps({"step": 4, "tokens": 4096, "seconds": 1.25}))
    (run.path / "environment.json").write_text(json.dumps({"device": "abacus", "devices": 3, "versions": {"jax": "9.9"}}))


def with_parameters(run):
    """The run with a checkpoint of zeros as parameters, and how many they are."""
    shapes = nn.unbox(jax.eval_shape(bind(run.experiment).start, jax.random.key(0)))
    save_parameters(run, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))
    return run, sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.fixture
def text(tiny, tmp_path):
    """A run on text: one corpus of two is anonymised, the other was cleaned before."""
    texts = write_texts(tmp_path / "letters", 0, 6)
    (texts / "clean.json").write_text(json.dumps({"documents": 9, "kept": {"documents": 6}, "removed": {"repetition": 3}}))
    (texts / "000.txt").write_text("write to ann@example.org\n" * 9)
    (tmp_path / "key").write_bytes(bytes(range(32)))
    shards = str(tmp_path / "letters_shards")
    prepare_text(PrepareText(output=shards, input=(str(texts),), validation=0.2, workers=1, anonymize=str(tmp_path / "key")))
    data = {"shards": (tiny.data.shards[0], shards)}
    small = change(tiny, name="a|b\nc", ema_decay=0.0, data=data)
    run, count = with_parameters(start(tmp_path / "text", small))
    return run, count


def test_a_run_on_text(text, tiny):
    run, count = text
    logged(run)
    facts = checked(card_of(run.path, intended=" to count\n sheep ", licence="Apache-2.0"))
    assert facts["parameters"] == f"{count:,}" and facts["num layers"] == "1" and facts["checkpoint"] == "step 0"
    assert (facts["intended use"], facts["licence"]) == ("to count sheep", "Apache-2.0")
    manifest = json.loads((Path(tiny.data.shards[0]) / "manifest.json").read_text())
    split = manifest["splits"]["train"]
    said = facts[f"source {Path(tiny.data.shards[0]).name}"]
    assert f"digest {manifest['digest']}; train {split['documents']:,} documents, {split['tokens']:,} tokens" in said
    assert "not anonymised" in said and "anonymised by patterns: 9 email" in facts["source letters_shards"].lower()
    card = card_of(run.path)
    assert "letters was cleaned: kept 6 of 9 documents; removed 3 repetition." in card
    assert str(run.path.parent) not in card  # no folder of this machine
    assert card.startswith("# Model card: a\\|b c\n")
    assert facts["steps"] == "4" and facts["tokens seen"] == "4,096" and facts["seconds"] == "1.2" and facts["energy"] == "not measured"
    assert facts["hardware"] == "abacus (devices 3)" and facts["versions"] == "jax 9.9"
    assert facts["loss"] == "2.25" and facts["accuracy"] == "no finite number"
    assert (
        "without a promise of privacy" in facts["promise"] and "no training for safety" in card and "Not measured: `omnia evaluate" in card
    )


def test_data_that_is_gone_or_other_by_now_is_not_described(text):
    run, _ = text
    manifest = Path(run.experiment.data.shards[1]) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(json.loads(manifest.read_text())["digest"], "0" * 32))
    facts = checked(card_of(run.path))
    assert "counts not recorded" in facts["source letters_shards"] and "documents" not in facts["source letters_shards"]
    shutil.rmtree(manifest.parent)
    assert "counts not recorded" in checked(card_of(run.path))["source letters_shards"]


def test_a_private_task_and_what_was_measured_of_it(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{'ab'[n % 2]} {n},{'xy'[n % 2]}\n" for n in range(40)))
    byte_tokenizer().save(str(tmp_path / "bytes"))
    model = TextEncoderConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2, prediction_head=False)
    run = start(
        tmp_path / "run",
        Experiment(
            steps=2,
            batch_size=32,
            model=model,
            data=Classification(files=(str(tmp_path / "train.csv"),), tokenizer=str(tmp_path / "bytes"), length=32, validation=0.0),
            objective=Supervised(),
            gradient=Private(noise_multiplier=1.0, delta=1e-2, expected_batch=4),
            schedule=Schedule(0, "constant"),
            mesh=MeshShape(data=1),
        ),
    )
    facts = checked(card_of(run.path))
    assert "how the model was trained is not known" not in facts["promise"] and PRIVACY in facts["promise"]
    assert "examples of each label" not in facts and facts["parameters"] == "no checkpoint is kept"
    rounds = Federated(clip=0.1, noise_multiplier=1.0, delta=1e-2, expected_batch=4)
    noisy = start(tmp_path / "noisy", dataclasses.replace(run.experiment, gradient=rounds))
    assert "examples of each label" not in checked(card_of(noisy.path))
    plain = start(tmp_path / "plain", dataclasses.replace(run.experiment, gradient=Exact()))
    assert checked(card_of(plain.path))["examples of each label"] == "x 20, y 20"
    monkeypatch.setattr("train.loop.card.LABELS", 1)
    assert checked(card_of(plain.path))["examples of each label"] == "x 20, and 1 more"
    logged(run)
    assert "none can be stated" in checked(card_of(run.path))["promise"]
    (run.path / PRIVACY).write_text(json.dumps(FACTS))
    gap = {"gap": 0.25, "low": 0.0, "high": 0.5, "p": 0.125, "p_holm": 1.0, "lowest": "a|b", "highest": "c", "left_out": []}
    groups = {
        "column": "town",
        "groups": [{"group": "a|b", "count": 40}],
        "left_out": {"d": 2},
        "gaps": {"accuracy": gap},
        "unmeasured": {},
    }
    swap = {"file": "/home/ann/pairs", "examples": 12, "changed": 0.5, "mean_change": 0.1, "intervals": {}, "shift": {}}
    measured = {"step": 2, "loss": "NaN", "accuracy": 0.5, "intervals": {"accuracy": [0.25, 0.75]}, "files": ["/home/ann/test.csv"]}
    (run.path / FAIRNESS).write_text(json.dumps({"measured": measured, "groups": groups, "swap": swap}))
    card = card_of(run.path)
    facts = checked(card)
    assert facts["epsilon by privacy loss distribution"] == "infinite: there is no noise" and facts["unit"] == "document"
    assert (
        facts["epsilon by Rényi, converted as by Canonne et al. 2020"] == "2.5"
        and facts["delta"] == "1e-05"
        and facts["rate"] == "not recorded"
    )
    assert "step 2 on test.csv" in card.lower() and "/home/ann" not in card and "a\\|b 40" in card and "d 2" in card
    assert "0.5 of 12 texts" in card
    assert "gap 0.25 (0 to 0.5), p 0.125" in card and "0.5 (0.25 to 0.75)" in card
    assert "Its promise of privacy holds" in card and "may give away" not in card


def test_adapters_and_what_they_stand_on(text, tmp_path):
    """And a run that learned from preferences, or starts from one that did, says so."""
    base, count = text
    on = dataclasses.replace(base.experiment, name="adapted", start=str(base.path), adapters=LoRA(rank=2))
    run = start(tmp_path / "adapted", on)
    facts = checked(card_of(run.path))
    assert facts["adapters"] == "LoRA" and facts["parameters of that run"] == f"{count:,}" and "'text'" in facts["starts from"]
    assert facts["parameters of the adapters"] == "no checkpoint is kept" and facts["objective of that run"] == "CausalLM"
    for where in (run.path, run.path / "start"):
        stored = json.loads((run.path / "config.json").read_text()), json.loads((where / "config.json").read_text())
        changed = stored[1] | {"experiment": stored[1]["experiment"] | {"objective": to_json(PreferenceLearning())}}
        (where / "config.json").write_text(json.dumps(changed))
        assert "It learned by PreferenceLearning" in card_of(run.path)
        (where / "config.json").write_text(json.dumps(stored[1]))
    assert "no training for safety" in card_of(run.path)


def test_an_import_and_an_old_run_say_what_they_do_not_know(tmp_path):
    write_folder(tmp_path / "published")
    run = import_model(tmp_path / "published", tmp_path / "run", said=lambda line: None)
    facts = checked(card_of(run.path))
    assert "none are recorded" in facts["steps"] and "none are named" in facts["sources"] and "none is recorded" in facts["promise"]
    facts = checked(card_of(GOLDEN))
    assert facts["gradient"] == "not recorded" and facts["hardware"] == "not recorded" and facts["steps"] == "2"


def test_the_verb_writes_whole_files_and_refuses_others(tmp_path, capsys):
    path = tmp_path / "card.md"
    assert omnia.main(["report", str(GOLDEN), "--card", str(path), "--licence", "MIT"]) == 0
    assert capsys.readouterr().out.strip() == str(path) and checked(path.read_text())["licence"] == "MIT"
    assert [one.name for one in tmp_path.iterdir()] == ["card.md"]
    for options, what in (
        (["--card", str(tmp_path / "card.txt")], "a card is a .md file"),
        (["--card", str(tmp_path / "none" / "card.md")], "no such folder"),
        (["--licence", "MIT"], "belongs to --card"),
    ):
        assert omnia.main(["report", str(GOLDEN), *options]) == 2
        assert what in capsys.readouterr().err
    with pytest.raises(UserError, match="not a run"):
        write_card(tmp_path, path)
