"""Every kind of task put before models that write, without training: by likelihood where there are choices, else by what they write."""

import dataclasses
import json

import jax
import pytest
from flax import linen as nn

from data.errors import UserError
from data.records.record import Record
from data.tokenizer import byte_tokenizer
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.bridge.importing import save_parameters
from train.experiment import SGD, CausalLM, Experiment, MeshShape
from train.generation.chat import Chat
from train.kinds import realise
from train.objectives.tasks.options import Supervised
from train.objectives.text.options import PrefixLM
from train.runs.directory import Run, write_run
from train.sources.dataset import dataset_of
from train.tasks.asking import ask
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.code import Programs
from train.tasks.retrieval import TextPairs
from train.tasks.sequence import Conversations, SequenceToSequence
from train.tasks.similarity import Similarity
from train.tasks.spans import Spans
from train.tasks.tagging import Tagging

SHAPE = {"vocab_size": 264, "context_length": 128, "num_layers": 1, "embed_dim": 16, "num_heads": 2, "init_std": 0.2}
SQUAD = {
    "title": "t",
    "paragraphs": [{"context": "ax by", "qas": [{"id": "1", "question": "a?", "answers": [{"text": "ax", "answer_start": 0}]}]}],
}
FILES = {
    "rows.jsonl": [{"text": "a", "label": "x", "score": 1, "labels": ["x"]}, {"text": "b", "label": "y", "score": 2, "labels": ["x", "y"]}],
    "choice.jsonl": [{"question": "which?", "choices": ["one", "two"], "label": 1}],
    "talk.jsonl": [{"prompt": "hi", "response": "ho"}, {"prompt": "he", "response": "ha"}],
    "code.jsonl": [{"text": "one", "test_list": ["assert x == 1"]}],
    "pairs.jsonl": [{"question": "a", "answer": "b"}],
    "squad.json": {"data": [SQUAD]},
}
SHORT = {"written": 6}
KINDS = {
    "labels": ("rows.jsonl", Classification(**SHORT), "brier"),
    "several": ("rows.jsonl", Classification(label="labels", several=True, **SHORT), "subset_accuracy"),
    "number": ("rows.jsonl", Similarity(**SHORT), "readable"),
    "choice": ("choice.jsonl", MultipleChoice(**SHORT), "brier"),
    "spans": ("squad.json", Spans(**SHORT), "f1"),
    "talk": ("talk.jsonl", Conversations(**SHORT), "rouge1"),
    "texts": ("talk.jsonl", SequenceToSequence(source="prompt", target="response", **SHORT), "chrf"),
    "code": ("code.jsonl", Programs(**SHORT), "pass@1"),
}


