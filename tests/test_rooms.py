"""The rooms of the house: who may import whom, what a face promises, and what must never be loaded for a line of help."""

import ast
import functools
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("data", "model", "train", "serve")
MAY_IMPORT = {
    "data": {"data"},
    "model": {"model"},
    "train": {"data", "model", "train"},
    "serve": {"data", "model", "train", "serve"},
    "configs": {"data", "model", "train", "serve"},
    "omnia": {"data", "train", "serve"},
}
OURS = {*MAY_IMPORT, "tests"}
HEAVY = "{'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'matplotlib', 'sentencepiece', 'tokenizers', 'pandas', 'fsspec'}"


def files(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))] + ([ROOT / "omnia.py"] if "omnia" in rooms else [])


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def module_file(name: str) -> Path | None:
    """The file of ours that a dotted name stands for."""
    path = ROOT.joinpath(*name.split("."))
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def imports(tree: ast.AST) -> list[str]:
    """Every module that a file imports, at its top or inside a function; `from a import b` is a.b where that is a module."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports between rooms are spelled in full"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.append(inner if module_file(inner) else node.module)
    return names


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", files(*MAY_IMPORT), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_it_may(path):
    foreign = {name for name in imports(parse(path)) if name.split(".")[0] in OURS - MAY_IMPORT[room_of(path)]}
    assert not foreign


@functools.cache
def names_of(path: Path) -> set[str]:
    """What a file defines or imports at its top level, in branches of it too."""
    found: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


OURS_TO_READ = [
    path for path in files("configs", "benchmarks", "tests") if not re.search("nanogpt|torch", path.name)
]  # theirs has a room too


@pytest.mark.parametrize("path", OURS_TO_READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_of_our_rooms_is_there(path):
    """Of files that mypy does not read, and of benchmarks, which no test runs."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
            home = module_file(node.module)
            assert home is not None, node.module
            there = names_of(home)
            if home.name == "__init__.py":
                there = there | {constant.value for constant in ast.walk(parse(home)) if isinstance(constant, ast.Constant)}
            for alias in node.names:
                assert module_file(f"{node.module}.{alias.name}") or alias.name in there, f"{node.module}.{alias.name}"


def test_the_front_door_imports_no_room_before_a_verb_is_called():
    tree = parse(ROOT / "omnia.py")
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not {name.split(".")[0] for name in imports(top)} & OURS


def test_no_file_imports_itself_by_way_of_others():
    """Circles make the meaning of an import depend on who came first. Imports inside functions count too."""
    graph = {path: {file for name in imports(parse(path)) if (file := module_file(name))} for path in files(*MAY_IMPORT)}
    finished: set[Path] = set()

    def walk(path: Path, trail: tuple[Path, ...]):
        circle = [str(one.relative_to(ROOT)) for one in (*trail, path)]
        assert path not in trail, " -> ".join(circle)
        if path not in finished:
            for other in sorted(graph.get(path, ())):
                walk(other, (*trail, path))
            finished.add(path)

    for path in graph:
        walk(path, ())
    assert len(finished) >= 40


def test_no_test_file_imports_another():
    """What tests share lies in modules beside them, or in conftest.py: a file of tests can be moved, split or left out alone."""
    shared = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files("tests")
        for name in imports(parse(path))
        if name.startswith("tests.") and name.split(".")[-1].startswith("test_")
    }
    assert not shared


@pytest.mark.parametrize("name", ["data", "model", "train"])
def test_every_name_of_a_face_is_there(name):
    room = importlib.import_module(name)
    assert sorted(room.__all__) == sorted(room._FACE) == dir(room)
    for thing, home in room._FACE.items():
        assert not module_file(f"{name}.{thing}"), f"once {name}/{thing}.py is imported, `from {name} import {thing}` would give the file"
        assert getattr(importlib.import_module(f"{name}.{home}"), thing) is getattr(room, thing)
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_the_kind'"):
        _ = room.nothing_of_the_kind


@pytest.mark.parametrize("path", files("data", "model", "train", "serve", "omnia"), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_run_code(path):
    """No pickle and its kin, no eval, no exec: a corpus, a run or a checkpoint of a stranger's is only data."""
    tree = parse(path)
    assert not {name.split(".")[0] for name in imports(tree)} & {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "compile", "__import__"))
            for keyword in node.keywords:
                assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False"


def test_setup_lists_every_package_and_no_other():
    listed = ast.literal_eval(re.search(r"(?s)packages=(\[.*?\])", (ROOT / "setup.py").read_text()).group(1))
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in files("data", "model", "train", "serve")}
    assert set(listed) == there


def python(script: str) -> str:
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_help_and_configs_load_nothing_heavy():
    """Help of every verb, the faces and every config file: without JAX, Flax and what else takes seconds."""
    shown = python(f"""
import importlib, pathlib, sys
import omnia, data, model, train
assert omnia.main(["--help"]) == 0
for arguments in [["prepare"], *([verb, "--help"] for verb in omnia.VERBS), ["prepare", "text", "--help"],
                  ["train", "configs/quickstart.py", "--help"], ["doctor", "configs/quickstart.py", "--help"]]:
    try:
        assert not omnia.main(arguments)
    except SystemExit as end:
        assert end.code == 0
from train.verbs.config_files import load_config
for path in pathlib.Path("configs").glob("*.py"):
    load_config(str(path))
heavy = {HEAVY} & set(sys.modules)
assert not heavy, heavy
""")
    for word in ("quickstart", "--run-dir", "--optimizer.learning-rate", "--max-new-tokens", "--tokenizer"):
        assert word in shown


def test_help_answers_within_a_second():
    def seconds():
        begin = time.monotonic()
        python("import omnia; omnia.main(['--help'])")
        return time.monotonic() - begin

    assert min(seconds() for _ in range(3)) < 1.0
