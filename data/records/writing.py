"""Records to files that `read_records` reads: CSV and JSON lines."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files, storage


def check_name(path: str) -> None:
    """UserError unless a file is written in a form that its name says."""
    if Path(path).suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path}: records are written as .csv or .jsonl", "Give a name that ends so.")


def write_records(path: str, records: Sequence[dict[str, Any]]) -> None:
    """A file with the records; in a table what one of them lacks is empty."""
    check_name(path)
    if path.endswith(".jsonl"):
        return json_files.write_lines(path, records)
    content = io.StringIO()
    names = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(content, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    storage.write_atomically(path, content.getvalue().encode())
