"""`omnia anonymize`: texts, tables and pictures without what tells who somebody is."""

import dataclasses

import tyro

from data.anonymize.files import anonymize as anonymize_files
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.files import json_files
from train.verbs.arguments import parse


@dataclasses.dataclass(frozen=True)
class Anonymize:
    """Write files in which names, numbers, addresses and faces are replaced or covered. Texts (.txt, .md, .log), tables (.csv, .tsv,
    .jsonl, .json) and pictures, by patterns in Chinese and English. No network is used."""

    source: tyro.conf.Positional[str]
    """File or folder."""
    output: str
    """File or folder to write. Beside it: anonymization.json, which counts what was done, and review.jsonl, which lists it without saying
    what was there."""
    key_file: str = ""
    """File with a secret of at least 16 bytes: with the same one, the same person gets the same surrogate, in another corpus too. Empty: a
    key that is forgotten."""
    json: bool = False
    """Print one line of JSON, last."""


def anonymize(arguments: list[str]) -> None:
    o = parse(Anonymize, "anonymize", arguments)
    key = Key.read(o.key_file) if o.key_file else Key.drawn()
    report = anonymize_files(o.source, o.output, Anonymizer(key))
    if o.json:
        print(json_files.dumps({"files": len(report.files), "counts": report.counts, "left_out": report.left_out, "key": key.fingerprint}))
        return
    for kind, count in report.counts.most_common():
        print(f"{count:9,} {kind}")
    print(f"{len(report.files):,} files written to {o.output}; patterns miss what they do not know: read review.jsonl and a sample")
