"""Records of Parquet files and of data sets of TFDS, which know the names of their classes."""

import os

import numpy as np

from data.media.reading.fields import MEDIA_FIELDS, record_of
from data.readers import parquet, tfds
from data.readers.documents import Skipped, invalid_utf8, printable


def read_rows(extent, reading, report):
    columns, classes = parquet.columns(extent.path)
    wanted = list(reading.ours(columns))
    unused = tuple(name for name in columns if name not in wanted)
    for row in parquet.read_columns(extent, wanted, report):
        if isinstance(row, Skipped):
            yield row
            continue
        name, values = row
        try:
            fields = {column: value.as_py() for column, value in zip(wanted, values, strict=True)}
            record = record_of(
                name, printable(os.path.basename(name)), os.path.dirname(extent.path), _named(fields, classes), extent.path, reading
            )
        except UnicodeDecodeError as error:
            yield Skipped(name, invalid_utf8(error.start, error.object), "damaged")
        except ValueError as error:
            yield Skipped(name, str(error), "damaged")
        else:
            yield record._replace(unused=unused)


def read_examples(extent, reading, report):
    kinds = tfds.features(extent.path)
    classes = {name: tfds.class_names(extent.path, name) for name, kind in kinds.items() if kind == "ClassLabel"}
    media = [name for name, ours in reading.ours(kinds).items() if ours in MEDIA_FIELDS]
    for name, example in tfds.read_encoded(extent, report):
        fields = {}
        try:
            for key, value in example.items():
                value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                fields[key] = value.decode() if isinstance(value, bytes) and kinds[key] == "Text" and key not in media else value
            yield record_of(name, name.rpartition("/")[2], "", _named(fields, classes), extent.path, reading)
        except UnicodeDecodeError as error:
            yield Skipped(name, f"invalid UTF-8 at byte {error.start} of {key}", "damaged")
        except ValueError as error:
            yield Skipped(name, str(error), "damaged")


def _named(fields, classes):
    """Replaces numbers of classes by names, where these are known; a negative number is no class."""
    for name, names in classes.items():
        number = fields.get(name)
        if isinstance(number, int) and number >= len(names):
            raise ValueError(f"a class that there is not: {name} {number} of {len(names)}")
        if isinstance(number, int):
            fields[name] = names[number] if number >= 0 else None
    return fields
