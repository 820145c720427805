"""Of encoder-decoders, classifiers of several labels, and runs that were trained in unusual ways, the model's own number is explained."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

import omnia
from data.errors import UserError
from model.text_encoder_config import TextEncoderConfig
from tests.train.conftest import change
from tests.train.explain.conftest import letters_experiment, several_experiment, translator_experiment
from tests.train.tiny_runs import start, train
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.evaluation.likelihood import likelihood
from train.explain.attribution import METHODS, completeness
from train.explain.influence import trained_by
from train.explain.subject import subject_of
from train.generation.chat import Chat
from train.kinds import realise
from train.objectives.distillation import Distillation
from train.objectives.text.options import MaskedLM


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translator")
    run = start(folder / "run", translator_experiment(folder))
    train(run)
    return run


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    run = start(folder / "run", several_experiment(folder))
    train(run)
    return run


def explained(run, capsys, *options) -> dict:
    assert omnia.main(["explain", str(run.path), *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_translator_is_explained_by_its_source(translator, capsys):
    """The first letter that it writes rests on one token of the source, the next, behind what is written, on another."""
    text = "abxcdvef"
    for written, letter in (("", "x"), ("x", "v")):
        found = explained(translator, capsys, "--prompt", text, "--written", written)
        assert found["answer"] == letter and found["tokens"] == [*text, ""] and found["attributions"][-1] == 0
        assert found["completeness_error"] < 1e-3
        assert found["value"] - found["baseline_value"] == pytest.approx(sum(found["attributions"]), rel=2e-3)
        assert found["tokens"][int(np.argmax(found["attributions"]))] == letter


def test_ngrams_are_seen_by_methods_that_take_tokens_away_alone(tmp_path, capsys):
    experiment = several_experiment(tmp_path)
    run = start(tmp_path / "run", dataclasses.replace(experiment, steps=1, objective=dataclasses.replace(experiment.objective, ngrams=2)))
    train(run)
    for method in ("integrated_gradients", "gradient_x_input", "rollout"):
        assert omnia.main(["explain", str(run.path), "--prompt", "abxc", "--method", method]) == 2
        assert "n-grams" in capsys.readouterr().err
    found = explained(run, capsys, "--prompt", "abxc", "--method", "shap")
    assert found["completeness_error"] < 1e-3


def test_its_number_is_the_log_odds_of_what_it_writes(translator):
    tokenizer, end = translator.tokenizer(), translator.document_end
    params, _ = load_parameters(translator, inference_mesh(translator.experiment.mesh))
    model = realise(translator.experiment.model)
    context = (*tokenizer.encode("abxcdvef").tolist(), end)

    def log_p(text: str) -> float:
        return likelihood(model, params, (context, tuple(tokenizer.encode(text).tolist()))).log_prob

    p = np.exp(log_p("xu") - log_p("x"))
    made = subject_of(translator, "abxcdvef", written="x", answer="u")
    assert made.values([made.free_T])[0] == pytest.approx(np.log(p) - np.log1p(-p), abs=1e-3)


def test_examples_of_a_translator_that_taught_it(translator):
    """Those with the same second letter, whatever their first: the loss is that of the token that is explained alone."""
    found = trained_by(translator, "abxcdvef", 1000, written="x", answer="v")
    assert found["unit"] == "example" and len(found["self"]) == found["of"]
    assert all(len(one["text"]) == 8 and one["label"][0] in "xyn" and one["label"][1] in "uvn" for one in found["self"])
    taught: Counter = Counter()
    for one in found["helped"] + found["hurt"]:
        taught[one["label"]] += one["influence"]
    same = [taught.pop(first + "v") for first in "xyn"]
    assert len(taught) == 6 and min(same) > 5 * max(taught.values())


def test_each_of_several_labels_has_its_own_explanation(several):
    text, numbers = "abxcdyef", []
    for label in "xy":
        made = subject_of(several, text, answer=label)
        assert made.answer == label and completeness(made, METHODS["integrated_gradients"](made).values_T) < 1e-3
        shares = METHODS["shap"](made).values_T
        assert made.texts[int(shares.argmax())] == label and shares.max() > 0.9 * shares.sum()
        numbers.append(made.values([made.free_T])[0])
    assert min(numbers) > 0  # it gives both; log-odds against all other labels would not say so
    against = subject_of(several, text, answer="x", against="y")
    assert against.values([against.free_T])[0] == pytest.approx(numbers[0] - numbers[1], abs=1e-4)
    with pytest.raises(UserError, match="gives several labels at once"):
        trained_by(several, text, 1)


def test_the_number_of_one_of_several_labels_is_the_log_odds_of_its_probability(several, tmp_path):
    (tmp_path / "asked.jsonl").write_text(json.dumps({"text": "abxcdyef", "label": ["x"]}) + "\n")
    out = tmp_path / "answers.jsonl"
    assert omnia.main(["evaluate", str(several.path), "--files", str(tmp_path / "asked.jsonl"), "--predictions", str(out)]) == 0
    p = json.loads(out.read_text())["probabilities"]
    for place, label in enumerate("xy"):
        made = subject_of(several, "abxcdyef", answer=label)
        assert made.values([made.free_T])[0] == pytest.approx(np.log(p[place]) - np.log1p(-p[place]), abs=1e-2)


def test_a_student_with_frozen_parts_is_explained(tmp_path):
    """What goes around a loss does not change what is explained."""
    experiment = change(letters_experiment(tmp_path, count=40, steps=1), checkpoints={"every": 1})
    teacher = start(tmp_path / "teacher", experiment)
    train(teacher)
    taught = dataclasses.replace(
        experiment, objective=Distillation(of=experiment.objective, teacher=str(teacher.path)), frozen=("embedding",)
    )
    student = start(tmp_path / "student", taught)
    train(student)
    made = subject_of(student, "abxc", answer="x", against="y")
    found = METHODS["integrated_gradients"](made).values_T
    assert completeness(made, found) < 1e-3 and np.abs(found).max() > 0


def test_a_decoder_reads_what_its_authors_begin_texts_with(tiny, tmp_path):
    run = start(tmp_path / "run", change(tiny, steps=1))
    train(run)
    plain = subject_of(run, "the")
    Chat(start_ids=(7, 8)).save(run.path)
    made = subject_of(run, "the")
    assert made.ids_T.tolist() == [7, 8, *plain.ids_T[1:]] and made.free_T.tolist() == [False, False, True, True, True]


def test_a_part_of_a_character_is_asked_for_as_it_is(tiny, tmp_path):
    """Whose text would be another token."""
    run = start(tmp_path / "run", change(tiny, steps=1))
    train(run)
    assert subject_of(run, "the", answer="é").number == "é".encode()[0]


@pytest.mark.parametrize(
    "options, said",
    [
        (["--method", "rollout"], "whose attention is known"),
        (["--lens"], "--lens is for decoders"),
        (["--pair", "b"], "runs that classify pairs"),
        (["--answer", ""], ""),
        (["--written", "a" * 30], "--written has 31 tokens"),
        (["--answer", "x", "--against", "x"], "is the answer itself"),
    ],
)
def test_what_does_not_fit_a_translator_is_refused(translator, options, said, capsys):
    assert omnia.main(["explain", str(translator.path), "--prompt", "abx", *options]) == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_only_an_encoder_decoder_has_written_something(several, capsys):
    assert omnia.main(["explain", str(several.path), "--prompt", "abx", "--written", "a"]) == 2
    assert "--written is for encoder-decoders" in capsys.readouterr().err


def test_an_encoder_without_labels_is_refused_before_anything_is_read(tiny, tmp_path):
    model = TextEncoderConfig(context_length=32, num_layers=1, embed_dim=16, num_heads=2)
    run = start(tmp_path / "run", change(tiny, model=model, objective=MaskedLM()))
    with pytest.raises(UserError, match="those are explained that give texts labels"):
        subject_of(run, "the")
