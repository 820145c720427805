"""The plan of a preparation of media: inputs, how they are read, and the tasks that read them; all that the result depends on."""

import os
from collections import Counter

from data.anonymize import media, plans
from data.errors import UserError
from data.media.reading.fields import Reading
from data.media.reading.finding import find_media, input_folders, is_medium
from data.media.reading.planning import plan_media
from data.media.reading.records import check_media
from data.media.reading.splits import named_splits
from data.media.shards import FORMAT
from data.readers import tfds
from data.readers.documents import Extent

KINDS = {"images": "image", "video": "video", "audio": "audio", "interleaved": ""}


def make_plan(options) -> tuple[dict, dict[str, int]]:
    """The plan of a `PrepareMedia`; and {ending: count} of the files that were passed over."""
    inputs = {"train": options.input, "validation": options.validation_input}
    named = [path for paths in inputs.values() for path in paths]
    _check_inputs(options, named)
    key = plans.read_key(options.anonymize)
    anonymized = plans.planned(key, media.RULES) | ({"packages": media.packages()} if key else {})
    searched = {split: find_media(paths, KINDS[options.kind], options.tfds_dir, options.tfds_download) for split, paths in inputs.items()}
    passed = dict(sum((Counter(others) for _, others in searched.values()), Counter()))
    every = [file for found, _ in searched.values() for file in found]
    reading = _choose_reading(options, every, input_folders(named))
    check_media(every, reading)
    tasks, facts = [], []
    for split, (found, _) in searched.items():
        planned, told = plan_media(found, reading, options.shard_bytes)
        whole = "validation" if split == "validation" or options.validation == 1 else "train" if options.validation_input else ""
        tasks += [{"split": whole, "parts": [[*extent, size] for extent, size in extents]} for extents in planned]
        facts += told
    plan = {
        "format": FORMAT,
        "options": {
            "kind": options.kind,
            "validation": options.validation,
            "fields": list(options.fields),
            "classes": options.classes,
            "shard_bytes": options.shard_bytes,
        },
        **anonymized,
        "reading": [reading.kind, list(reading.fields), list(reading.roots), reading.by_folder, [list(one) for one in reading.splits]],
        "files": [list(file) for file in every],
        "named": facts,
        "tasks": tasks,
    }
    return plan, passed


def _check_inputs(options, named):
    if not named:
        raise UserError("no input given.", "Name files, folders or globs after --input.")
    tfds.check_options(named, options.tfds_dir, options.tfds_download)
    if options.classes == "folder" and not any(map(os.path.isdir, named)):
        raise UserError("--classes folder: no input is a folder.", "Name a folder after --input.")


def _choose_reading(options, files, roots) -> Reading:
    """How the files are read: which folders name splits, and whether the others name classes."""
    splits = [] if options.validation_input or options.validation == 1 else named_splits(files, roots, options.classes == "folder")
    reading = Reading(KINDS[options.kind], options.fields, roots, False, tuple(splits))
    folders = {os.path.dirname(path) for path, _, _ in files if is_medium(path)} - set(roots)
    names = {reading.class_of(folder) for folder in folders} - {None}
    return reading._replace(by_folder=options.classes == "folder" or (options.classes == "auto" and len(names) > 1))


def reading_of(plan: dict) -> Reading:
    kind, fields, roots, by_folder, *splits = plan["reading"]  # of an earlier version without splits
    return Reading(kind, tuple(fields), tuple(roots), by_folder, tuple((place, split) for one in splits for place, split in one))


def extents_of(task: dict) -> list[Extent]:
    return [Extent(*extent[:3]) for extent in task["parts"]]


def task_bytes(plan: dict) -> list[int]:
    return [sum(extent[3] for extent in task["parts"]) for task in plan["tasks"]]
