"""lm-eval on a tiny run: its three kinds of requests, beginnings of texts, templates, tasks by name and from files."""

import json
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from model.transformer import abstract_parameters
from tests.train.tiny_runs import start
from train.evaluation.likelihood import Request, likelihood
from train.generation.chat import Chat
from train.generation.text import decoder_of
from train.runs.directory import open_run

pytest.importorskip("lm_eval", reason="lm-eval is missing; the extra `eval` has it")
harness = pytest.importorskip("train.evaluation.harness")

TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
"""
GROUP = """
group: painting
task: [colours]
aggregate_metric_list: [{metric: acc}]
"""


def random_parameters(run):
    rng = np.random.default_rng(0)
    shapes = nn.unbox(abstract_parameters(run.experiment.model))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes)


@pytest.fixture
def make_model(tiny, tmp_path, monkeypatch):
    """make_model(chat): a run that was never trained, with parameters that tell its predictions apart."""
    run = start(tmp_path / "run", tiny)
    monkeypatch.setattr(harness, "load_parameters", lambda run, mesh, **_: (random_parameters(run), 0))

    def make(chat: Chat | None = None, **options):
        if chat is not None:
            chat.save(run.path)
        return harness.HarnessModel(open_run(run.path), **options)

    return make


def asked(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


def test_requests_are_answered_in_order_as_one_at_a_time(make_model):
    model = make_model()
    decoder, params, start_id = decoder_of(model.run), random_parameters(model.run), model._tokenizer.document_start

    def ids(text):
        return [*text.encode()]

    texts = [("the cat", " sat"), ("", "a mat"), ("the cat", " lay"), ("old ", "men")]
    found = model.loglikelihood(asked(*texts))
    parts = [([start_id, *ids("the cat")], ids(" sat")), ([start_id], ids("a mat")), ([start_id, *ids("the cat")], ids(" lay"))]
    parts.append(([start_id, *ids("old")], ids(" men")))  # lm-eval moves the space
    for (log_prob, greedy), part in zip(found, parts, strict=True):
        expected = likelihood(decoder, params, Request(*part))
        assert np.isclose(log_prob, expected.log_prob, atol=1e-4) and greedy == expected.greedy
    (whole,) = model.loglikelihood_rolling(asked(("a red sun",)))
    assert np.isclose(whole, likelihood(decoder, params, Request([start_id], ids("a red sun"))).log_prob, atol=1e-4)


def test_what_is_written_ends_at_the_stop_and_does_not_depend_on_its_neighbours(make_model):
    model = make_model()
    how = {"until": [], "max_gen_toks": 8}
    together = model.generate_until(asked(("the cat sat on", how), ("sea", how), ("old men", how | {"max_gen_toks": 4})))
    assert [model.generate_until(asked(("sea", how))), model.generate_until(asked(("the cat sat on", how)))] == [
        [together[1]],
        [together[0]],
    ]
    stop = together[0][2]
    (ended,) = model.generate_until(asked(("the cat sat on", how | {"until": [stop]})))
    assert ended == together[0][: together[0].index(stop)]
    with pytest.raises(UserError, match="asks for 32 new tokens"):
        model.generate_until(asked(("a", {"until": [], "max_gen_toks": 32})))


def test_a_start_is_never_doubled_and_text_makes_no_special_token(make_model):
    chat = Chat(
        template="{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}<end>{% endfor %}",
        tokens={"bos_token": "<s>", "eos_token": "<end>"},
        specials={"<s>": 300, "<end>": 301},
        start_ids=(300,),
    )
    model = make_model(chat)
    assert model.tok_encode("sea") == [300, *b"sea"] and model.tok_encode("sea", add_special_tokens=False) == [*b"sea"]
    assert (model.prefix_token_id, model.eot_token_id) == (300, 301)
    said = [{"role": "user", "content": "a <end>"}, {"role": "assistant", "content": "sea"}]
    whole = model.tok_encode(model.apply_chat_template(said))
    assert whole == [300, *b"[user]a <end>", 301, *b"[assistant]sea", 301]
    assert model.tok_encode(model.apply_chat_template(said, add_generation_prompt=False)) == whole[:-1]


def test_tasks_from_files_and_by_the_nearest_name(make_model, tmp_path):
    run = make_model().run
    rows = [
        {"question": "the sun is", "choices": [" red", " old", " low"], "label": 0},
        {"question": "the sea", "choices": [" x", " y"], "label": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = tmp_path / "tasks"
    files.mkdir()
    (files / "colours.yaml").write_text(TASK.replace("DATA", str(tmp_path / "rows.jsonl")))
    (files / "painting.yaml").write_text(GROUP)
    found = harness.evaluate_tasks(run, ["painting"], task_files=str(files))
    model = harness.HarnessModel(run)
    best = [np.argmax([model.loglikelihood(asked((row["question"], " " + one)))[0][0] for one in row["choices"]]) for row in rows]
    right = np.mean([place == row["label"] for place, row in zip(best, rows, strict=True)])
    assert found["tasks"]["colours"]["samples"] == 2
    assert found["tasks"]["colours"]["acc"] == found["tasks"]["painting"]["acc"] == right
    with pytest.raises(UserError, match="no task 'colour': did you mean 'colours'"):
        harness.evaluate_tasks(run, ["colour"], task_files=str(files))
    with pytest.raises(UserError, match="no such folder"):
        harness.evaluate_tasks(run, ["colours"], task_files=str(tmp_path / "none"))
    with pytest.raises(UserError, match="has no chat template"):
        harness.evaluate_tasks(run, ["colours"], task_files=str(files), chat=True)


def test_our_own_tasks_read_public_data_sets_and_say_what_is_missing(make_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNIA_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no rte/rte1_dev.jsonl, packed or not"):
        harness.load_tasks(["local_rte"])
    row = json.dumps({"premise": "It rains.", "hypothesis": "It is wet.", "label": 1})
    (tmp_path / "rte").mkdir()
    for name in ("rte1_dev", "rte2_dev", "rte1_test", "rte2_test"):
        (tmp_path / "rte" / f"{name}.jsonl").write_text(row + "\n")
    _, (task,) = harness.load_tasks(["local_rte"])
    document = next(iter(task.test_docs()))
    assert task.doc_to_text(document) == "It rains.\nQuestion: does it follow that It is wet.\nAnswer (yes or no):"
    assert task.doc_to_choice(document)[task.doc_to_target(document)] == "yes"
