"""Every task from files to scores: it learns what can be learned, is judged on other files, and names what is wrong in them."""

import copy
import dataclasses
import itertools
import json

import numpy as np
import pytest

from data.errors import UserError
from data.records.record import Record
from data.tokenizer import byte_tokenizer, hugging_face_tokenizer
from model.config import ModelConfig, OfStart
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.adapters.options import LoRA
from train.evaluation.checkpoint import evaluate_run
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, MeshShape, Samples, Schedule
from train.generation.chat import Chat
from train.loop.row_learner import RowLearner
from train.objectives.tasks.heads import Choice, Classes, Number
from train.objectives.tasks.options import Supervised
from train.objectives.tasks.retrieval import Retrieval
from train.objectives.tasks.supervised import name_of
from train.runs.directory import open_run
from train.runs.inherit import new_parts
from train.runs.resolve import resolve, with_new_parts
from train.sources.dataset import dataset_of
from train.tasks.asking import ask
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.code import Programs
from train.tasks.examples import Example, TaskFile
from train.tasks.retrieval import TextPairs
from train.tasks.sequence import Conversations, SequenceToSequence
from train.tasks.similarity import Similarity
from train.tasks.spans import Pointed, Spans, windows
from train.tasks.tagging import Reading, Tagging, best_tags
from train.tasks.words import word_spans

SHAPE = {"context_length": 64, "num_layers": 1, "embed_dim": 32, "num_heads": 2, "init_std": 0.2}
ENCODER = TextEncoderConfig(**SHAPE, prediction_head=False, dropout=0.1)
DECODER = ModelConfig(**SHAPE)
TRANSLATOR = EncoderDecoderConfig(**SHAPE)
COMMON = {"length": 64, "written": 16}


def experiment(tmp_path, model, data, objective=None, **parts) -> Experiment:
    tokenizer = tmp_path / "bytes"
    if not tokenizer.is_dir():
        byte_tokenizer().save(str(tokenizer))
    parts = {"steps": 12, "batch_size": 8} | parts
    return Experiment(
        name="task",
        model=model,
        data=dataclasses.replace(data, tokenizer=str(tokenizer)),
        objective=objective or Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=5e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=2, decay="constant"),
        mesh=MeshShape(data=1),
        evaluation=parts.pop("evaluation", Evaluation(every=0)),
        checkpoints=parts.pop("checkpoints", Checkpoints(every=30)),
        samples=Samples(tokens=0),
        logging=Logging(every=4),
        **parts,
    )


def lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


def words(seed: int, count: int = 40):
    """Texts of a's and b's; the class is the first letter, the number how many a's there are."""
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("ab"), rng.integers(3, 9))) for _ in range(count)]
    return [{"text": text, "label": "yes" if text[0] == "a" else "no", "score": text.count("a")} for text in texts]


def test_a_classifier_learns_and_other_files_are_judged(tmp_path):
    data = Classification(files=(lines(tmp_path / "train.jsonl", words(0, 80)),), length=64, validation=0.2)
    run = start(tmp_path / "run", experiment(tmp_path, ENCODER, data, steps=60))
    assert run.experiment.objective.labels == ("no", "yes")
    summary = train(run, report=True)
    assert summary["validation"]["accuracy"] == 1.0 and summary["validation"]["examples"] > 8
    test = lines(tmp_path / "test.jsonl", words(1))
    found = evaluate_run(run, shards=(test,), predictions=tmp_path / "answers.jsonl")
    assert found["accuracy"] == found["macro_f1"] == 1.0 and found["examples"] == 40
    low, high = found["intervals"]["accuracy"]
    assert low <= found["accuracy"] <= high
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 40 and answers[0]["answer"] == answers[0]["label"] and "test.jsonl" in answers[0]["where"]
    assert "onfusion" in (run.path / "report.html").read_text()
    strange = lines(tmp_path / "strange.jsonl", [{"text": "a", "label": "perhaps"}])
    with pytest.raises(UserError, match=r"strange.jsonl: line 1: label 'perhaps' is none of the run's"):
        evaluate_run(run, shards=(strange,))


