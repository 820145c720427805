"""`omnia anonymize`: texts, tables, pictures, recordings and videos without what tells who somebody is."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import tyro

from data.anonymize.files import anonymize as anonymize_files
from data.anonymize.grouping import Grouping, told
from data.anonymize.presidio import PresidioFinder
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer, Finder
from data.files import json_files
from train.verbs.arguments import parse, start_jax


@dataclasses.dataclass(frozen=True)
class Anonymize:
    """Write files in which names, numbers and addresses are replaced, faces covered and voices changed. Texts (.txt, .md, .log), tables
    (.csv, .tsv, .jsonl, .json), pictures, recordings and videos, by patterns in Chinese and English. No network is used."""

    source: tyro.conf.Positional[str]
    """File or folder."""
    output: str
    """File or folder to write. Beside it: anonymization.json, which counts what was done, and review.jsonl, which lists it without saying
    what was there, and what may have been missed. `omnia review` shows it."""
    key_file: str = ""
    """File with a secret of at least 16 bytes: with the same one, the same person gets the same surrogate, in another corpus too. Empty: a
    key that is forgotten."""
    names: tuple[str, ...] = ()
    """Folders of runs that tag words, such as those of configs/tasks/tagging.py: what they find is replaced too."""
    names_kinds: tuple[Literal["person", "place", "organisation"], ...] = ("person", "place")
    """What the runs are to find. Tags mean a person: PER, PERSON; a place: LOC, LOCATION, GPE; an organisation: ORG, ORGANISATION,
    CORPORATION, COMPANY."""
    engine: Literal["omnia", "presidio"] = "omnia"
    """presidio: what that package's patterns find in English is replaced beside ours, such as licences, UUIDs and wallets."""
    quasi_identifiers: tuple[str, ...] = ()
    """Columns of a table that others may know of a person, such as age and zip code: who can be told apart by them is reported."""
    sensitive: tuple[str, ...] = ()
    """Columns of the table that others must not learn."""
    k: int = 0
    """Make the quasi-identifiers coarser until so many rows are the same in them, at least 2. 0: a report alone."""
    json: bool = False
    """Print one line of JSON, last."""


def finder_of(run_dirs: Sequence[str], kinds: Sequence[str], engine: str) -> Finder | None:
    """What finds all that the engine and any of the runs do; None where patterns alone are asked for."""
    finders: list[Finder] = [PresidioFinder()] if engine == "presidio" else []
    if run_dirs:
        start_jax()
        from train.tasks.names import NameFinder

        finders += [NameFinder(run_dir, kinds) for run_dir in run_dirs]
    if not finders:
        return None
    return lambda lines: [[span for spans in found for span in spans] for found in zip(*(one(lines) for one in finders), strict=True)]


def anonymize(arguments: list[str]) -> None:
    o = parse(Anonymize, "anonymize", arguments)
    key = Key.read(o.key_file) if o.key_file else Key.drawn()
    grouping = Grouping(o.quasi_identifiers, o.sensitive, o.k) if o.quasi_identifiers or o.sensitive or o.k else None
    report = anonymize_files(o.source, o.output, Anonymizer(key, finder_of(o.names, o.names_kinds, o.engine)), grouping=grouping)
    if o.json:
        found = {"files": len(report.files), "counts": report.counts, "left_out": report.left_out, "key": key.fingerprint}
        print(json_files.dumps(found | ({"groups": report.groups} if report.groups else {})))
        return
    for kind, count in report.counts.most_common():
        print(f"{count:9,} {kind}")
    for line in told(report.groups) if report.groups else ():
        print(line)
    print(f"{len(report.files):,} files written to {o.output}; what is not known is missed: read a sample, and `omnia review`")
