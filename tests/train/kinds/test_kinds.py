"""A kind of each sort, defined in one config file, serves every verb: nothing else in the code knows of it."""

import functools
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import omnia
import serve  # noqa: F401, so that none in a stranger's folder takes its place
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import make_mesh
from train.evaluation.totals import Evaluator
from train.experiment import MeshShape
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind
from train.runs import classes
from train.runs.directory import open_run
from train.sources.dataset import dataset_of

HERE = Path(__file__).parent
ON_TEXT = ("corrupted_lm", "bag_of_words", "sign_gradient")
KINDS = (*ON_TEXT, "labelled_texts")


@pytest.fixture
def stranger(monkeypatch):
    """Nothing was loaded in this process, and nothing allowed."""

    def forget():
        monkeypatch.setattr(classes, "_loaded", {})
        monkeypatch.setattr(classes, "_allowed", [])

    forget()
    return forget


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, corpora):
    """run_of(name): a run of a kind that was stopped after half of its steps, and went on in another process; made when first asked for."""

    @functools.cache
    def make(name: str) -> Path:
        run_dir, config = str(tmp_path_factory.mktemp("kinds") / name), str(HERE / f"{name}.py")
        data = ["--data.shards", corpora[0]] if name in ON_TEXT else []
        with pytest.MonkeyPatch.context() as patch:  # what is loaded and allowed in here is so nowhere else
            patch.setattr(classes, "_loaded", {})
            patch.setattr(classes, "_allowed", [])
            patch.setattr("train.loop.loop.write_report", lambda path: None)  # the second half draws one
            assert omnia.main(["train", config, "--run-dir", run_dir, "--steps", "2", *data]) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(classes, "_loaded", {})
            patch.setattr(classes, "_allowed", [])
            assert omnia.main(["train", run_dir, "--steps", "4"]) == 2
            assert omnia.main(["train", run_dir, "--steps", "4", "--config", config]) == 0
        return Path(run_dir)

    return make


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_ones_own_trains_resumes_is_evaluated_and_reported(name, run_of, stranger, capsys):
    run_dir = str(run_of(name))
    rows = read_metrics(run_of(name))
    assert [row["step"] for row in rows if row["kind"] == "evaluation"] == [2, 4]
    capsys.readouterr()
    assert omnia.main(["evaluate", run_dir, "--json"]) == 2
    assert "--config" in capsys.readouterr().err
    # By the copy that the run keeps, or by the very file: the same.
    found = []
    for config in (f"{run_dir}/config.py", str(HERE / f"{name}.py")):
        stranger()
        assert omnia.main(["evaluate", run_dir, "--json", "--config", config, *(["--rows", "8"] if name in ON_TEXT else [])]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert found[0] == found[1]
    last = [row for row in rows if row["kind"] == "evaluation"][-1]
    assert {key: last[key] for key in found[0] if key in last} == {key: found[0][key] for key in found[0] if key in last}
    assert found[0]["loss"] == last["loss"]
    stranger()
    (run_of(name) / "report.html").unlink()
    assert omnia.main(["report", run_dir, "--config", str(HERE / f"{name}.py")]) == 0
    assert (run_of(name) / "report.html").is_file()
    assert omnia.main(["doctor", run_dir, "--compile", "--config", str(HERE / f"{name}.py")]) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("corrupted_lm", "CorruptedLM trains no model that continues texts"),
        ("labelled_texts", "Classification trains no model that continues texts"),
        ("bag_of_words", "a BagConfig does not continue texts"),
        ("sign_gradient", ""),
    ],
)
def test_generation_is_refused_by_name_where_there_is_none(name, said, run_of, capsys):
    run_dir = str(run_of(name))
    capsys.readouterr()
    code = omnia.main(["generate", run_dir, "--prompt", "the ", "--max-new-tokens", "4", "--config", str(HERE / f"{name}.py")])
    assert (code, said in capsys.readouterr().err) == ((2, True) if said else (0, True))


@pytest.mark.parametrize("name", KINDS)
def test_a_run_keeps_the_file_of_its_classes(name, run_of, stranger):
    run_dir = run_of(name)
    stored = json.loads((run_dir / "config.json").read_text())
    assert (run_dir / "config.py").read_bytes() == (HERE / f"{name}.py").read_bytes()
    assert stored["config"]["file"] == f"{name}.py" and len(stored["config"]["digest"]) == 32
    kinds = [stored["experiment"][part]["kind"] for part in ("data", "objective", "model", "gradient")]
    assert any(kind.startswith("config:") for kind in kinds) and all(":" in kind for kind in kinds)


