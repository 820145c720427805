"""What the applications of tasks say of their columns is what they read. Other applications are looked at beside their own tests."""

import importlib
import pkgutil

import pytest

import train.apps
from data.records.record import Record
from data.tokenizer import byte_tokenizer, character_tokenizer
from model import ModelConfig
from model.text_encoder_config import TextEncoderConfig
from tests.train.apps.columns import check_columns
from train.apps.answering import Answering, TaskApplication, legible
from train.apps.education.tutoring import Tutoring
from train.experiment import Experiment
from train.kinds import Application
from train.objectives.tasks.options import Supervised
from train.sources.dataset import dataset_of
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.code import Programs
from train.tasks.retrieval import TextPairs
from train.tasks.sequence import Conversations, SequenceToSequence
from train.tasks.similarity import Similarity
from train.tasks.spans import Spans
from train.tasks.tagging import Tagging

for found in pkgutil.walk_packages(train.apps.__path__, "train.apps."):
    importlib.import_module(found.name)

TASKS = [
    (Classification(), [{"text": "a"}]),
    (Classification(text="said", pair="then"), [{"said": "a", "then": "b"}]),
    (Similarity(pair="other"), [{"text": "a", "other": "b"}]),
    (TextPairs(), [{"question": "a", "answer": "b"}]),
    (MultipleChoice(context="about"), [{"question": "a", "about": "b", "choices": ["c", "d"]}]),
    (MultipleChoice(choices=("one", "other")), [{"question": "a", "one": "b", "other": "c"}]),
    (Spans(), [{"question": "a", "context": "b"}]),
    (Tagging(), [{"text": "a"}, {"tokens": ["a"]}]),
    (Tagging(words="words"), [{"text": "a"}]),
    (SequenceToSequence(), [{"source": "a"}]),
    (Conversations(), [{"prompt": "a"}, {"messages": [{"role": "user", "content": "a"}]}]),
    (Programs(), [{"text": "a"}]),
    (Tutoring(reads="text"), [{"text": "a"}]),
]


def task(options) -> TaskApplication:
    """A task's application; its model, which says nothing here, reads texts if it has to write an answer."""
    writes = isinstance(options, SequenceToSequence) or bool(options.prompt)
    model = ModelConfig(context_length=128, vocab_size=258) if writes else TextEncoderConfig(context_length=128)
    answering = object.__new__(Answering)
    answering.dataset = dataset_of(Experiment(model=model, data=options, objective=Supervised(labels=("a", "b"))))
    answering.tokenizer = answering.dataset.tokens = byte_tokenizer()
    answering.reads = []
    application = TaskApplication(answering)
    application._lines = lambda read: [{"read": [example.fields for example in parts]} for parts in read]
    return application


@pytest.mark.parametrize(("options", "rows"), TASKS, ids=lambda one: type(one).__name__)
def test_a_task_names_the_columns_that_it_reads(options, rows):
    application = task(options)
    check_columns(application, *rows, dataset=application._answering.dataset)


@pytest.mark.parametrize("options", [Classification(prompt="{text} of {kind}:"), SequenceToSequence(prompt="{source} of {kind}:")])
def test_what_a_prompt_asks_for_is_a_column(options):
    """It is found among all texts of a row, and not by its name."""
    application = task(options)
    assert {*application.columns} == {"text" if "text" in options.prompt else "source", "kind", "id"}
    row = application.example
    assert "error" not in application.answers([Record(row, "row 1")])[0]
    del row["kind"]
    assert "asks for 'kind'" in application.answers([Record(row, "row 1")])[0]["error"]


def test_a_task_has_names_for_its_probabilities():
    assert list(task(Classification()).labels) == ["a", "b"]


def test_examples_are_of_characters_that_the_run_has():
    application = task(Classification())
    application._answering.tokenizer = tokenizer = character_tokenizer("的一是不了 。")
    (text,) = application.example.values()
    assert len(text) == 4 and tokenizer.encode(text).size
    assert legible("a", byte_tokenizer()) == "a"


def kinds(base: type) -> list[type]:
    """Ours, not those of tests."""
    found = [kind for kind in base.__subclasses__() if kind.__module__.startswith("train.")]
    return found + [other for kind in found for other in kinds(kind)]


@pytest.mark.parametrize("kind", kinds(Application))
def test_every_application_says_what_it_reads(kind):
    assert {"columns", "example", "answers"} <= {*vars(kind)}
