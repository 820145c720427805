"""`omnia attack`: examples that a classifier no longer gets right."""

import dataclasses
from typing import Any

import tyro

from data.errors import UserError
from data.files import json_files
from data.records.writing import check_name, write_records
from train.tasks.attack import Budget, Substitution
from train.verbs.arguments import parse, start_jax


@dataclasses.dataclass(frozen=True)
class Attack:
    """Change labelled texts a little until a run answers wrongly, and write them: `omnia evaluate RUN --files OUTPUT` measures any run on
    them. `omnia report RUN` then shows both accuracies, and texts before and after."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run, which was trained on Classification."""
    files: tuple[str, ...]
    """Files of labelled examples to change."""
    output: str
    """File to write, .csv or .jsonl: the changed texts, their labels, the texts as they were, words changed, and whether it succeeded."""
    kinds: tuple[Substitution, ...] = ("words",)
    """Changes of a word that are tried: words (others in its place), characters (typing errors), lookalikes (letters of other scripts, and
    characters of no width)."""
    synonyms: str = ""
    """With words: table with a word on each line and, behind tabs, what may stand in its place. Empty: neighbours in the run's embedding
    table, which need not mean the same."""
    changes: float = 0.3
    """Largest share of a text's words that may be changed, at least one, above 0, at most 1."""
    tries: int = 8
    """Substitutes of each kind that are tried for a word."""
    rows: int = 0
    """Examples to attack, from the first on. 0: all."""
    step: int | None = None
    """Checkpoint to attack. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""
    json: bool = False
    """Print one line of JSON, last."""


def attack(arguments: list[str]) -> None:
    options = parse(Attack, "attack", arguments)
    check_name(options.output)
    if options.rows < 0:
        raise UserError("omnia attack: --rows must be 0 or more")
    if options.synonyms and "words" not in options.kinds:
        raise UserError("omnia attack: --synonyms belongs to the kind words", "Leave one of them out.")
    try:
        budget = Budget(options.kinds, options.changes, options.tries)
    except ValueError as error:
        raise UserError(f"omnia attack: --{error}") from None
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    start_jax()
    from train.loop.sections import add_sections
    from train.tasks.attack import TITLE, attack_run, section

    how: dict[str, Any] = {"synonyms": options.synonyms, "count": options.rows, "step": options.step, "raw": options.raw}
    records, found = attack_run(run, options.files, budget, **how)
    write_records(options.output, records)
    add_sections(run.path, [section(records, found, options.files, options.kinds)], (TITLE,))
    if options.json:
        print(json_files.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value}")
