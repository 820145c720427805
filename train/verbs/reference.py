"""docs/reference_options.md, made from the code: `python -m train.verbs.reference` prints it, `make docs` writes it.

The source is parsed, not imported. So a page lists every kind of data, objective or model wherever its file is, and loads none of them.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("data", "model", "train", "serve")
VERBS = ("train/verbs/", "serve/")
"""Where option classes of verbs are; those elsewhere are parts of an experiment, or of `omnia prepare`."""
SEVERAL = {
    "prepare": {
        "text": "PrepareText",
        "clean": "PrepareClean",
        "classifier": "PrepareClassifier",
        "images|video|audio|interleaved": "PrepareMedia",
        "codes": "PrepareCodes",
    },
    "chat": {},  # is `generate --chat`
    "checkpoint": {"ls": "List", "verify": "Verify", "diff": "Diff", "export": "ExportArrays"},
    "audit": {"verify": "VerifyLog"},
    "privacy": {"plan": "Plan", "audit": "Audit", "plant": "Plant", "exposure": "Exposure"},
    "federate": {"client": "Client", "keys": "Keys", "split": "Split"},
}
"""Verbs with several option classes, by the word after the verb. Every other verb has one class of its own name."""
INTRODUCTION = """\
# Options

Written by `make docs` from the code; edit the docstrings there. [reference.md](reference.md) has the rules of the command line, the JSON
keys and the exit codes.
"""
OF_CONFIGS = """\
A config file builds an `Experiment` from these classes. On the command line a field is an option, with the name of what holds it in front
and with hyphens: `learning_rate` of `optimizer` is `--optimizer.learning-rate`. List items have numbers: `data.environments.0.path`.
"""


class Field(NamedTuple):
    """One field of an option class. default: Markdown, empty where a value must be given."""

    name: str
    annotation: ast.expr
    default: str
    doc: str
    positional: bool


class Options(NamedTuple):
    """One option class: a dataclass in the source. path: of its file, from the root."""

    name: str
    path: str
    bases: tuple[str, ...]
    doc: str
    fields: dict[str, Field]


class Source:
    """All dataclasses of the rooms, and the constants that their types and defaults are named by."""

    def __init__(self, root: Path = ROOT):
        self.options: list[Options] = []
        self._constants: dict[str, ast.expr] = {}
        files = [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
        trees = {path.relative_to(root).as_posix(): ast.parse(path.read_text()) for path in files}
        for tree in trees.values():
            for statement in tree.body:
                if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                    self._constants.setdefault(statement.targets[0].id, statement.value)
        for path, tree in trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
                    self.options.append(self._options(node, path))

    def of_verb(self, name: str) -> Options:
        """The option class of a verb. KeyError where there is none."""
        found = sorted((one for one in self.options if one.name == name), key=lambda one: not one.path.startswith(VERBS))
        if not found:
            raise KeyError(f"no option class {name}: name it in SEVERAL of train/verbs/reference.py")
        return found[0]

    def of_experiment(self, name: str) -> Options | None:
        """The class of that name that an experiment may hold."""
        found = [one for one in self.options if one.name == name and not one.path.startswith(VERBS)]
        return found[0] if found else None

    def kinds(self, options: Options) -> Iterator[Options]:
        """The class and everything that derives from it, parents first."""
        yield options
        for one in self.options:
            if one.bases[:1] == (options.name,) and not one.path.startswith(VERBS):
                yield from self.kinds(one)

    def held_by(self, options: Options) -> Iterator[Options]:
        """The topmost classes of what the fields of a class hold."""
        for field in options.fields.values():
            for node in ast.walk(field.annotation):
                if isinstance(node, ast.Name) and (held := self.of_experiment(node.id)):
                    while held.bases and (base := self.of_experiment(held.bases[0])):
                        held = base
                    yield held

    def kind_of(self, annotation: ast.expr) -> str:
        """A type in Markdown: choices, links to option classes, or the plain name."""
        match annotation:
            case ast.Subscript(ast.Attribute(attr="Positional"), kind):
                return self.kind_of(kind)
            case ast.Subscript(ast.Name("Annotated"), ast.Tuple([kind, *_])):
                return self.kind_of(kind)
            case ast.Subscript(ast.Name("Literal"), ast.Tuple(choices)):
                *first, last = (f"`{ast.literal_eval(choice) or json.dumps('')}`" for choice in choices)
                return f"{', '.join(first)} or {last}"
            case ast.Subscript(ast.Name("tuple"), ast.Tuple([kind, ast.Constant(value) as rest])) if value is Ellipsis or rest is None:
                return f"list of {self.kind_of(kind)}"
            case ast.Subscript(ast.Name("tuple"), ast.Tuple(kinds)):
                return ", ".join(map(self.kind_of, kinds))
            case ast.BinOp(kind, ast.BitOr(), ast.Constant(None)):
                return self.kind_of(kind)
            case ast.Name(name) if self.of_experiment(name):
                return f"[{name}](#{name.lower()})"
            case ast.Name(name) if name in self._constants:
                return self.kind_of(self._constants[name])
        return ast.unparse(annotation)

    def _options(self, node: ast.ClassDef, path: str) -> Options:
        fields = {}
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            kind = ast.unparse(statement.annotation)
            if "ClassVar" in kind or statement.target.id.startswith("_"):
                continue
            doc = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                doc = " ".join(str(following.value.value).split())
            default = self._default(statement.value)
            fields[statement.target.id] = Field(statement.target.id, statement.annotation, default, doc, "Positional" in kind)
        bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
        return Options(node.name, path, bases, ast.get_docstring(node) or "", fields)

    def _default(self, value: ast.expr | None) -> str:
        match value:
            case None | ast.Attribute(attr="MISSING"):
                return ""
            case ast.Call(ast.Attribute(attr="field"), [], keywords):
                return self._default(next((one.value for one in keywords if one.arg == "default"), None))
            case ast.Name(name) if name in self._constants:
                return self._default(self._constants[name])
            case ast.Constant(str(text)):
                return f"`{json.dumps(text, ensure_ascii=False)}`"
        return f"`{ast.unparse(value)}`"


def table(source: Source, options: Options, first: str, *, of_verb: bool) -> list[str]:
    """The fields of a class, one a line; nothing where it has none of its own."""
    rows = []
    for field in options.fields.values():
        if any(isinstance(node, ast.Name) and node.id == "Experiment" for node in ast.walk(field.annotation)):
            continue
        doc = field.doc or inherited_doc(source, options, field.name)
        name = f"--{field.name.replace('_', '-')}" if of_verb else field.name
        name = field.name.upper() if field.positional else name
        cells = (f"`{name}`", source.kind_of(field.annotation), field.default or "required", doc)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return [f"| {first} | type | default | |", "|---|---|---|---|", *rows, ""] if rows else []


def inherited_doc(source: Source, options: Options, name: str) -> str:
    """What the nearest base that describes a field says of it."""
    for base in options.bases:
        parent = source.of_experiment(base)
        if parent is not None:
            doc = parent.fields[name].doc if name in parent.fields else ""
            if doc := doc or inherited_doc(source, parent, name):
                return doc
    return ""


def verbs(root: Path = ROOT) -> dict[str, str]:
    """The verbs that omnia.py lists, with what each does."""
    for node in ast.parse((root / "omnia.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERBS":
            return ast.literal_eval(node.value)
    raise KeyError("VERBS in omnia.py")


def verb_lines(source: Source) -> Iterator[str]:
    """The sections of all verbs."""
    for verb in verbs():
        for word, name in SEVERAL.get(verb, {"": verb.title()}).items():
            options = source.of_verb(name)
            yield from (f"### omnia {verb} {word}".strip(), "", options.doc, "")
            yield from table(source, options, "option", of_verb=True)
            if "experiment" in options.fields:
                yield from ("And every option of the config ([Experiment](#experiment)).", "")


def config_lines(source: Source) -> Iterator[str]:
    """The sections of all classes that an experiment may hold, each after what holds it."""
    experiment = source.of_experiment("Experiment")
    assert experiment is not None
    waiting, seen = [experiment], {experiment.name}
    while waiting:
        root = waiting.pop(0)
        for number, options in enumerate(source.kinds(root)):
            yield from (f"##{'#' if number else ''} {options.name}", "", options.doc, "")
            parents = [base for base in options.bases if (parent := source.of_experiment(base)) and has_fields(source, parent)]
            if parents:
                links = " and ".join(f"[{base}](#{base.lower()})" for base in parents)
                yield from (f"Has the fields of {links}" + (", and these:" if options.fields else "."), "")
            yield from table(source, options, "field", of_verb=False)
            for held in source.held_by(options):
                if held.name not in seen:
                    seen.add(held.name)
                    waiting.append(held)


def has_fields(source: Source, options: Options) -> bool:
    """Whether a class or one of its bases has a field."""
    return bool(options.fields) or any((base := source.of_experiment(name)) and has_fields(source, base) for name in options.bases)


def reference_text() -> str:
    """The whole page: the options of every verb, then the classes of an experiment with all fields."""
    source = Source()
    lines = [INTRODUCTION, "## Verbs", "", *verb_lines(source), "## Config classes", "", OF_CONFIGS, *config_lines(source)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(reference_text(), end="")
