"""A fine-tuned encoder leaves with its head, under the names of Hugging Face's classes, and a published one comes with it."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import linen as nn
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import omnia
from data.errors import UserError
from data.tokenizer import hugging_face_tokenizer
from model.text_encoder_config import TextEncoderConfig
from tests.train.bridge.published_models import byte_level
from tests.train.kinds.options import kinds_of_data, naming
from train.adapters.options import LoRA
from train.apps.service.customer_service import CustomerService
from train.bridge.adapters import CONFIG, WEIGHTS, export_adapters, import_adapters
from train.bridge.exporting import export_model
from train.bridge.importing import import_model, save_parameters
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.experiment import SGD, Experiment, MeshShape, TextData
from train.objectives.bind import bind, bind_trained
from train.objectives.tasks.options import Supervised, SupervisedTogether
from train.objectives.tasks.retrieval import Retrieval
from train.objectives.text.options import MaskedLM
from train.runs.directory import START, Run, keep_start, open_run, write_run
from train.runs.serialize import to_json
from train.sources.dataset import dataset_of
from train.tasks.choice import MultipleChoice
from train.tasks.classification import Classification
from train.tasks.retrieval import TextPairs
from train.tasks.similarity import Similarity
from train.tasks.spans import Spans
from train.tasks.tagging import Tagging
from train.tasks.task import Task
from train.tasks.together import Together

BERT = TextEncoderConfig(
    vocab_size=264, context_length=48, num_layers=1, embed_dim=16, num_heads=2, norm_position="post", token_types=2, init_std=0.3
)
ROBERTA = dataclasses.replace(BERT, token_types=1, activation="gelu")
DISTILBERT = dataclasses.replace(BERT, token_types=0, pooler=False, norm_epsilon=1e-12)
ABC = ("a", "b", "c")
POOLED = Supervised(labels=ABC, pool="pooler")
TASKS = {
    "labels": (BERT, Classification(length=48), POOLED, "BertForSequenceClassification"),
    "several": (BERT, Classification(length=48, several=True), POOLED, "BertForSequenceClassification"),
    "roberta": (ROBERTA, Classification(length=48), POOLED, "RobertaForSequenceClassification"),
    "number": (BERT, Similarity(length=48, scale=5.0), Supervised(pool="pooler"), "BertForSequenceClassification"),
    "choice": (BERT, MultipleChoice(length=48), Supervised(pool="pooler"), "BertForMultipleChoice"),
    "tags": (DISTILBERT, Tagging(length=48), Supervised(labels=("O", "B-X", "I-X")), "DistilBertForTokenClassification"),
    "spans": (BERT, Spans(length=48, answerable=False), Supervised(), "BertForQuestionAnswering"),
}


def run_of(path, model, data, objective, **more) -> Run:
    """With random parameters."""
    tokenizer = hugging_face_tokenizer(byte_level().to_str().encode())
    experiment = Experiment(name="own", model=model, data=data, objective=objective, optimizer=SGD(), mesh=MeshShape(data=1), **more)
    run = Run(path, experiment, ("digest",) * len(getattr(data, "files", ())), tokenizer.specials["document_end"])
    path.mkdir(parents=True)
    tokenizer.save(str(path / "tokenizer"))
    write_run(run)
    if experiment.start:
        keep_start(path / START, open_run(experiment.start))
    rng = np.random.default_rng(0)
    fresh = nn.unbox(jax.jit(bind_trained(experiment).start)(jax.random.key(0)))
    save_parameters(run, jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), fresh))
    return run


def params_of(run: Run):
    return load_parameters(run, make_mesh(MeshShape(data=1), jax.devices("cpu")[:1]))[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_head_leaves_and_comes_back(task, tmp_path):
    """Beside the trunk it reads, without the layers that such a model lacks; a number's head in the numbers of its file."""
    model, data, objective, architecture = TASKS[task]
    run = run_of(tmp_path / "run", model, data, objective)
    export_model(run, "hf", tmp_path / "theirs")
    said = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert said["architectures"] == [architecture]
    if task in ("labels", "several", "roberta"):
        assert said["id2label"] == {str(place): name for place, name in enumerate(ABC)}
        assert said["problem_type"] == ("multi_label_classification" if task == "several" else "single_label_classification")
    back = import_model(tmp_path / "theirs", tmp_path / "back")
    assert back.experiment.data == (dataclasses.replace(data, scale=1.0) if task == "number" else data)
    assert back.experiment.objective == objective
    before, after = params_of(run), params_of(back)
    factor = 5.0 if task == "number" else 1.0
    np.testing.assert_allclose(after["task_head"]["kernel"], factor * before["task_head"]["kernel"], rtol=1e-6)
    assert set(after) == set(before) - {"prediction"} - ({"pooler"} if task == "spans" else set())
    jax.tree.map(np.testing.assert_array_equal, after["layers"], before["layers"])