def test_f1_is_that_of_all_rows_together(run_of):
    """However they are cut into batches: 21 texts, 8 at a time and 5 at a time."""
    classes.load_file(str(HERE / "labelled_texts.py"))
    run = open_run(run_of("labelled_texts"))
    params, _ = load_parameters(run, make_mesh(MeshShape(data=1), jax.devices()[:1]))
    batch = dataset_of(run.experiment).batches(run.corpora(), "validation").batch(0, 21)
    outputs = bind(run.experiment).outputs(params, batch)
    predicted, labels = np.asarray(outputs["predicted"]), batch.labels
    both = int((predicted & labels).sum())
    expected = 2 * both / max(int(predicted.sum() + labels.sum()), 1)
    last = [row for row in read_metrics(run.path) if row["kind"] == "evaluation"][-1]
    assert last["f1"] == pytest.approx(expected) and last["f1_texts"] == labels.sum() and last["texts"] == 21
    mesh = make_mesh(MeshShape(data=1), jax.devices()[:1])
    evaluator = Evaluator(bind(run.experiment, mesh), run.experiment, mesh)
    first, second = (dataset_of(run.experiment).evaluate(evaluator, params, run.corpora()) for _ in range(2))
    assert first == second and first["f1"] == pytest.approx(expected)  # nothing is left of an evaluation before


def test_the_gradient_is_the_one_that_was_chosen(run_of):
    """Every entry of a sign has the size of `scale`, but where the gradient is exactly 0, as for tokens that never occur."""
    classes.load_file(str(HERE / "sign_gradient.py"))
    run = open_run(run_of("sign_gradient"))
    shapes = jax.eval_shape(bind(run.experiment).start, jax.random.key(0))
    entries = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    norms = [row["gradient_norm"] for row in read_metrics(run.path) if row["kind"] == "train"]
    assert norms and all(0.5 * 0.5 * math.sqrt(entries) < norm <= 0.5 * math.sqrt(entries) * 1.001 for norm in norms)


def test_a_file_that_was_changed_is_taken_and_said(run_of, stranger, tmp_path, capsys):
    changed = tmp_path / "corrupted_lm.py"
    changed.write_text((HERE / "corrupted_lm.py").read_text() + "\n# another line\n")
    assert omnia.main(["evaluate", str(run_of("corrupted_lm")), "--config", str(changed)]) == 0
    assert "which is not as it was when the run was started" in capsys.readouterr().out
    stranger()
    assert omnia.main(["evaluate", str(run_of("corrupted_lm")), "--config", str(tmp_path / "nowhere.py")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_objectives_and_data_that_do_not_belong_together_are_refused_by_name(tmp_path, corpora, capsys):
    config = tmp_path / "mixed.py"
    config.write_text((HERE / "labelled_texts.py").read_text().replace("objective=Classification(),", ""))
    assert omnia.main(["train", str(config), "--run-dir", str(tmp_path / "run")]) == 2
    assert "CausalLM and data LabelledTexts do not belong together" in capsys.readouterr().err


EVIL = "import pathlib\npathlib.Path({path!r}).write_text('run')\n"


@pytest.mark.parametrize(
    "kind", ["serve:Evil", "config:CorruptedLM", "os:system", "subprocess:Popen", "evil:Evil", "train.verbs.report:Report", "CorruptedLM"]
)
def test_nothing_of_a_strangers_run_is_executed(kind, run_of, stranger, tmp_path, capsys, monkeypatch):
    """Whatever config.json names: no file of the run, and no module that is not ours, is imported for it."""
    run_dir, mark = tmp_path / "run", tmp_path / "executed"
    run_dir.mkdir()
    for source in run_of("corrupted_lm").iterdir():
        if source.is_file():
            (run_dir / source.name).write_bytes(source.read_bytes())
    stored = json.loads((run_dir / "config.json").read_text())
    stored["experiment"]["objective"]["kind"] = kind
    (run_dir / "config.json").write_text(json.dumps(stored))
    for name in ("config.py", "evil.py", "serve.py", "__init__.py", "sitecustomize.py"):
        (run_dir / name).write_text(EVIL.format(path=str(mark)))
    monkeypatch.chdir(run_dir)
    monkeypatch.syspath_prepend(str(run_dir))  # as of `python -m omnia` there
    for verb in ("evaluate", "generate", "doctor", "train", "inspect"):
        prompt = ["--prompt", "a"] if verb == "generate" else []
        assert omnia.main([verb, str(run_dir), *prompt]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert omnia.main(["report", str(run_dir)]) == 0 and omnia.main(["checkpoint", "verify", str(run_dir)]) in (0, 2)
    assert not mark.exists()


PLAIN = (HERE / "sign_gradient.py").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("from train.kinds import Gradient", "from os import PathLike as Gradient"), "line"),
        (('":sign_of"', '":sign_off"'), "SignGradient.home is ':sign_off', and there is no such thing"),
        (('":sign_of"', '"nowhere.at_all:sign_of"'), "there is no such thing"),
        (("home: ClassVar[str]", "home: str"), "home is a field"),
        (("scale: float = 1.0", "scale: tuple[tuple[int, int], ...] = ((1, 2),)"), "config.json cannot hold gradient.scale"),
        (("def get_config(", "def get_config_of("), "has no function get_config"),
        (("import jax\n", "import jax\nraise SystemExit('bye')\n"), "line 7: SystemExit: bye"),
        (("import jax\n", "import jax\n)\n"), "line 7: SyntaxError"),
        (("jnp.sign(x)", "jnp.sing(x)"), "AttributeError"),
    ],
)
def test_mistakes_in_ones_own_file_are_two_lines(change, said, tmp_path, corpora, capsys):
    """What the file is, its line where there is one; code 2, and not that of a fault of ours that may not come again."""
    assert change[0] in PLAIN
    (tmp_path / "mine.py").write_text(PLAIN.replace(*change).replace("SignGradient(scale=0.5)", "SignGradient()"))
    code = omnia.main(["train", str(tmp_path / "mine.py"), "--run-dir", str(tmp_path / "run"), "--data.shards", corpora[0]])
    err = capsys.readouterr().err
    assert code == 2 and said in err, err
    assert "omnia: " in err and ("sing" in change[1] or "Traceback" not in err)