def run_of(path, config) -> Run:
    tokenizer = byte_tokenizer()
    objective = PrefixLM() if isinstance(config, EncoderDecoderConfig) else CausalLM()
    experiment = Experiment(model=config, objective=objective, optimizer=SGD(), mesh=MeshShape(data=1))
    run = Run(path, experiment, (), tokenizer.specials["document_end"])
    path.mkdir()
    tokenizer.save(str(path / "tokenizer"))
    write_run(run)
    save_parameters(run, nn.unbox(jax.jit(realise(config).start)(jax.random.key(0))))
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    for name, rows in FILES.items():
        (folder / name).write_text(json.dumps(rows) if name == "squad.json" else "".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tags.conll").write_text("Ann B-P\nruns O\n\n")
    return folder


@pytest.fixture(scope="module")
def decoder(folder):
    return run_of(folder / "decoder", ModelConfig(**SHAPE))


@pytest.fixture(scope="module")
def translator(folder):
    return run_of(folder / "translator", EncoderDecoderConfig(**SHAPE))


@pytest.mark.parametrize(
    "kind, family", [*((kind, "decoder") for kind in KINDS), *((kind, "translator") for kind in ("labels", "several", "spans", "texts"))]
)
def test_every_task_that_a_text_can_answer_is_scored(folder, kind, family, request):
    file, data, measure = KINDS[kind]
    found = ask(request.getfixturevalue(family), data, Supervised(), (str(folder / file),))
    assert found["examples"] == (1 if file in ("choice.jsonl", "code.jsonl", "squad.json") else 2) and measure in found
    assert 0 <= found[measure] <= (2 if measure == "brier" else 100)


def test_several_labels_are_asked_for_one_by_one(folder, decoder):
    """As a question with the answers yes and no would be; shown examples say for each label whether they have it."""
    several = Classification(label="labels", several=True, **SHORT)
    out = folder / "several.jsonl"
    ask(decoder, several, Supervised(), (str(folder / "rows.jsonl"),), predictions=out)
    found = [json.loads(line)["probabilities"] for line in out.read_text().splitlines()]
    for place, name in enumerate(("x", "y")):
        single = Classification(prompt=f"{{text}}\nlabels: {name}?", words=(" yes", " no"), **SHORT)
        ask(decoder, single, Supervised(labels=("x", "y")), (str(folder / "rows.jsonl"),), predictions=out)
        one = [json.loads(line)["probabilities"][0] for line in out.read_text().splitlines()]
        assert one == pytest.approx([row[place] for row in found], abs=1e-5)
    dataset = dataset_of(Experiment(model=ModelConfig(**SHAPE), data=several, objective=Supervised(labels=("x", "y"))))
    dataset = type(dataset)(dataclasses.replace(several, shots=1, ended=False), dataset.experiment)
    shot, asked = (dataset.example(Record(row, "rows.jsonl: line 1")) for row in FILES["rows.jsonl"])
    dataset.shown_before = [shot]
    assert [dataset.prompt_text(one) for one in dataset.statements(asked)] == [
        "a\nlabels: x? yes\n\nb\nlabels: x?",
        "a\nlabels: y? no\n\nb\nlabels: y?",
    ]


@pytest.mark.parametrize("data, file", [(Tagging(), "tags.conll"), (TextPairs(), "pairs.jsonl")], ids=["tags", "pairs"])
def test_what_no_text_can_answer_is_refused_before_anything_is_written(folder, decoder, data, file):
    with pytest.raises(UserError, match="which no text can hold"):
        ask(decoder, data, Supervised(), (str(folder / file),))


def test_labels_may_be_given(folder, decoder):
    """So that a file with few of them, or without any, is no easier task than another."""
    some = ask(decoder, Classification(**SHORT), Supervised(labels=("x", "y", "z")), (str(folder / "rows.jsonl"),))
    assert some["brier"] != ask(decoder, Classification(**SHORT), Supervised(), (str(folder / "rows.jsonl"),))["brier"]
    (folder / "bare.jsonl").write_text('{"text": "a"}\n')
    out = folder / "answers.jsonl"
    found = ask(decoder, Classification(**SHORT), Supervised(labels=("x", "y")), (str(folder / "bare.jsonl"),), predictions=out)
    assert "accuracy" not in found and json.loads(out.read_text())["answer"] in ("x", "y")


def test_an_encoder_has_no_head_for_texts(folder, tmp_path):
    model = TextEncoderConfig(**SHAPE)
    with pytest.raises(UserError, match="SequenceToSequence has no head for an encoder"):
        dataset_of(Experiment(model=model, data=SequenceToSequence(), objective=Supervised())).check_way()


def test_conversations_are_shown_as_turns_before():
    """In the model's template, or by roles; what the system says stands first alone."""
    data = Conversations(shots=1, system="short", files=("x.jsonl",))
    dataset = dataset_of(Experiment(model=ModelConfig(**SHAPE), data=data, objective=Supervised()))
    dataset.tokens = byte_tokenizer()
    shot, asked = (dataset.example(Record(row, f"x.jsonl: line {number}")) for number, row in enumerate(FILES["talk.jsonl"]))
    dataset.shown_before = [shot]
    dataset._chat = Chat()
    assert dataset.prompt_text(asked) == "system: short\nuser: hi\nassistant: ho\nuser: he\nassistant: "
    template = "{% for turn in messages %}<s>{{ turn.content }}{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
    dataset._chat = Chat(template, specials={"<s>": 256})
    assert dataset.prompt_ids(asked, 60).tolist() == [256, *b"short", 256, *b"hi", 256, *b"ho", 256, *b"he", 256]
    other = dataclasses.replace(data, prompt="{source}")
    dataset = dataset_of(Experiment(model=ModelConfig(**SHAPE), data=other, objective=Supervised()))
    dataset._chat = Chat(template, specials={"<s>": 256})
    with pytest.raises(UserError, match="chat template"):
        dataset.check_way()


@pytest.mark.parametrize(
    "row, place",
    [
        ({"choices": ["1", "0"], "label": 0}, 0),
        ({"choices": ["2", "3"], "label": "2"}, 0),
        ({"choices": [2, 3], "label": "B"}, 1),
        ({"choices": ["one", "two"], "label": "1"}, 1),
        ({"choices": ["1", "0"], "label": "0"}, "the label '0' is choice 1 by its text, and choice 0 by its place"),
        ({"choices": ["1", "0"], "label": "²"}, "the label '²' is none of 2 choices"),
    ],
)
def test_the_right_choice_is_known_by_place_letter_or_text(row, place):
    """A number is a place; a text that would be one choice by its text and another by its place is refused, and so is one that is none."""
    dataset = dataset_of(Experiment(model=ModelConfig(**SHAPE), data=MultipleChoice(), objective=Supervised()))
    record = Record({"question": "which?"} | row, "c.jsonl: line 1")
    if isinstance(place, int):
        assert dataset.example(record).label == place
        return
    with pytest.raises(UserError, match=f"line 1: {place}"):
        dataset.example(record)


def test_a_chat_model_is_asked_by_its_own_template(tmp_path, monkeypatch):
    """Which lies in its run, and not in that of an experiment that starts from it."""
    run = run_of(tmp_path / "run", ModelConfig(**SHAPE))
    Chat("{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}[assistant] ").save(run.path)
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FILES["talk.jsonl"]))
    asked = []

    def answers(dataset, model, params, mesh, examples):
        asked.extend(bytes(dataset.prompt_ids(example, 99).tolist()).decode() for example in examples)
        return ["ho"] * len(examples)

    monkeypatch.setattr("train.tasks.writing.answers_of", answers)
    found = ask(run, Conversations(**SHORT), Supervised(), (str(tmp_path / "talk.jsonl"),))
    assert sorted(asked) == ["[user] he\n[assistant] ", "[user] hi\n[assistant] "] and found["examples"] == 2