def test_an_imported_classifier_answers_from_the_command_line(tmp_path, capsys):
    model, data, objective, _ = TASKS["roberta"]
    run = run_of(tmp_path / "run", model, data, objective)
    with open(tmp_path / "test.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"text {number} of {number % 7}", ABC[number % 3]) for number in range(12))])
    export_model(run, "hf", tmp_path / "theirs")
    assert omnia.main(["import", str(tmp_path / "theirs"), "--run-dir", str(tmp_path / "back")]) == 0
    capsys.readouterr()
    assert omnia.main(["evaluate", str(tmp_path / "back"), "--files", str(tmp_path / "test.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = evaluate_run(run, shards=(str(tmp_path / "test.csv"),))
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5) and found["macro_f1"] == wanted["macro_f1"]


@pytest.mark.parametrize("task, measure", [("classification", "macro_f1"), ("tagging", "f1")])
def test_tasks_are_learned_by_adapters_from_the_command_line(task, measure, tmp_path, capsys):
    """What people type: train from a run, by LoRA, and evaluate on another file."""
    base = run_of(tmp_path / "base", BERT, TextData(), MaskedLM())
    file = tmp_path / ("train.csv" if task == "classification" else "train.conll")
    rows = ["text,label", *(f"{'ab'[n % 2] * 3} {n},{'xy'[n % 2]}" for n in range(24))]
    words = ["".join(f"{word} {tag}\n" for word, tag in (("in", "O"), (f"Rome{n}", "B-LOC"))) for n in range(24)]
    file.write_text("\n".join(rows if task == "classification" else words) + "\n")
    fewer = ["--steps", "3", "--batch-size", "8", "--data.length", "40", "--evaluation.every", "3"]
    learn = ["train", f"configs/tasks/{task}.py", "--run-dir", str(tmp_path / "run"), "--data.files", str(file), "--start", str(base.path)]
    assert omnia.main([*learn, "--adapters", "lora", *fewer]) == 0
    assert "LoRA trains" in capsys.readouterr().out
    assert omnia.main(["evaluate", str(tmp_path / "run"), "--files", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {measure, "accuracy" if task == "classification" else "token_accuracy"} <= set(found) and found["examples"] == 24


def test_a_head_that_nothing_published_has_stays_behind(tmp_path, capsys):
    objective = Supervised(labels=ABC, pool="mean")
    run = run_of(tmp_path / "run", BERT, Classification(length=48), objective)
    export_model(run, "hf", tmp_path / "theirs")
    assert "stays behind: a BertForSequenceClassification reads the pooler's output" in capsys.readouterr().out
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"id2label": {"0": "a", "1": "a", "2": "c"}}, "the same for two labels"),
        ({"id2label": {"0": "a", "1": None, "2": "c"}}, "no texts"),
        ({"id2label": {}, "num_labels": 1e12}, "num_labels"),
        ({"architectures": {"x": 1}}, "config.json"),
        ({"id2label": {"0": "O", "1": "I-PER", "2": "B-LOC"}, "architectures": ["BertForTokenClassification"]}, "not IOB2"),
        ({"id2label": {"0": "NN", "1": "VB", "2": "O"}, "architectures": ["BertForTokenClassification"]}, "not IOB2"),
    ],
)
def test_labels_that_mean_nothing_here_are_named(changed, said, tmp_path):
    model, data, objective, _ = TASKS["labels"]
    export_model(run_of(tmp_path / "run", model, data, objective), "hf", tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(UserError, match=said):
        import_model(tmp_path / "theirs", tmp_path / "back")


def test_vectors_leave_without_a_head(tmp_path, capsys):
    run = run_of(tmp_path / "run", BERT, TextPairs(length=48), Retrieval(pool="mean"))
    dataset_of(run.experiment).check_way()
    export_model(run, "hf", tmp_path / "theirs")
    assert "stays behind" not in capsys.readouterr().out
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    with pytest.raises(UserError, match="Choose the objective Retrieval"):
        bind(dataclasses.replace(run.experiment, objective=Supervised()))


def test_a_head_beside_which_ngrams_count_does_not_leave(tmp_path, capsys):
    objective = dataclasses.replace(POOLED, ngrams=2)
    export_model(run_of(tmp_path / "run", BERT, Classification(length=48), objective), "hf", tmp_path / "theirs")
    assert "stays behind: no class of theirs weighs n-grams" in capsys.readouterr().out


def test_of_several_heads_none_leaves(tmp_path, capsys):
    together = Together(tasks=(Classification(length=48), Similarity(length=48)), names=("a", "b"))
    objective = SupervisedTogether(tasks=(POOLED, Supervised(pool="pooler")))
    export_model(run_of(tmp_path / "run", BERT, together, objective), "hf", tmp_path / "theirs")
    assert "stays behind: no class of theirs has several heads" in capsys.readouterr().out
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha_pattern": {"(": 1}},
        {"lora_alpha": None},
        {"modules_to_save": 5},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 1]]},
        {"task": {"data": {"kind": "Classification", "length": "long"}, "objective": {}}},
        {"task": {"data": [], "objective": {}}},
    ],
)
def test_adapters_of_strangers_end_in_a_sentence(changed, tmp_path):
    """Whatever their settings hold: nothing half-made, no traceback."""
    model, data, objective, _ = TASKS["labels"]
    base = run_of(tmp_path / "base", model, TextData(), MaskedLM())
    run = run_of(tmp_path / "run", model, data, objective, start=str(base.path), adapters=LoRA(rank=2, trained=("task_head",)))
    export_adapters(run, tmp_path / "alone")
    config, weights = json.loads((tmp_path / "alone" / CONFIG).read_text()), load_file(tmp_path / "alone" / WEIGHTS)
    said = {"task": json.dumps(changed["task"])} if "task" in changed else {}
    save_file(weights, tmp_path / "alone" / WEIGHTS, said)
    (tmp_path / "alone" / CONFIG).write_text(json.dumps(config | ({} if said else changed)))
    with pytest.raises(UserError, match="alone|^data"):
        import_adapters(tmp_path / "alone", base, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_files_of_a_strangers_task_are_not_looked_for(tmp_path):
    model, data, objective, _ = TASKS["labels"]
    base = run_of(tmp_path / "base", model, TextData(), MaskedLM())
    run = run_of(tmp_path / "run", model, data, objective, start=str(base.path), adapters=LoRA(rank=2, trained=("task_head",)))
    export_adapters(run, tmp_path / "alone")
    with safe_open(tmp_path / "alone" / WEIGHTS, "numpy") as file:
        task = json.loads(file.metadata()["task"])
    task["data"]["files"] = ["/etc/passwd"]
    task["data"]["length"] = 4096
    save_file(load_file(tmp_path / "alone" / WEIGHTS), tmp_path / "alone" / WEIGHTS, {"task": json.dumps(task)})
    back = import_adapters(tmp_path / "alone", base, tmp_path / "back")
    assert back.experiment.data.files == () and back.experiment.data.length == 48


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """(a base, a folder of adapters of it, the path that the data of their run named)."""
    place = tmp_path_factory.mktemp("alone")
    model, _, objective, _ = TASKS["labels"]
    base = run_of(place / "base", model, TextData(), MaskedLM())
    data = dataclasses.replace(naming(CustomerService(length=48), str(place / "named")), validation_files=())  # has one digest
    run = run_of(place / "run", model, data, objective, start=str(base.path), adapters=LoRA(rank=2, trained=("task_head",)))
    export_adapters(run, place / "out")
    return base, place / "out", str(place / "named")


def test_adapters_name_no_file_of_those_who_trained_them(alone):
    _, folder, named = alone
    assert not any(named.encode() in path.read_bytes() for path in folder.iterdir())


TASK_KINDS = [kind for kind in kinds_of_data() if kind.home and issubclass(kind, Task | Together)]


@pytest.mark.parametrize("kind", TASK_KINDS, ids=lambda kind: kind.__name__)
def test_adapters_of_strangers_name_no_file_of_those_who_read_them(kind, alone, tmp_path, monkeypatch):
    """Whatever kind of task they are of: what the run named would be opened as soon as it is at work."""
    base, folder, _ = alone
    with safe_open(folder / WEIGHTS, "numpy") as file:
        task = json.loads(file.metadata()["task"])
    secret = str(tmp_path / "secret")
    task["data"] = to_json(naming(kind(), secret))
    assert secret in str(task)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    save_file(load_file(folder / WEIGHTS), theirs / WEIGHTS, {"task": json.dumps(task)})
    for name in ("_check_fits", "save_parameters"):  # weights of all kinds are not of one shape
        monkeypatch.setattr(f"train.bridge.adapters.{name}", lambda *arguments: None)
    back = import_adapters(theirs, base, tmp_path / "back")
    assert type(open_run(back.path).experiment.data) is kind
    assert secret not in (back.path / "config.json").read_text()


@pytest.mark.parametrize("task", ["roberta", "tags", "spans"])
def test_adapters_carry_the_head_of_their_task(task, tmp_path):
    """As PEFT has it, among the modules to save; on a base without a head they are a run of the task again."""
    model, data, objective, _ = TASKS[task]
    base = run_of(tmp_path / "base", model, TextData(), MaskedLM())
    tuned = {"start": str(base.path), "adapters": LoRA(rank=2, trained=("task_head",))}
    run = run_of(tmp_path / "run", model, dataclasses.replace(data, files=("x.csv",)), objective, **tuned)
    said = export_adapters(run, tmp_path / "alone") or json.loads((tmp_path / "alone" / CONFIG).read_text())
    module, kind = ("qa_outputs", "QUESTION_ANS") if task == "spans" else ("classifier", "TOKEN_CLS" if task == "tags" else "SEQ_CLS")
    assert (said["peft_type"], said["modules_to_save"], said["task_type"]) == ("LORA", [module], kind)
    names = set(load_file(tmp_path / "alone" / WEIGHTS))
    assert {name.split(".")[2] for name in names if "lora" not in name} == {module}
    back = import_adapters(tmp_path / "alone", base, tmp_path / "back")
    assert back.experiment.data == data and back.experiment.objective == objective
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params_of(back), params_of(run))


