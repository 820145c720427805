"""Fairness of a run: what `omnia evaluate --groups` and `--swap` find of planted classifiers, keep in the run, and refuse."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import omnia
from data.errors import UserError
from data.tokenizer import character_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import start, train
from train.evaluation.checkpoint import evaluate_run
from train.experiment import Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.loop.report import write_report
from train.objectives.tasks.options import Supervised
from train.runs.directory import FAIRNESS, open_run
from train.tasks.changes.swaps import Swapped, Swaps, read_swaps, swap_scores
from train.tasks.classification import Classification
from train.tasks.fairness import Fairness, fairness_of

PAIRS = Swaps([("he", "she"), ("Mary", "John"), ("他", "她"), ("男人", "女人")])


@pytest.mark.parametrize(
    "text, swapped",
    [
        ("He said she left. THE HE-MAN", "She said he left. THE SHE-MAN"),
        ("the theme, there: he's here", "the theme, there: she's here"),
        ("Mary met john and JOHN", "John met mary and MARY"),
        ("他说她是女人。", "她说他是男人。"),
        ("nothing", "nothing"),
    ],
)
def test_words_are_swapped_whole_both_ways_and_in_their_case(text, swapped):
    assert PAIRS.swapped(text) == swapped and PAIRS.swapped(swapped) == text


@pytest.mark.parametrize(
    "text, swapped, sides",
    [
        ("ſhe is", "he is", (0, 1)),
        ("İyi gün, i̇yi", "Kötü gün, kötü", (2, 0)),
        ("Kötü", "İyi", (0, 1)),
        ("iyi ıyi", "iyi ıyi", (0, 0)),
        ("die Straße, STRASSE", "die Gasse, GASSE", (2, 0)),
    ],
)
def test_letters_whose_cases_are_not_one_for_one_are_one_word(text, swapped, sides):
    pairs = Swaps([("he", "she"), ("İyi", "Kötü"), ("Straße", "Gasse")])
    assert pairs.swapped(text) == swapped and pairs.sides(text) == sides


@given(st.lists(st.sampled_from(["he", "She", "HE", "mary", "John", "them", "他", "女人", " ", ", ", "é"]), max_size=12))
def test_swapping_twice_gives_the_text(words):
    text = " ".join(words)
    assert PAIRS.swapped(PAIRS.swapped(text)) == text
    first, second = PAIRS.sides(text)
    assert PAIRS.sides(PAIRS.swapped(text)) == (second, first)


@pytest.mark.parametrize(
    "content, what",
    [
        ("he,she\nhe, her\n", "line 2: 'he' stands twice"),
        ("he,He\n", "line 1: 'he,He' is no pair"),
        ("he\n", "is no pair"),
        ("\n \n", "holds no words"),
    ],
)
def test_files_of_swaps_are_checked(tmp_path, content, what):
    (tmp_path / "pairs").write_text(content)
    with pytest.raises(UserError, match=what):
        read_swaps(str(tmp_path / "pairs"))


def test_a_classifier_that_hears_she_is_told():
    """P(yes) is 0.7 with `he` and 0.4 with `she`: every answer changes, by 0.3, and the shift has its sign whichever stands first."""
    texts = [("he x", (1, 0)), ("she x", (0, 1)), ("she y", (0, 1)), ("he and she", (1, 1))]
    chance = [0.7, 0.4, 0.4, 0.5]
    after = [0.4, 0.7, 0.7, 0.5]
    before_NC, after_NC = (np.array([[1 - p, p] for p in ps]) for ps in (chance, after))
    swapped = [Swapped(text, PAIRS.swapped(text), sides) for text, sides in texts]
    found = swap_scores(swapped, before_NC, after_NC, ["no", "yes"])
    assert (found["examples"], found["changed"], found["mean_change"]) == (4, 0.75, pytest.approx(0.225))
    assert found["shift"]["yes"]["mean"] == pytest.approx(-0.3) == -found["shift"]["no"]["mean"] and found["shift"]["yes"]["examples"] == 3
    assert found["most"][0] == {"text": "he x", "swapped": "she x", "answer": "yes", "swapped_answer": "no", "change": pytest.approx(0.3)}
    assert swap_scores(swapped, before_NC, after_NC, ["no", "yes"], "yes")["mean_change"] == pytest.approx(0.225)
    assert swap_scores(swapped[3:], before_NC[3:], after_NC[3:], ["no", "yes"])["shift"] == {}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An encoder of characters that learned from texts in which `q` means yes, and which says yes to all of a group that has it."""
    folder = tmp_path_factory.mktemp("fair")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(160):
        label = ("no", "yes")[number % 2]
        rows.append((f"{rng.choice(['aa', 'ee'])} {'q' if label == 'yes' else 'w'} bb", label))
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    measured = []
    for number in range(160):
        label, town = ("no", "yes")[number % 2], ("north", "south")[number // 2 % 2]
        word = {"north": "q", "south": "q" if label == "yes" else "w"}[town]  # all of the north have q, whatever is true of them
        measured.append({"text": f"aa {word} bb", "label": label, "town": town, "age": number, "one": "same"})
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in measured))
    (folder / "pairs").write_text("q,w\n")
    train_file, test_file = str(folder / "train.csv"), str(folder / "test.jsonl")
    character_tokenizer("abcdefghijklmnopqrstuvwxyz ").save(str(folder / "tokenizer"))
    experiment = Experiment(
        steps=20,
        batch_size=16,
        model=TextEncoderConfig(
            context_length=16, num_layers=1, embed_dim=16, num_heads=2, init_std=0.3, pooler=False, prediction_head=False, token_types=0
        ),
        data=Classification(files=(train_file,), validation_files=(test_file,), length=16, tokenizer=str(folder / "tokenizer")),
        objective=Supervised(head_dropout=0.0),
        schedule=Schedule(0, "constant"),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    faster = dataclasses.replace(experiment.optimizer, learning_rate=3e-2)
    made = start(folder / "run", dataclasses.replace(experiment, optimizer=faster))
    train(made)
    return made.path


def test_what_is_planted_in_a_run_is_found_kept_and_shown(run, capsys):
    """All of the north are given yes: no gap in those found, the whole of one in those falsely given it; a swap turns every answer."""
    files = str(run.parent / "test.jsonl")
    call = ["evaluate", str(run), "--files", files, "--groups", "town", "--positive", "yes", "--swap", str(run.parent / "pairs")]
    assert omnia.main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    fair = found.pop("fairness")
    gaps = fair["groups"]["gaps"]
    assert gaps["tpr/yes"]["gap"] == 0 and gaps["tpr/yes"]["p"] == 1
    assert gaps["fpr/yes"]["gap"] == 1 and gaps["fpr/yes"]["p"] < 0.01 and gaps["fpr/yes"]["highest"] == "north"
    assert gaps["given/yes"]["gap"] == 0.5 and gaps["accuracy"]["lowest"] == "north"
    assert fair["swap"]["examples"] == 160 and fair["swap"]["changed"] == 1.0 and fair["swap"]["shift"]["yes"]["mean"] < -0.5
    kept = json.loads((run / FAIRNESS).read_text())
    assert kept["groups"] == fair["groups"] and kept["measured"]["accuracy"] == found["accuracy"] == 0.75
    assert "most" not in kept["swap"] and "aa q bb" not in (run / FAIRNESS).read_text()  # texts stay out of what is published
    assert found == {name: kept["measured"][name] for name in found} and kept["measured"]["files"] == [files]
    assert omnia.main(call) == 0
    said = capsys.readouterr().out
    assert "Gaps between groups of town" in said and "yes -> no" in said and "aa q bb" in said
    page = write_report(run).read_text()
    assert page.count("Gaps between groups of town") == 1 and "Swapped words" in page and "Answers by class" in page


@pytest.mark.parametrize(
    "asked, what",
    [
        (Fairness("country"), "no column of texts 'country'"),
        (Fairness("age"), "no column of texts 'age'"),
        (Fairness("one"), "1 of 1 groups"),
        (Fairness("town", positive="maybe"), "none of the run's labels"),
        (Fairness("town", smallest=100), "0 of 2 groups"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(run, asked, what):
    with pytest.raises(UserError, match=what):
        evaluate_run(open_run(run), shards=(str(run.parent / "test.jsonl"),), fairness=asked)


@pytest.mark.parametrize(
    "options, what",
    [
        (["--smallest-group", "5"], "belongs to --groups"),
        (["--positive", "yes"], "belongs to --groups or --swap"),
        (["--groups", "town", "--smallest-group", "0"], "must be positive"),
        (["--groups", "town", "--needle"], "is for plain measurements"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, what, capsys):
    assert omnia.main(["evaluate", "nowhere", *options]) == 2
    assert what in capsys.readouterr().err


def test_what_answers_with_no_classes_is_refused():
    with pytest.raises(UserError, match="not trained to give each text one label"):
        fairness_of(Fairness("town"), None, lambda examples: [])