def test_a_stopped_run_goes_on_as_if_it_was_not(tmp_path, monkeypatch):
    """Packed batches, dropout and the early end by a metric are functions of the seed and the step."""
    data = Classification(files=(lines(tmp_path / "train.jsonl", words(0)),), length=64, validation=0.2)
    options = {"evaluation": Evaluation(every=4, best="macro_f1"), "checkpoints": Checkpoints(every=4, keep_best=1, use_best=True)}
    whole = start(tmp_path / "whole", experiment(tmp_path, ENCODER, data, **options))
    train(whole)
    stopped = start(tmp_path / "stopped", experiment(tmp_path, ENCODER, data, **options))
    train_and_stop(stopped.path, 5, monkeypatch)
    train(open_run(stopped.path))
    assert outcome(whole) == outcome(stopped)
    rows = [json.loads(line) for line in (whole.path / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["macro_f1"] for row in rows if row["kind"] == "evaluation"}
    found = evaluate_run(whole)
    assert found["step"] == max(scores, key=lambda step: (scores[step], -step)) and found["macro_f1"] == scores[found["step"]]


def test_several_devices_and_micro_batches_take_the_same_examples(tmp_path):
    """The loss of a step does not depend on how its examples are laid out."""
    data = Classification(files=(lines(tmp_path / "train.jsonl", words(0)),), length=64, validation=0.2)
    plain = dataclasses.replace(ENCODER, dropout=0.0)
    losses = []
    for devices, parts in ((1, 1), (2, 2)):
        made = experiment(tmp_path, plain, data, steps=3, micro_batches=parts)
        made = dataclasses.replace(made, logging=Logging(every=1), mesh=MeshShape(data=devices))
        run = start(tmp_path / f"run{devices}", made)
        train(run, devices)
        rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if row["kind"] == "train"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def conll(path, seed, count=40):
    """Words of capitals are people; the second of two in a row goes on with the first."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        before = False
        for word in rng.choice(["XX", "YY", "ab", "ba", "aa"], rng.integers(2, 6)):
            name = word.isupper()
            found.append(f"{word}\t{'O' if not name else 'I-PER' if before else 'B-PER'}")
            before = name
        found.append("")
    path.write_text("\n".join(found) + "\n")
    return str(path)


SENTENCES = [
    {"id": str(n), "question": f"which {c}?", "answers": [{"text": c + d, "answer_start": p}]}
    for n, (c, d, p) in enumerate([("a", "x", 0), ("b", "y", 3), ("c", "z", 6)] * 4)
]
SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": "ax by cz", "qas": SENTENCES}]}]}


def made_tasks(folder):
    """(name, model, data, objective, what it must come to) of every other kind of task."""
    rows = words(0)
    squad = folder / "squad.json"
    squad.write_text(json.dumps(SQUAD))
    choice = [{"question": row["text"], "choices": ["bb", "aa"][:: -1 if n % 2 else 1], "label": "aa"} for n, row in enumerate(rows)]
    pairs = [{"question": f"{a}{b}?", "answer": f"{a}{b}{b}"} for a in "abcdefgh" for b in "uvwxy"]
    copies = [{"source": row["text"][:3], "target": row["text"][:3]} for row in rows]
    talks = [{"messages": [{"role": "user", "content": f"a or b{n}"}, {"role": "assistant", "content": "a"}]} for n in range(20)]
    code = [{"text": f"one {n}", "code": "x = 1", "test_list": ["assert x == 1"]} for n in range(20)]
    several = [{"text": row["text"], "label": sorted(set(row["text"]))} for row in rows]
    same = {"length": 64, "validation": 0.2}
    text = {"length": 64, "written": 12, "validation": 0.2}
    yield "several", ENCODER, Classification(files=(lines(folder / "s.jsonl", several),), several=True, **same), None, "micro_f1"
    yield "number", ENCODER, Similarity(files=(lines(folder / "n.jsonl", rows),), scale=4.0, **same), None, "pearson"
    yield "tags", ENCODER, Tagging(files=(conll(folder / "t.conll", 0),), **same), None, "f1"
    yield "choice", ENCODER, MultipleChoice(files=(lines(folder / "c.jsonl", choice),), **same), None, "accuracy"
    yield "spans", ENCODER, Spans(files=(str(squad),), validation_files=(str(squad),)[:0], length=64, validation=0.3), None, "f1"
    yield "pairs", ENCODER, TextPairs(files=(lines(folder / "p.jsonl", pairs),), **same), Retrieval(temperature=0.2), "recall@5"
    yield "labels", DECODER, Classification(files=(lines(folder / "d.jsonl", rows),), words=(" n", " y"), **text), None, "accuracy"
    yield "talk", DECODER, Conversations(files=(lines(folder / "m.jsonl", talks),), **text), None, "exact"
    yield "code", DECODER, Programs(files=(lines(folder / "k.jsonl", code),), **text), None, "pass@1"
    yield "copy", TRANSLATOR, SequenceToSequence(files=(lines(folder / "q.jsonl", copies),), measures=("exact", "cer"), **text), None, "cer"


TASKS = ("several", "number", "tags", "choice", "spans", "pairs", "labels", "talk", "code", "copy")
FLOOR = {"several": 0.6, "number": 0.3, "tags": 0.35, "choice": 0.9, "labels": 0.6, "talk": 1.0, "code": 1.0, "pairs": 0.5, "spans": 0.8}


ASKED = {
    "tags": lambda line: {"tokens": line["words"]},
    "choice": lambda line: {"question": line["question"], "choices": line["choices"]},
    "spans": lambda line: {"question": line["question"], "context": line["context"]},
    "talk": lambda line: {"messages": [{"role": "user", "content": line["source"]}]},
    "code": lambda line: {"text": line["source"], "test_list": line["tests"]},
    "copy": lambda line: {"source": line["source"]},
}
"""Rows at work, without what is right, of lines that an evaluation wrote."""


@pytest.mark.parametrize("name", TASKS)
def test_a_task_learns_and_is_scored(tmp_path, name):
    """From a file to the metrics of its kind, above what answering at random would come to; and at work it answers as it was judged."""
    _, model, data, objective, measure = next(one for one in made_tasks(tmp_path) if one[0] == name)
    run = start(tmp_path / "run", experiment(tmp_path, model, data, objective, steps=60, evaluation=Evaluation(every=60)))
    found = train(run)["validation"]
    assert np.isfinite(found["loss"]) and found["examples"] > 0
    assert found[measure] <= 0.5 if measure == "cer" else found[measure] >= FLOOR[name]
    if name not in ASKED:
        return
    evaluate_run(run, predictions=tmp_path / "answers.jsonl")
    judged = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    dataset = dataset_of(run.experiment)
    dataset.place = run.path
    rows = [Record(ASKED[name](line), f"row {number}") for number, line in enumerate(judged)]
    made = dataset.application(run).answers([*rows, Record({}, "the last row")])
    assert made.pop()["error"].startswith("the last row: has no field")
    same = "answers" if name == "code" else "answer"
    assert made and [line[same] for line in made] == [line[same] for line in judged]
    assert not any({*dataset.label_fields} & {*line} for line in made)
    if name == "tags":
        texts = [Record({"text": " ".join(line["words"])}, "text") for line in judged]
        assert dataset.application(run).answers(texts) == made
        reading = Reading(("XX", "YY", "ab", "XX"), places=((1, 3), (5, 7), (7, 9), (10, 12)))
        asked = Example({"text": " XX  YYab XX"}, None, "", reading)
        assert dataset.entities(asked, ["B-PER", "I-PER", "O", "B-PER"]) == [
            {"kind": "PER", "start": 1, "end": 7, "text": "XX  YY"},
            {"kind": "PER", "start": 10, "end": 12, "text": "XX"},
        ]
        assert dataset.entities(asked._replace(parts=Reading(("XX", "YY"))), ["O", "B-PER"])[0]["start"] == 3
        words_of = [["XX", "ab"] * 40, ["ba", "YY", "aa"] * 30]  # in parts, both of one place
        first, second = dataset.application(run).answers([Record({"text": " ".join(own)}, "text") for own in words_of])
        assert [first["words"], second["words"]] == words_of and [len(one["answer"]) for one in (first, second)] == [80, 90]
        for line, own in zip((first, second), words_of, strict=True):
            starts = [sum(len(word) + 1 for word in own[:place]) for place, tag in enumerate(line["answer"]) if tag.startswith("B-")]
            assert [one["start"] for one in line["entities"]] == starts
        long = " ".join(words_of[0])
        parts = dataset.examples_of(Record({"text": long}, "text"))
        own_words = [len(part.parts.words[part.parts.kept]) for part in parts]
        (whole,), _ = dataset.joined(parts, [np.zeros((count, len(dataset.label_names))) for count in own_words])
        assert len(parts) > 1 and list(whole.parts.places) == word_spans(long)
        wrong = [{"tokens": []}, {"tokens": ["a", ""]}, {"tokens": "a b"}, {"text": " "}]
        assert all("error" in line for line in dataset.application(run).answers([Record(row, "row") for row in wrong]))
    if name == "spans":  # and where answers stand, also in what only a later window of a text holds
        behind = [Record(row | {"context": f"{'zz ' * 60}{row['context']}"}, row.where) for row in rows]
        for row, line in zip([*rows, *behind], [*made, *dataset.application(run).answers(behind)], strict=True):
            assert line["answer"] and row["context"][line["start"] : line["end"]] == line["answer"]
        again = copy.copy(Pointed("is", 4))
        assert (again, again.start) == ("is", 4)
    if name == "talk":
        asked = {"role": "user", "content": "a or b1"}
        rows = [
            [asked],
            [asked, {"role": "assistant", "content": "not read"}],
            [{"role": "system", "content": "x"}],
            [asked | {"content": ""}],
        ]
        plain, answered, *wrong = dataset.application(run).answers([Record({"messages": turns}, "row") for turns in rows])
        assert plain == answered and all("no conversation to reply to" in line["error"] for line in wrong)
    if name == "code":  # what is drawn for a row does not depend on the others
        drawn = dataclasses.replace(run.experiment.data, samples=2, ks=(1,), temperature=5.0)
        dataset = dataset_of(dataclasses.replace(run.experiment, data=drawn))
        dataset.place = run.path
        application = dataset.application(run)
        rows = [Record({"text": text}, "row") for text in ("one 3", "one", "one hundred")]
        together = application.answers(rows)
        assert together == [application.answers([row])[0] for row in rows]
        assert together[0]["answers"][0] != together[0]["answers"][1] != together[1]["answers"][1]
    if name == "copy":
        rows = [{"source": "aba"}, {"source": "aba", "target": ""}, {"source": "a\ud800"}]
        plain, answered, wrong = dataset.application(run).answers([Record(row, "row") for row in rows])
        assert plain == answered and "surrogate" in wrong["error"]


def test_a_model_is_asked_with_examples_to_read(tmp_path):
    """The prompts then differ; and an encoder is refused by name."""
    data = Classification(files=(lines(tmp_path / "train.jsonl", words(0)),), length=64, written=8, validation=0.2)
    run = start(tmp_path / "run", experiment(tmp_path, DECODER, data, steps=2))
    train(run)
    test = (lines(tmp_path / "test.jsonl", words(1, 6)),)
    plain = ask(run, data, Supervised(), test)
    shown = ask(run, data, Supervised(), test, shots=2, shown=data.files)
    assert plain["examples"] == shown["examples"] == 6 and plain["brier"] != shown["brier"]
    assert ask(run, data, Supervised(), test, shots=2, shown=data.files) == shown
    encoder = start(tmp_path / "encoder", experiment(tmp_path, ENCODER, data, steps=1))
    train(encoder)
    with pytest.raises(UserError, match="TextEncoderConfig does not continue texts"):
        ask(encoder, data, Supervised(), test)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a"}], "line 1: has no label to learn"),
        ([{"text": "a", "label": "x"}], "only the label 'x'"),
        ([{"text": " ", "label": "x"}, {"text": "b", "label": "y"}], "line 1: text is empty"),
        ([{"text": "a", "lable": "x"}, {"text": "b", "lable": "y"}], "line 1: has no label to learn"),
        ([{"txt": "a", "label": "x"}], "line 1: has no field 'text'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, rows, said):
    data = Classification(files=(lines(tmp_path / "train.jsonl", rows),), length=64)
    with pytest.raises(UserError, match=said):
        start(tmp_path / "run", experiment(tmp_path, ENCODER, data))


def test_copies_are_never_apart_whatever_else_their_rows_say(tmp_path):
    """A number or a date of a row is read by no model; a column that the prompt asks for is."""
    rows = [{"text": f"a{n % 20}", "label": "ab"[n % 2], "id": f"n{n}"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Classification(files=(str(tmp_path / "rows.jsonl"),), validation=0.3, **COMMON)
    for prompt, apart in (("{text}", False), ("{text} {id}", True)):
        dataset = dataset_of(experiment(tmp_path, DECODER, dataclasses.replace(data, prompt=prompt)))
        sources = dataset.open()
        learned, held = ({one.fields["text"] for one in dataset.examples(sources, split)} for split in ("train", "validation"))
        assert bool(learned & held) == apart and (apart or len(held) == 6)


def test_what_is_evaluated_on_and_learned_from_is_told(tmp_path):
    rows = [{"text": f"a{n}", "label": "ab"[n % 2], "id": f"n{n}"} for n in range(20)]
    for name, own in (("learned", rows), ("held", [row | {"id": ""} for row in rows[15:]] + [{"text": "new", "label": "a"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    data = Classification(files=(str(tmp_path / "learned.jsonl"),), validation_files=(str(tmp_path / "held.jsonl"),), **COMMON)
    dataset = dataset_of(experiment(tmp_path, DECODER, data))
    sources = dataset.open()
    assert any("5 of 6 examples to evaluate on are also learned from" in one for one in dataset.batches(sources).said)
    assert dataset.batches(sources, "validation").said == []


def test_bad_rows_are_left_out_where_asked(tmp_path):
    rows = [{"text": "", "label": "yes"}, *words(0)]
    data = Classification(files=(lines(tmp_path / "train.jsonl", rows),), length=64, leave_out=True)
    run = start(tmp_path / "run", experiment(tmp_path, ENCODER, data))
    [source] = run.corpora()
    assert len(source.examples) == 40 and sum(source.left_out.values()) == 1


def test_labels_that_a_run_does_not_know_are_left_out_where_asked(tmp_path):
    """Of files to evaluate on; and to learn from, rows without a label. Both are counted, and so are texts that do not fit."""
    rows = [*words(0), {"text": "aaa"}]
    data = Classification(files=(lines(tmp_path / "train.jsonl", rows),), length=64, leave_out=True)
    run = start(tmp_path / "run", experiment(tmp_path, ENCODER, data, steps=2))
    train(run)
    [source] = run.corpora()
    assert len(source.examples) == 40 and source.left_out.total() == 1
    test = lines(tmp_path / "test.jsonl", [*words(1), {"text": "a", "label": "perhaps"}, {"text": "b" * 99, "label": "no"}])
    found = evaluate_run(run, shards=(test,))
    assert (found["examples"], found["left_out"], found["cut"]) == (41, 1, 1)
    assert "left_out" not in evaluate_run(run)
    strict = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=dataclasses.replace(data, leave_out=False)))
    with pytest.raises(UserError, match="label 'perhaps' is none"):
        evaluate_run(strict, shards=(test,))
    assert evaluate_run(strict, shards=(test,), leave_out=True)["examples"] == 41


def test_a_head_is_taken_over_by_the_same_task_alone(tmp_path):
    """Other labels in as many places, several at once, or numbers begin anew; adapters train the head in any case."""
    task, begun = Classification(files=("x",)), Supervised(labels=("x", "y"))
    model = dataclasses.replace(ENCODER, vocab_size=8)

    def anew(data=task, objective=begun, **more):
        bare = Experiment(model=model, data=data, objective=objective, start="r", **more)
        return new_parts(bare, Experiment(model=model, data=task, objective=begun))

    assert anew() == []
    assert anew(objective=Supervised(labels=("neg", "pos"))) == ["task_head"]
    assert anew(dataclasses.replace(task, several=True)) == ["task_head"]
    assert anew(Tagging(files=("x",))) == ["task_head"]
    many = [tuple(f"{number}{end}" for number in range(20)) for end in ("", "b")]
    assert name_of(Classes(20), many[0], "mean") != name_of(Classes(20), (*many[0][:-1], "b"), "mean")
    assert len(name_of(Classes(20), many[0], "mean")) < 90
    assert name_of(Number(), (), "mean") != name_of(Choice(), (), "mean") and name_of(Number(), (), "mean") != name_of(
        Number(), (), "pooler"
    )
    tuned = Experiment(model=model, data=task, objective=begun, start="r", adapters=LoRA(rank=2))
    assert with_new_parts(tuned, Experiment(model=model, data=task, objective=begun)).adapters.trained == ("task_head",)


def test_fewer_labels_and_noisy_labels(tmp_path):
    """As many examples as asked for, the same for the same seed; and about the asked share of labels is another one."""
    data = Classification(files=(lines(tmp_path / "train.jsonl", words(0, 400)),), length=64, validation=0.0)
    made = experiment(tmp_path, ENCODER, data)
    few = dataclasses.replace(made, data=dataclasses.replace(made.data, examples=30))
    noisy = dataclasses.replace(made, data=dataclasses.replace(made.data, label_noise=0.3))
    sources = dataset_of(made).open()
    chosen = [dataset_of(few).examples(sources, "train") for _ in range(2)]
    assert len(chosen[0]) == 30 and chosen[0] == chosen[1]
    other = dataset_of(dataclasses.replace(few, seed=1)).examples(sources, "train")
    assert other != chosen[0]
    plain, changed = dataset_of(made).examples(sources, "train"), dataset_of(noisy).examples(sources, "train")
    share = np.mean([a.label != b.label for a, b in zip(plain, changed, strict=True)])
    assert 0.2 < share < 0.4
    assert [a.fields for a in plain] == [b.fields for b in changed]


def test_tags_are_the_likeliest_that_are_valid():
    """I-X never follows anything but B-X or I-X, and no valid sequence is likelier."""
    names, rng = ["O", "B-P", "I-P", "B-L", "I-L"], np.random.default_rng(0)
    for _ in range(20):
        scores = rng.normal(size=(4, 5))

        def valid(path):
            before = "O"
            for tag in path:
                if tag.startswith("I-") and before[2:] != tag[2:]:
                    return False
                before = tag
            return True

        worth = {path: sum(scores[i, names.index(tag)] for i, tag in enumerate(path)) for path in itertools.product(names, repeat=4)}
        best = max(filter(valid, worth), key=worth.__getitem__)
        assert best_tags(scores, names) == list(best)


def test_long_sentences_are_read_in_parts_and_judged_whole(tmp_path):
    """Each word is learned once, and none is lost; given the right tag of each word in every part, all sentences come out right."""
    path = conll(tmp_path / "t.conll", 3, 6)
    long = [line for line in (tmp_path / "t.conll").read_text().splitlines() if line]
    (tmp_path / "t.conll").write_text("\n".join([*long, "", *long[:4]]) + "\n")
    made = experiment(tmp_path, ENCODER, Tagging(files=(path,), length=16, validation=0.0), Supervised(labels=("O", "B-PER", "I-PER")))
    dataset, sources = dataset_of(made), dataset_of(made).open()
    sources[0].dataset = dataset
    examples = dataset.examples(sources, "train")
    assert len(examples) > 3 and len({dataset.key(example) for example in examples}) == 2
    items = [dataset.item(example, byte_tokenizer()) for example in examples]
    assert dataset.cut == 0 and sum(piece.learned.sum() for (piece,) in items) == len(long) + 4
    outputs = [[np.eye(3)[piece.label]] for (piece,) in items]
    whole, answers = dataset.joined(examples, [dataset.found(*pair) for pair in zip(examples, outputs, strict=True)])
    tags = [line.split("\t")[1] for line in long]
    assert [list(one.label) for one in whole] == [tags, tags[:4]] == answers
    assert [len(one.parts.words) for one in whole] == [len(long), 4] and dataset.score(whole, answers).values["f1"] == 1.0
    with pytest.raises(UserError, match="several rows of one example"):
        dataset.units(sources)


def test_parts_of_a_sentence_have_the_tokens_of_the_whole(tmp_path):
    """Where a word alone has other pieces than one behind a space, each part reads what the sentence would, and fits its row."""
    import tokenizers

    merges = [("\u0120", "w"), *(("\u0120w", letter) for letter in "abcdefghi")]
    pieces = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges), "<end>"]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.add_special_tokens(["<end>"])
    tokenizer = hugging_face_tokenizer(bpe.to_str().encode())
    assert len(tokenizer.encode_inside(" wa")) == 1 and len(tokenizer.encode("wa")) == 2
    for count in range(26, 60, 3):
        (tmp_path / "t.conll").write_text("\n".join(f"w{'abcdefghi'[n % 9]} {'B-X' if n % 2 else 'O'}" for n in range(count)) + "\n")
        data = Tagging(files=(str(tmp_path / "t.conll"),), length=30, validation=0.0)
        dataset = dataset_of(Experiment(model=ENCODER, data=data, objective=Supervised(labels=("O", "B-X", "I-X"))))
        source = TaskFile(str(tmp_path / "t.conll"), dataset, tokenizer)
        items = [dataset.item(example, tokenizer) for example in source.examples]
        assert dataset.cut == 0 and sum(piece.learned.sum() for (piece,) in items) == count and max(len(p.ids) for (p,) in items) <= 30
        assert sum(len(dataset.names_of(example)) for example in source.examples) == count


def test_a_task_that_a_model_cannot_answer_is_refused_when_a_run_is_made(tmp_path):
    """Before any example is made a row."""
    tagging = Tagging(files=(conll(tmp_path / "t.conll", 0),), length=64, written=8)
    writing = SequenceToSequence(files=(lines(tmp_path / "s.jsonl", [{"source": "a", "target": "b"}] * 3),), length=64)
    for model, data, labels, said in (
        (DECODER, tagging, ("O", "B-PER", "I-PER"), "which no text can hold"),
        (ENCODER, writing, (), "has no head for an encoder"),
    ):
        made = experiment(tmp_path, model, data, Supervised(labels=labels))
        with pytest.raises(UserError, match=said):
            RowLearner.check(made, dataset_of(made).open(), None)


def test_windows_cover_a_long_text():
    sizes = np.random.default_rng(0).integers(1, 5, 300)
    found = windows(sizes, 60, 30)
    assert found[0][0] == 0 and found[-1][1] == 300
    assert all(sizes[first:last].sum() <= 60 for first, last in found)
    assert all(later[0] <= before[1] and later[0] > before[0] for before, later in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(("model", "way"), [(ENCODER, "head"), (TRANSLATOR, "source"), (DECODER, "text")])
def test_files_of_a_new_run_are_read_as_the_model_that_it_starts_from_answers(tmp_path, model, way):
    """Its own model is filled in after that."""
    path = tmp_path / "squad.json"
    answers = [{"text": "w7", "answer_start": 21}]
    qas = [{"id": "1", "question": "who?", "answers": answers}]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": " ".join(f"w{n}" for n in range(60)), "qas": qas}]}]}))
    data = Spans(files=(str(path),), length=64, validation=0.0)
    begun = start(tmp_path / "begun", experiment(tmp_path, model, data)).path
    recipe = dataclasses.replace(experiment(tmp_path, OfStart(), data), start=str(begun))
    (source,) = dataset_of(recipe).open()
    resolved = resolve(recipe, [source])
    dataset = dataset_of(resolved)
    assert dataset.way == way and [one.label for one in source.examples] == [one.label for one in dataset.read(source)]
    assert all(dataset.item(one, source.tokenizer()) for one in source.examples) and (len(source.examples) > 1) == (way == "head")


@pytest.mark.parametrize("said, pool", [("mean", "mean"), ("first", "first"), ("last", "auto"), ("", "auto")])
def test_a_head_reads_texts_as_the_authors_of_the_encoder_do(tmp_path, said, pool):
    """Of a model that was imported, where the options do not say otherwise."""
    Chat(pool=said).save(tmp_path)
    (tmp_path / "texts.csv").write_text("text,label\none,a\ntwo,b\nthree,a\n")
    data = Classification(files=(str(tmp_path / "texts.csv"),), validation=0.0)
    experiment = Experiment(name="x", start=str(tmp_path), data=data, objective=Supervised())
    sources = dataset_of(experiment).open(byte_tokenizer())
    assert Supervised().completed(sources).pool == pool
    assert Supervised(pool="pooler").completed(sources).pool == "pooler"


def test_a_reply_ends_as_the_template_ends_turns(tmp_path):
    """Not with the first stop token that the authors list: of several published models that one ends texts."""
    template = "{% for turn in messages %}<s>{{ turn.content }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
    made = experiment(tmp_path, DECODER, Conversations(files=("m.jsonl",), **COMMON))
    dataset = dataset_of(made)
    dataset._chat = Chat(template, specials={"<s>": 256, "</s>": 257, "<end>": 258}, stop_ids=(258, 257))
    (piece,) = dataset.item(dataset.example(Record({"prompt": "hi", "response": "ho"}, "m.jsonl, line 1")), byte_tokenizer())
    assert piece.ids.tolist() == [256, *b"hi", 257, 256, *b"ho", 257]
    assert piece.learned.tolist() == [0] * 5 + [1] * 3
