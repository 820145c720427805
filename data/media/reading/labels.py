"""Classes: the label of a record, and the names of all classes in the order of their numbers."""

import re
import unicodedata
from collections.abc import Iterable

from data.media.reading.fields import Record
from data.readers.documents import Unreadable, printable

NO_CLASS = "-1"


def label_of(record: Record) -> str | None:
    """The class of a record by its name, as it is written but for space around it and for Unicode's ways to compose a letter (NFC); None
    if it has none: "", -1, no number (NaN). Truth values are named as JSON writes them. Raises Unreadable for what is no name."""
    value = record.fields.get("label")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float) and (value != value or value.is_integer()):
        value = None if value != value else int(value)
    if value is None:
        return None
    if not isinstance(value, str | int):
        raise Unreadable(f"a label that is no name of a class: {printable(str(value)[:50])}")
    name = unicodedata.normalize("NFC", str(value).strip())
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Unreadable(f"a label that is no UTF-8: {printable(name[:50])}") from None
    return None if name in ("", NO_CLASS) else name


def class_names(labels: Iterable[str]) -> list[str]:
    """All names in the order of their numbers: sorted, numbers by their size; where all are plain small ones, 0 to the largest."""
    labels = set(labels)
    if labels and all(re.fullmatch("0|[1-9][0-9]{0,4}", label) for label in labels):
        return [str(number) for number in range(1 + max(map(int, labels)))]
    if all(re.fullmatch("-?[0-9]{1,4000}", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
