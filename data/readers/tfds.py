"""TensorFlow Datasets, read without TensorFlow: each example's text is a document. Needs tensorflow-datasets (extra: tfds).

tfds:NAME[/CONFIG][:VERSION][@SPLIT] is a data set by its name; planning turns the name into the folder where it lies prepared,
tfds:FOLDER@SPLIT, so that a task needs nothing else. Only ArrayRecord files can be read so; TFRecord needs TensorFlow.
"""

import os
from collections.abc import Iterable, Iterator

from data.errors import UserError
from data.readers.documents import Extent, Skipped, document_of

PREFIX = "tfds:"
_EXAMPLES = 256  # decoded in one call
_NO_TENSORFLOW = "Correct the name; or it needs TensorFlow (audio, video and old builders do): convert it to .jsonl or .parquet with that."


def check_options(inputs: Iterable[str], folder: str, download: bool) -> None:
    """UserError for options of TFDS beside inputs of which none is a data set of TFDS."""
    if (folder or download) and not any(item.startswith(PREFIX) for item in inputs):
        raise UserError("--tfds-dir and --tfds-download are for inputs such as tfds:NAME, and there is none.", "Leave them out.")


def find(item: str, folder: str, download: bool) -> tuple[str, int, int]:
    """(tfds:FOLDER@SPLIT, bytes, time of change in ns) of a data set; with `download`, it is brought here and prepared first.

    folder: where TFDS keeps its data; "" for its own default.
    """
    name, _, split = item.removeprefix(PREFIX).partition("@")
    split = split or "train"
    builder = _prepared(name) if os.path.isfile(os.path.join(name, "dataset_info.json")) else _named(name, folder, download)
    place = os.path.abspath(builder.data_dir)
    try:
        examples = builder.info.splits[split].num_examples
    except (ValueError, KeyError) as error:
        raise UserError(f"{item}: {_line(error)}", "Give another after the @.") from None
    kind = builder.info.file_format.value
    if kind != "array_record":
        raise UserError(
            f"{place}: lies there as {kind}, and only array_record can be read without TensorFlow.",
            "Prepare it in another --tfds-dir with --tfds-download, or with tfds build --file_format=array_record.",
        )
    return f"{PREFIX}{place}@{split}", _bytes(builder, examples), os.stat(os.path.join(place, "dataset_info.json")).st_mtime_ns


def exists(path: str) -> bool:
    return os.path.isdir(_folder_and_split(path)[0])


def check(path: str, text_field: str) -> None:
    """UserError unless the data set has the field."""
    features = _prepared(_folder_and_split(path)[0]).info.features
    if text_field not in features:
        raise UserError(
            f"{path}: no feature {text_field!r}; there are {', '.join(sorted(features))}.", "Name one of them with --text-field."
        )


def read_examples(extent: Extent, text_field: str, report):
    """The examples that belong to the extent, one feature of them as documents."""
    for name, example in _examples(extent, None, report):
        text = example[text_field]
        yield (
            document_of(name, text) if isinstance(text, str | bytes) else Skipped(name, f"no text in the feature {text_field!r}", "damaged")
        )


def read_encoded(extent: Extent, report):
    """(name, {feature: value}) of the examples that belong to the extent. Images stay the files that they are."""
    import tensorflow_datasets

    decoders = {name: tensorflow_datasets.decode.SkipDecoding() for name, kind in features(extent.path).items() if kind == "Image"}
    yield from _examples(extent, decoders, report)


def features(path: str) -> dict[str, str]:
    """The features of a data set, and the kinds of them: Image, Text, ClassLabel ..."""
    return {name: type(feature).__name__ for name, feature in _prepared(_folder_and_split(path)[0]).info.features.items()}


def class_names(path: str, feature: str) -> list[str]:
    """The names of the classes of a feature of kind ClassLabel."""
    return list(_prepared(_folder_and_split(path)[0]).info.features[feature].names)


def _examples(extent, decoders, report):
    """(name, example) of those that belong to the extent: of the bytes of the split, each has the same share."""
    folder, split = _folder_and_split(extent.path)
    builder = _prepared(folder)
    source = builder.as_data_source(split, decoders=decoders)
    size, count, done = _bytes(builder, len(source)), len(source), extent.start
    first, last = (-(-place * count // size) for place in (extent.start, extent.stop))
    for begin in range(first, last, _EXAMPLES):
        numbers = range(begin, min(begin + _EXAMPLES, last))
        for number, example in zip(numbers, source.__getitems__(list(numbers)), strict=True):
            yield f"{extent.path}: example {number + 1}", example
        place = min(numbers.stop * size // count, extent.stop)
        report(place - done)
        done = place
    report(extent.stop - done)


def iter_records(item: str) -> Iterator[dict]:
    """The examples of a data set by its name: texts, numbers and lists of such. A line says at the end which features are left out."""
    folder, split = _folder_and_split(find(item, "", download=False)[0])
    source, left_out = _prepared(folder).as_data_source(split), set()
    for begin in range(0, len(source), _EXAMPLES):
        for example in source.__getitems__(list(range(begin, min(begin + _EXAMPLES, len(source))))):
            plain = {name: _plain(value) for name, value in example.items()}
            left_out |= {name for name, value in plain.items() if value is None}
            yield {name: value for name, value in plain.items() if value is not None}
    if left_out:
        print(f"{item}: left out where they are no text, number or list of such: {', '.join(sorted(left_out))}")


def _plain(value):
    """A feature's value as JSON can hold it; None for what it cannot."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    try:
        return value.decode() if isinstance(value, bytes) else value if isinstance(value, str | int | float) else None
    except UnicodeDecodeError:
        return None


def _named(name, folder, download):
    """The builder of a data set by its name, prepared."""
    tfds = _package()
    where = {"data_dir": folder} if folder else {}
    try:
        builder = tfds.builder(name, **where)
        if download and not os.path.isdir(builder.data_dir):
            builder = tfds.builder(name, file_format="array_record", **where)
            builder.download_and_prepare()
    except Exception as error:  # whatever a builder of somebody's can raise
        if isinstance(error, OSError) and error.errno:
            raise
        raise UserError(f"{PREFIX}{name}: TFDS cannot {'prepare' if download else 'open'} it ({_line(error)}).", _NO_TENSORFLOW) from None
    if not os.path.isdir(builder.data_dir):
        raise UserError(
            f"{PREFIX}{name}: not prepared in {builder.data_dir}.",
            "Name the folder where it is with --tfds-dir, or have it downloaded and prepared there with --tfds-download.",
        )
    return _prepared(builder.data_dir)


def _prepared(folder):
    """The data set in a folder, by the files there alone."""
    tfds = _package()
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # of features that are built with TensorFlow
        raise UserError(f"{PREFIX}{folder}: TFDS cannot open it ({_line(error)}).", _NO_TENSORFLOW) from None


def _folder_and_split(path):
    folder, _, split = path.removeprefix(PREFIX).rpartition("@")
    return folder, split


def _bytes(builder, examples):
    """Of some examples, by the mean over all splits; at least one each."""
    splits = builder.info.splits.values()
    total = max(sum(split.num_examples for split in splits), 1)
    return max(examples, sum(split.num_bytes for split in splits) * examples // total, 1)


def _line(error):
    """The first line of an error: TFDS lists all names that it knows behind it."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _package():
    try:
        import tensorflow_datasets
    except ImportError:
        raise UserError("A data set of TFDS needs the package tensorflow-datasets.", "pip install -e '.[tfds]'") from None
    return tensorflow_datasets