def test_a_head_of_pefts_own_has_labels_without_names(tmp_path):
    """Their files do not say what labels are called, nor ours what the task was: the base's head does, or they are numbered."""
    model, data, objective, _ = TASKS["labels"]
    base = run_of(tmp_path / "base", model, TextData(), MaskedLM())
    run = run_of(tmp_path / "run", model, data, objective, start=str(base.path), adapters=LoRA(rank=2, trained=("task_head",)))
    export_adapters(run, tmp_path / "alone")
    weights = load_file(tmp_path / "alone" / WEIGHTS)
    save_file(weights, tmp_path / "alone" / WEIGHTS)  # without what stands beside them
    back = import_adapters(tmp_path / "alone", base, tmp_path / "back")
    assert back.experiment.objective == Supervised(labels=("LABEL_0", "LABEL_1", "LABEL_2"), pool="pooler")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params_of(back), params_of(run))
    again = import_adapters(tmp_path / "alone", run_of(tmp_path / "named", model, data, objective), tmp_path / "third")
    assert again.experiment.objective.labels == ABC
    config = json.loads((tmp_path / "alone" / CONFIG).read_text())
    (tmp_path / "alone" / CONFIG).write_text(json.dumps(config | {"modules_to_save": ["score"]}))
    with pytest.raises(UserError, match="saves score"):
        import_adapters(tmp_path / "alone", base, tmp_path / "fourth")
