"""What the command line refuses, and how it says so: exit code 2, the nearest name, no traceback."""

import dataclasses
import errno
import importlib
import io
import json
import os
import random
import re
import signal
import string
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

import omnia
from data.errors import UserError
from data.files import json_files
from tests.options import DEFAULTS, keys_of
from train.experiment import Experiment
from train.loop.checks import check_options
from train.runs.serialize import FORMAT, to_json
from train.verbs import arguments
from train.verbs.config_files import load_config
from train.verbs.generate import _asked, _without_escapes
from train.verbs.train import Train

ROOT = Path(__file__).parent.parent
ALPHABET = string.ascii_lowercase + "_.-"
QUICKSTART = str(ROOT / "configs" / "quickstart.py")


def one_edit_typos(key: str) -> set[str]:
    cuts = [(key[:i], key[i:]) for i in range(len(key) + 1)]
    return (
        {a + b[1:] for a, b in cuts if b}
        | {a + letter + b for a, b in cuts for letter in ALPHABET}
        | {a + letter + b[1:] for a, b in cuts if b for letter in ALPHABET}
        | {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    )


def is_key(name: str, keys: set[str]) -> bool:
    return name.replace("_", "-") in {*keys, "help"}


@pytest.mark.parametrize("verb", DEFAULTS)
def test_no_typo_of_a_key_is_taken_for_a_key(verb, monkeypatch):
    """All one-edit typos of all keys go through the verb's own parser at once; it must hand back every single one as unknown."""
    default = DEFAULTS[verb]
    keys = keys_of(default)
    typos = sorted({f"--{typo}=1" for key in keys for typo in one_edit_typos(key) if typo and not is_key(typo, keys)})
    abbreviations = sorted({f"--{key[:end]}=1" for key in keys for end in range(2, len(key)) if not is_key(key[:end], keys)})
    assert len(typos) > 300 * len(keys)
    original = tyro.cli
    monkeypatch.setattr(arguments, "_check_given_once", lambda *_: None)  # typos of two keys can be the same
    monkeypatch.setattr(tyro, "cli", lambda *rest, **options: original(*rest, **options, return_unknown_args=True))
    positional = ["somewhere"] if verb in ("evaluate", "generate", "inspect") else []
    parsed, unknown = arguments.parse(type(default), verb, [*positional, *typos, *abbreviations], None if positional else default)
    assert unknown == typos + abbreviations
    assert parsed == default


def test_the_keys_of_the_tests_are_those_of_the_parser(capsys):
    """What this file calls a key is what `--help` lists: so no key is missing from the test above."""
    with pytest.raises(SystemExit):
        omnia.main(["train", QUICKSTART, "--help"])
    shown = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9.-]*)", capsys.readouterr().out)) - {"help"}
    assert shown == keys_of(Train("somewhere", load_config(QUICKSTART)))


def sampled_typos():
    """Twenty typos of the configuration, one of each of twenty keys."""
    experiment = load_config(QUICKSTART)
    keys = keys_of(Train("somewhere", experiment))
    rng = random.Random(2)
    chosen = rng.sample(sorted(key for key in keys if "no-" not in key), 20)
    return [(rng.choice(sorted(typo for typo in one_edit_typos(key) if typo and not is_key(typo, keys))), key) for key in chosen]