def test_classes_that_no_other_process_finds_are_refused_before_training(tmp_path, corpora, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "beside.py").write_text(PLAIN)
    (tmp_path / "mine.py").write_text("from beside import get_config\n")
    inner = PLAIN.replace("def get_config", "def outer():\n    return 1\n\n\ndef get_config")
    (tmp_path / "inner.py").write_text(
        inner + "\n\nclass Holder:\n    SignGradient = SignGradient\n\n\nSignGradient.__qualname__ = 'Holder.SignGradient'\n"
    )
    for name, said in (("mine.py", "class SignGradient is of module beside"), ("inner.py", "is defined inside something else")):
        assert omnia.main(["train", str(tmp_path / name), "--run-dir", str(tmp_path / "run"), "--data.shards", corpora[0]]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_metrics_give_numbers_under_names_of_their_own(tmp_path, capsys):
    source = (HERE / "labelled_texts.py").read_text()
    for result, said in (
        ('{"f1": "many"}', "f1 'many', which is no number"),
        ('{"loss": -5.0}', "'loss', which is there already"),
        ("3.0", "a result 3.0"),
    ):
        where = source.index('        return {"f1":')
        (tmp_path / "mine.py").write_text(source[:where] + f"        return {result}\n" + source[source.index("\n\n\ndef get_config") :])
        assert omnia.main(["train", str(tmp_path / "mine.py"), "--run-dir", str(tmp_path / result[:3].strip('{}"')), "--steps", "1"]) == 2
        assert said in capsys.readouterr().err


def test_a_file_that_does_not_define_the_class_is_said(run_of, stranger, tmp_path, capsys):
    (tmp_path / "other.py").write_text("Echo = 5\n")
    run_dir = str(run_of("corrupted_lm"))
    assert omnia.main(["evaluate", run_dir, "--config", str(tmp_path / "other.py")]) == 2
    assert "other.py does not define" in capsys.readouterr().err
    stranger()
    (tmp_path / "broken.py").write_text("x = 1\nimport nothing_of_the_kind\n")
    assert omnia.main(["evaluate", run_dir, "--config", str(tmp_path / "broken.py")]) == 2
    assert "line 2: ModuleNotFoundError" in capsys.readouterr().err


def test_a_resumed_run_keeps_the_file_of_the_steps_to_come(run_of, stranger, tmp_path, capsys):
    run_dir, changed = tmp_path / "run", tmp_path / "corrupted_lm.py"
    shutil.copytree(run_of("corrupted_lm"), run_dir)
    changed.write_text((HERE / "corrupted_lm.py").read_text() + "\n# another line\n")
    assert omnia.main(["train", str(run_dir), "--steps", "5", "--config", str(changed)]) == 0
    assert "which is not as it was" in capsys.readouterr().out
    assert (run_dir / "config.py").read_bytes() == changed.read_bytes()
    stranger()
    assert omnia.main(["evaluate", str(run_dir), "--rows", "8", "--config", str(run_dir / "config.py")]) == 0
    assert "which is not as it was" not in capsys.readouterr().out