@pytest.mark.parametrize("typo, key", sampled_typos())
def test_a_typo_on_the_command_line_names_the_key(typo, key, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        omnia.main(["train", QUICKSTART, "--run-dir", str(tmp_path / "run"), f"--{typo}", "1"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"--{key}" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def run(*arguments: str, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", "omnia", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("typo, key", [("optimizer.learning-rte", "optimizer.learning-rate"), ("seeed", "seed")])
def test_a_typo_ends_the_process_with_code_2(typo, key, tmp_path):
    found = run("train", "configs/quickstart.py", "--run-dir", str(tmp_path / "run"), f"--{typo}", "1")
    assert found.returncode == 2
    assert f"--{key}" in found.stderr and "Traceback" not in found.stderr


def test_hyphens_and_underscores_are_the_same(tmp_path):
    default = Train("somewhere", Experiment())
    both = [arguments.parse(Train, "train", [f"--optimizer.{name}", "0.25"], default) for name in ("learning-rate", "learning_rate")]
    assert both[0] == both[1] and both[0].experiment.optimizer.learning_rate == 0.25


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused; returns what it said."""

    def run(*arguments: str) -> str:
        try:
            code = omnia.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert code == 2, said
        assert "Traceback" not in said.out + said.err
        return said.err

    return run


@pytest.mark.parametrize(
    "text, said",
    [
        ("from train import Experiment\ndef get_config(arg=''):\n    return Experiment(stepz=5)\n", "line 3: .*did you mean 'steps'"),
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        ("def get_config(arg=''):\n    return 7\n", "gives no experiment"),
        ("x = 1\n", "no function get_config"),
    ],
)
def test_mistakes_in_a_config_file_name_its_line(refused, tmp_path, text, said):
    (tmp_path / "mine.py").write_text(text)
    assert re.search(said, refused("train", tmp_path / "mine.py", "--run-dir", tmp_path / "run"))


@pytest.mark.parametrize(
    "flag, value",
    [
        ("logging.every", "0"),
        ("checkpoints.every", "-1"),
        ("evaluation.rows", "-1"),
        ("schedule.warmup-steps", "-1"),
        ("model.mlp-dim", "-4"),
        ("optimizer.learning-rate", "nan"),
        ("seed", "3000000000"),
        ("mesh.fsdp", "0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(refused, tmp_path, flag, value):
    assert flag.replace("-", "_") in refused("train", QUICKSTART, "--run-dir", tmp_path / "run", f"--{flag}", value)


def test_mistakes_are_said_in_a_line_or_two(refused, tmp_path):
    run_dir = tmp_path / "run"
    assert "did you mean 'train'?" in refused("trian")
    assert "choose from quickstart, prepare" in refused("frobnicate")
    said = refused("train", ROOT / "configs" / "shakespear.py", "--run-dir", run_dir)
    assert "no such file" in said and "configs/shakespeare.py" in said
    assert "not a config file" in refused("train", "shakespeare", "--run-dir", run_dir)
    said = refused("train", f"{ROOT}/configs/shakespeare.py:nanogpt_gpus", "--run-dir", run_dir)
    assert "no variant 'nanogpt_gpus'" in said and "nanogpt_gpu" in said
    assert "no variant" in refused("train", f"{QUICKSTART}:best", "--run-dir", run_dir)
    assert "no config" in refused("train", "--run-dir", run_dir)
    for config, made_by in (
        ("quickstart.py", "prepare text"),
        ("media/classes.py", "prepare images|"),
        ("rl/reviews.py:reward", "--data.files"),
    ):
        said = refused("train", ROOT / "configs" / config, "--run-dir", run_dir)
        assert "is empty" in said and made_by in said
    assert "no prepared corpus" in refused("train", QUICKSTART, "--run-dir", run_dir, "--data.shards", tmp_path)
    assert "--run-dir" in refused("train", QUICKSTART)
    assert "learning-rate" in refused("train", QUICKSTART, "--run-dir", run_dir, "--optimizer.learning-rate", "fast")
    assert "must be at least 1" in refused("train", QUICKSTART, "--run-dir", run_dir, "--steps", "0")
    refused("train", QUICKSTART, "--run-dir", run_dir, "--schedule.decay", "cosin")
    refused("train", QUICKSTART, "--run-dir", run_dir, "steps", "5")
    assert not run_dir.exists()
    assert "not a run" in refused("evaluate", tmp_path, "--json")
    assert "belongs to --by-position" in refused("evaluate", tmp_path, "--context-length", "64")
    assert "two measurements" in refused("evaluate", tmp_path, "--needle", "--by-position")
    assert "as they are" in refused("evaluate", tmp_path, "--needle", "--int8")
    assert "must be positive" in refused("evaluate", tmp_path, "--needle", "--samples", "0")
    assert "not a run" in refused("evaluate", tmp_path, "--needle")
    assert "not a run" in refused("generate", tmp_path, "--prompt", "a")
    assert "what should be continued" in refused("generate", tmp_path)
    assert "must be positive" in refused("generate", tmp_path, "--prompt", "a", "--max-new-tokens", "0")
    assert "no prepared corpus" in refused("inspect", tmp_path)
    assert "cannot prepare 'smells'" in refused("prepare", "smells")
    (tmp_path / "a.txt").write_text("some text")
    assert "words" in refused("prepare", "text", "--input", tmp_path / "a.txt", "--output", tmp_path / "out", "--tokenizer", "words")


def test_a_config_file_without_get_config_is_refused(refused, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def configuration():\n    pass\n")
    assert "no function get_config" in refused("train", path, "--run-dir", tmp_path / "run")


def test_an_unknown_field_in_a_run_is_refused_by_name(refused, tmp_path):
    stored = to_json(Experiment())
    stored["optimizer"]["learning_rte"] = stored["optimizer"].pop("learning_rate")
    json_files.write(tmp_path / "config.json", {"format": FORMAT, "experiment": stored, "shards": [], "document_end": None})
    said = refused("evaluate", tmp_path)
    assert "experiment.optimizer.learning_rte" in said and "did you mean 'learning_rate'?" in said


def test_a_room_of_somebody_else_stops_a_verb(tmp_path):
    """Python prefers the folder it is started in: a stranger's `data` there is named instead of half used."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").touch()
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import omnia; sys.exit(omnia.main(['doctor']))"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2 and "the package 'data' is imported from" in found.stderr and "Traceback" not in found.stderr


def test_help_of_the_command_lists_the_verbs(capsys):
    assert omnia.main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in omnia.VERBS)
    names = map(omnia.file_of, omnia.VERBS)
    assert all(callable(getattr(importlib.import_module(omnia.HOMES.get(name, f"train.verbs.{name}")), name)) for name in names)


@pytest.mark.parametrize("kernel, asks", [("always [madvise] never", True), ("[always] madvise never", False)])
def test_huge_pages_are_asked_for_once(kernel, asks, monkeypatch):
    """The process starts again, as it was started; then, or where the kernel gives them anyway, it does not."""
    started = []
    monkeypatch.setenv("GLIBC_TUNABLES", "mine=2")
    monkeypatch.setattr(Path, "read_text", lambda path: kernel)
    monkeypatch.setattr("os.execv", lambda *arguments: started.append((*arguments, os.environ["GLIBC_TUNABLES"])))
    omnia.ask_for_huge_pages()
    omnia.ask_for_huge_pages()
    assert started == ([(sys.executable, sys.orig_argv, "mine=2:glibc.malloc.hugetlb=1")] if asks else [])


@pytest.fixture
def some_run(tmp_path):
    """A run as far as its config.json: enough to be told apart from what is none."""
    folder = tmp_path / "run"
    folder.mkdir()
    json_files.write(folder / "config.json", {"format": FORMAT, "experiment": to_json(Experiment()), "shards": [], "document_end": None})
    return folder


def test_arguments_that_contradict_each_other_are_refused(refused, some_run, tmp_path):
    said = refused("train", some_run, "--run-dir", tmp_path / "other")
    assert "--run-dir names another folder" in said and f"--start {some_run}" in said
    assert "--steps given twice" in refused("train", QUICKSTART, "--run-dir", tmp_path / "new", "--steps", "5", "--steps=6")
    both = ("--model.scan", "--model.no-scan")
    assert "--model.scan and --model.no-scan given" in refused("train", QUICKSTART, "--run-dir", tmp_path / "new", *both)
    assert "--stop given twice" in refused("generate", some_run, "--prompt", "a", "--stop", "x", "--stop", "y")


@pytest.mark.parametrize(
    ("verb", "flags", "said"),
    [
        ("generate", ("--beams", "2", "--temperature", "0.5"), "--temperature does not go with --beams"),
        ("generate", ("--beams", "2", "--top-k", "5"), "--top-k does not go with --beams"),
        ("generate", ("--beams", "2", "--seed", "1"), "--seed does not go with --beams"),
        ("generate", ("--length-penalty", "1"), "--length-penalty belongs to --beams"),
        ("generate", ("--stop", "x", ""), "a --stop string is empty"),
        ("generate", ("--stop",), "--stop is given without a value"),
        ("generate", ("--image", "--seed", "1"), "--image is given without a value"),
        ("train", ("--data.shards", "--steps", "5"), "--data.shards is given without a value"),
        ("evaluate", ("--shards",), "--shards is given without a value"),
        ("inspect", ("--media", "a.png", "--samples", "2"), "--samples is of texts"),
        ("inspect", ("--media", "a.jpg"), "a.jpg: a contact sheet is a .png file"),
        ("plan", ("--topology", "cpu:1", "--candidates", "2"), "--candidates belongs to --search"),
        ("plan", ("--topology", "cpu:1", "--data.shards", "x"), "--data.shards: a plan reads no data"),
        ("plan", ("--topology", "cpu:1", "--start", "x"), "--start: a plan reads no parameters"),
        ("plan", ("--topology", "cpu:1"), "model.vocab_size is not known"),
        ("evaluate", ("--passes", "3"), "--passes belongs to --decode"),
        ("evaluate", ("--decode", "beam", "--considered", "3"), "--considered belongs to --decode search"),
        ("evaluate", ("--needle-text", "{}"), "--needle-text belongs to --needle"),
        ("evaluate", ("--needle", "--rows", "3"), "--rows is not for --needle"),
        ("evaluate", ("--seed", "3"), "--seed belongs to --needle"),
        ("generate", ("--seed", "99999999999999999999"), "--seed is 99999999999999999999\n"),
        ("generate", ("--seed", "-1"), "--seed is -1\n"),
        ("evaluate", ("--needle", "--seed", "2147483648"), "--seed is 2147483648\n"),
        ("label", ("--output", "x", "--seed", "2147483648"), "--seed is 2147483648\n"),
        ("generate", ("--beams", "2", "--length-penalty", "1e30"), "--length-penalty 0 to 5"),
        ("generate", ("--beams", "2", "--length-penalty", "inf"), "length_penalty is"),
        ("generate", ("--beams", "2", "--length-penalty", "nan"), "length_penalty is"),
        ("evaluate", ("--by-position", "--context-length", "99999999999999"), "fit no memory"),
        ("inspect", ("--step", "0", "--context-length", "99999999999999"), "fit no memory"),
        ("inspect", ("--step", "0", "--batch-size", "99999999999999"), "fit no memory"),
        ("inspect", ("--seed", "3"), "--seed is a run's own"),
        ("inspect", ("--context-length", "8"), "--context-length is a run's own"),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(verb, flags, said, refused, some_run):
    prompt = ("--prompt", "a") if verb == "generate" else ()
    assert said in refused(verb, some_run, *prompt, *flags)


def test_a_negative_count_of_steps_is_refused(refused, tmp_path):
    assert "--steps must be 0 or more" in refused("quickstart", "--run-dir", tmp_path / "run", "--steps", "-5")


@pytest.mark.parametrize("flag", ["--by-position", "--needle"])
def test_a_long_context_is_measured_on_text_alone(flag, refused, some_run):
    from train.sources.media.options import MediaData

    experiment = to_json(dataclasses.replace(Experiment(), data=MediaData()))
    json_files.write(some_run / "config.json", {"format": FORMAT, "experiment": experiment, "shards": [], "document_end": None})
    assert "MediaData is not text" in refused("evaluate", some_run, flag)


def test_what_is_asked_by_lines_is_text_alone(monkeypatch, capsys):
    content = "\ufeffone\r\n".encode() + b"\xff\xfe\n" + "zwei ü\n\nfour\u2028\r\nlast".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert list(_asked()) == ["one", "zwei ü", "", "four\u2028", "last"]
    assert "line 2 is no UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [("--step", "1"), ("--row", "1"), ("--batch-size", "2"), ("--seed", "1"), ("--context-length", "9")])
def test_a_sheet_of_a_folder_has_no_rows(flags, refused, tmp_path):
    assert f"{flags[0]} is of rows" in refused("inspect", tmp_path, "--media", "a.png", *flags)


@pytest.mark.parametrize("flags", [("--compile",), ("--run-dir", "x"), ("--steps=3",), ("--json", "--model.num-layers", "2")])
def test_the_doctor_needs_an_experiment_for_its_options(flags, refused):
    assert f"{flags[-1 if len(flags) == 1 else -2].partition('=')[0]} is of an experiment" in refused("doctor", *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"evaluation": {"every": 0, "patience": 1}}, "evaluation.patience is 1"),
        ({"evaluation": {"every": 0}, "checkpoints": {"keep_best": 1}}, "checkpoints.keep_best is 1"),
        ({"checkpoints": {"every": 0, "keep_best": 1}}, "checkpoints.keep_best is 1"),
        ({"checkpoints": {"every": 0, "keep_every": 4}}, "checkpoints.keep_every is 4"),
        ({"checkpoints": {"every": 4, "keep_every": 6}}, "6 is no multiple of checkpoints.every 4"),
    ],
)
def test_what_would_never_happen_is_refused(flags, said):
    experiment = Experiment()
    for name, values in flags.items():
        experiment = dataclasses.replace(experiment, **{name: dataclasses.replace(getattr(experiment, name), **values)})
    with pytest.raises(UserError, match=said):
        check_options(experiment)
    check_options(Experiment())


@pytest.mark.parametrize(
    ("written", "meant"), [(r"\n\n", "\n\n"), ("\n", "\n"), (r"\t|\r", "\t|\r"), (r"\\n", r"\n"), (r"\section", r"\section"), ("\\", "\\")]
)
def test_stop_strings_have_escapes(written, meant):
    """A shell gives backslash and n as they are typed."""
    assert _without_escapes(written) == meant


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"[]", "a list instead of an object"), (b"\x80\x81", "no UTF-8"), (b'{"format": 1', "line 1")]
)
def test_a_damaged_config_is_named(content, said, refused, some_run):
    (some_run / "config.json").write_bytes(content)
    for verb in ("evaluate", "report", "train"):
        assert re.search(f"config.json: damaged .*{said}", refused(verb, some_run))


@pytest.mark.parametrize("name", ["experiment", "shards", "document_end"])
def test_a_config_that_lacks_a_part_is_named(name, refused, some_run):
    stored = json.loads((some_run / "config.json").read_text())
    del stored[name]
    json_files.write(some_run / "config.json", stored)
    assert f"config.json: has no '{name}'" in refused("evaluate", some_run)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "omnia: a/b: Permission denied\n       Change its permissions"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "omnia: the system: No space left on device\n       Free space"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"caf\xe9"), 2, "Not a directory\n       A part of the path is a file"),
        (OSError(errno.EIO, "Input/output error", "a"), 1, "omnia: a: Input/output error\n"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 1, "Connection reset by peer\n"),
    ],
)
def test_what_the_system_refuses_is_said_in_two_lines(error, code, said, monkeypatch, capsys):
    """With code 2, which no supervisor repeats, where a second try would end the same way; with 1 where it may not."""

    def fail(arguments):
        raise error

    monkeypatch.setattr("train.verbs.report.report", fail)
    assert omnia.main(["report", "a"]) == code
    assert said in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_mistake(monkeypatch, capsys):
    def fail(arguments):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("train.verbs.doctor.doctor", fail)
    assert omnia.main(["doctor"]) == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == ""


def test_a_notebooks_backend_is_not_asked_for():
    """`!omnia report` below Jupyter or Colab inherits a backend that is installed for the notebook alone."""
    code = "import omnia; omnia.main([]); from matplotlib.figure import Figure"
    environment = os.environ | {"MPLBACKEND": "module://nothing_of_this_name"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("platforms", "command"),
    [("nonsense", ["doctor"]), ("cuda", ["doctor"]), ("cuda", ["plan", QUICKSTART, "--topology", "cpu:2", "--model.vocab-size", "64"])],
)
def test_devices_that_are_not_there_are_named(platforms, command, tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "omnia", *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"JAX_PLATFORMS": platforms},
    )
    assert found.returncode == 2
    assert f"JAX_PLATFORMS is {platforms!r}: unset it" in found.stderr and "Traceback" not in found.stderr
