"""A run as a model card (Mitchell et al. 2019), with a page on responsible use: Markdown from what the run directory and its data's
manifests say.

Nothing is guessed. What the files do not say is called not recorded or not measured, and what only people can say is called not stated.
Paths are cut to their last part: a card is published, and the folders of a machine are nobody's business.
"""

import math
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files, storage
from train.checkpoints.journal import Journal
from train.loop.telemetry import name_sources, read_metrics
from train.privacy.accounting import PLD, RDP
from train.runs.classes import OLD_NAMES
from train.runs.directory import FAIRNESS, PRIVACY, START, read_stored

NOT_RECORDED = "not recorded"
WITHOUT_ADAPTERS = "train.kinds:Adapters"
"""The kind that stands for none."""
BY_PREFERENCE = "train.rl."
"""Where kinds of objectives are that learn from preferences or rewards."""
SIZES = ("num_layers", "embed_dim", "num_heads", "vocab_size", "context_length", "experts")
LABELS = 200
"""Labels that are named with their examples, at most."""
COUNTED = ("documents", "samples", "tokens", "raw_bytes")
"""Of a manifest's splits."""
UNSAID = frozenset({"kind", "step", "split", "time", "seconds", "sources", "intervals", "files"})
"""Of an evaluation: what is no measure."""
Rows = list[tuple[str, Any]]


def write_card(run_dir: Path, path: Path, *, intended: str = "", licence: str = "") -> Path:
    """Write the card of a run to `path`, whole or not at all, and return it.

    intended, licence: what the user says of them. UserError for no run, or for a name that does not end in .md in a folder that is there.
    """
    if path.suffix != ".md":
        raise UserError(f"{path}: a card is a .md file", "Give a name that ends in .md.")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder", "Make it, or give another place.")
    storage.write_atomically(str(path), card_of(run_dir, intended=intended, licence=licence).encode("utf-8", "replace"))
    return path


def card_of(run_dir: Path, *, intended: str = "", licence: str = "") -> str:
    """The card, as Markdown."""
    stored = read_stored(run_dir)
    experiment = stored["experiment"]
    summary, environment = _read(run_dir / "summary.json"), _read(run_dir / "environment.json")
    parts = [
        f"# Model card: {_said(experiment.get('name') or run_dir.resolve().name)}",
        "Made by `omnia report --card` from the files of the run. What they do not say is called not recorded, not measured or not stated.",
        _section("Model", _model(run_dir, experiment, stored)),
        _section("Intended use", _intended(intended, licence)),
        _section("Training data", _data(stored), *_clean(stored)),
        _section("Training", _training(run_dir, stored, summary, environment)),
        _measures(run_dir, summary),
        _section("Privacy", _privacy(run_dir, experiment)),
        _fairness(run_dir),
        _responsible(run_dir, experiment),
    ]
    return "\n\n".join(parts) + "\n"


def _model(run_dir: Path, experiment: dict, stored: dict) -> Rows:
    model = experiment.get("model", {})
    step, count = _parameters(run_dir)
    rows: Rows = [("family", _kind(model)), *((name.replace("_", " "), model[name]) for name in SIZES if model.get(name))]
    adapters = _kind(experiment.get("adapters", {}))
    tuned = _full(experiment.get("adapters", {})) not in ("", WITHOUT_ADAPTERS)
    rows.append(("parameters of the adapters" if tuned else "parameters", "no checkpoint is kept" if count is None else count))
    rows.append(("checkpoint", "none" if step is None else f"step {step:,}"))
    rows.append(("identity of the run", stored.get("identity")))
    rows.append(("adapters", adapters if tuned else "none: the whole model is one set of parameters"))
    tokenizer = _read(run_dir / "tokenizer" / "tokenizer.json")
    rows.append(("tokenizer", tokenizer.get("kind")))
    if not experiment.get("start"):
        return [*rows, ("starts from", "fresh parameters, or an import: no other run is named")]
    begun = _read(run_dir / START / "config.json")
    _, base = _parameters(run_dir / START)
    rows.append(("starts from", f"the run {_last(experiment['start'])!r}, identity {_said(begun.get('identity'))}"))
    rows.append(("parameters of that run", "not kept in this run" if base is None else base))
    return [*rows, ("objective of that run", _kind(begun.get("experiment", {}).get("objective", {})))]


def _intended(intended: str, licence: str) -> Rows:
    return [
        ("intended use", intended.strip() or "not stated: whoever publishes the model should state it (`--intended`)"),
        ("unintended use", "whatever is not named as intended; for decisions about people see Responsible use"),
        ("licence", licence.strip() or "not stated: whoever holds the rights should state it (`--licence`)"),
    ]


def _data(stored: dict) -> Rows:
    data, objective = stored["experiment"].get("data", {}), stored["experiment"].get("objective", {})
    rows: Rows = [("kind", _kind(data))]
    for shard in stored.get("shards", []):
        rows.append((f"source {_last(shard['path'])}", f"digest {_said(shard.get('digest'))}{_manifest_says(shard, 'shards' in data)}"))
    if not stored.get("shards"):
        rows.append(("sources", "none are named: the run made its data itself, or the model was imported, and its data is not recorded"))
    # Of a private run the exact counts would tell of single examples.
    if (
        not _promises(stored["experiment"].get("gradient", {}))
        and objective.get("labels")
        and len(objective["labels"]) == len(objective.get("counts", ()))
    ):
        counts = [f"{_said(label)} {_said(count)}" for label, count in zip(objective["labels"], objective["counts"], strict=True)]
        rest = f", and {len(counts) - LABELS:,} more" if len(counts) > LABELS else ""
        rows.append(("examples of each label", ", ".join(counts[:LABELS]) + rest))
    held = data.get("validation_files")
    if isinstance(held, list):
        kept = f"a share of {_said(data.get('validation'))} of the examples"
        rows.append(("kept for evaluation", ", ".join(map(_last, held)) or kept))
    return rows


def _manifest_says(shard: dict, prepared: bool) -> str:
    """What the manifest of prepared data says, if it is there and is of the data that the run was trained on."""
    manifest = _manifest(shard)
    if manifest is None:
        return "; counts not recorded: its manifest is elsewhere, or of other data by now" if prepared else ""
    said = []
    for part, split in manifest.get("splits", {}).items():
        counts = [f"{split[name]:,} {name.replace('_', ' ')}" for name in COUNTED if name in split]
        said.append(f"{part} {', '.join(counts)}")
    if anonymized := manifest.get("anonymized"):
        replaced = ", ".join(f"{count:,} {kind}" for kind, count in anonymized.get("replaced", {}).items())
        said.append(f"anonymised by patterns: {replaced or 'nothing was found'}")
    else:
        said.append("not anonymised when it was prepared")
    return "".join(f"; {one}" for one in said)


def _manifest(shard: dict) -> dict | None:
    """None where the folder is elsewhere, is no folder of shards, or holds other data by now."""
    path = Path(shard["path"]) / "manifest.json"
    manifest = _read(path) if "://" not in shard["path"] else {}
    return manifest if manifest.get("digest") == shard.get("digest") and manifest else None


def _clean(stored: dict) -> list[str]:
    """What `omnia prepare clean` removed from the sources of prepared text, where its counts still lie beside them."""
    found: dict[str, str] = {}
    for shard in stored.get("shards", []):
        plan = {} if _manifest(shard) is None else _read(Path(shard["path"]) / "prepare.json")
        for folder in {str(Path(file[0]).parent) for file in plan.get("files", []) if "://" not in str(file[0])}:
            cleaned = _read(Path(folder) / "clean.json")
            if "kept" in cleaned:
                removed = ", ".join(f"{_said(count)} {name}" for name, count in cleaned.get("removed", {}).items())
                kept = f"kept {cleaned['kept']['documents']:,} of {cleaned['documents']:,} documents"
                found[folder] = f"{_last(folder)} was cleaned: {kept}; removed {removed or 'nothing'}."
    return [found[folder] for folder in sorted(found)]


def _training(run_dir: Path, stored: dict, summary: dict, environment: dict) -> Rows:
    if not _trained(run_dir):
        return [("steps", "none are recorded: the model was imported, or the run has not begun"), ("energy", "not measured")]
    experiment, defaults = stored["experiment"], stored.get("defaults", {})
    last = ([row for row in read_metrics(run_dir) if row["kind"] == "train"] or [{}])[-1]
    versions = environment.get("versions", {})
    hardware = ", ".join(f"{name} {environment[name]}" for name in ("devices", "processes", "cores") if environment.get(name))
    seconds = summary.get("seconds", last.get("time"))
    return [
        ("objective", _described(experiment.get("objective", {}), defaults.get("objective", {}))),
        ("gradient", _described(experiment.get("gradient", {}), defaults.get("gradient", {}))),
        ("optimizer", _described(experiment.get("optimizer", {}), {}, ("learning_rate", "weight_decay"))),
        ("steps", summary.get("step", last.get("step"))),
        ("rows of a step", experiment.get("batch_size")),
        ("seed", f"{experiment.get('seed')}"),
        ("tokens seen", summary.get("tokens", last.get("tokens"))),
        ("seconds", None if seconds is None else f"{seconds:,.1f}"),
        ("hardware", f"{environment['device']} ({hardware})" if environment.get("device") else None),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) if versions else None),
        ("energy", "not measured"),
    ]


def _trained(run_dir: Path) -> bool:
    """Whether steps of training are recorded."""
    return (run_dir / "summary.json").is_file() or bool(read_metrics(run_dir))


def _measures(run_dir: Path, summary: dict) -> str:
    evaluations = [row for row in read_metrics(run_dir) if row["kind"] == "evaluation"]
    texts = []
    if evaluations:
        last = name_sources(evaluations[-1])
        rows = [(name.replace("_", " "), value) for name, value in last.items() if name not in UNSAID]
        texts += [f"The last evaluation during training, at step {last['step']:,}, of the validation data:", _table(rows)]
    if measured := _read(run_dir / FAIRNESS).get("measured"):
        between = measured.get("intervals", {})
        rows = []
        for name, value in measured.items():
            if name not in UNSAID:
                low_high = f" ({_said(between[name][0])} to {_said(between[name][1])})" if name in between else ""
                rows.append((name.replace("_", " "), f"{_said(value)}{low_high}"))
        files = ", ".join(map(_last, measured.get("files", []))) or "the validation data"
        texts += [f"Step {measured['step']:,} on {_said(files)}, 95 % intervals in brackets:", _table(rows)]
    return _section("Measures", *(texts or ["Not measured: the run has kept no evaluation."]))


def _promises(gradient: dict) -> bool:
    """Whether a gradient promises privacy: to units, or to users in federated rounds."""
    return bool(_full(gradient).startswith("train.step.private.") or gradient.get("noise_multiplier") or gradient.get("epsilon"))


def _privacy(run_dir: Path, experiment: dict) -> Rows:
    facts = _read(run_dir / PRIVACY)
    if not facts:
        gradient = _kind(experiment.get("gradient", {}))
        if _promises(experiment.get("gradient", {})):
            return [("promise", f"none can be stated: the gradient is {gradient}, and {PRIVACY} is not there")]
        if not _trained(run_dir):
            return [("promise", "none is recorded: how the model was trained is not known here")]
        return [("promise", "trained without a promise of privacy: what it learned from may be found in what it answers")]
    infinite = "infinite: there is no noise"
    accountants = (("epsilon_pld", PLD), ("epsilon_rdp", RDP))
    rows: Rows = [(f"epsilon by {name}", infinite if facts.get(key) is None else facts[key]) for key, name in accountants]
    named = ("delta", "unit", "units", "noise_multiplier", "clip", "rate", "steps", "assumes")
    rows += [(name.replace("_", " "), facts.get(name)) for name in named]
    if experiment.get("start"):
        rows.append(("not covered", "what the run that this one starts from had learned before"))
    return rows


def _fairness(run_dir: Path) -> str:
    if not (run_dir / FAIRNESS).is_file():
        return _section("Fairness", "Not measured: `omnia evaluate RUN --groups COLUMN` measures a classifier.")
    found = _read(run_dir / FAIRNESS)
    texts = [f"Measured at step {_said(found['measured'].get('step'))}. A p-value says whether a gap is more than chance."]
    if groups := found.get("groups"):
        rows = []
        for name, gap in groups["gaps"].items():
            where = f"least {_said(gap['lowest'])}, most {_said(gap['highest'])}"
            between = f"{_said(gap['low'])} to {_said(gap['high'])}"
            rows.append((name, f"gap {_said(gap['gap'])} ({between}), p {_said(gap['p'])}, p by Holm {_said(gap['p_holm'])}; {where}"))
        counts = ", ".join(f"{_said(row['group'])} {_said(row['count'])}" for row in groups["groups"])
        left_out = ", ".join(f"{_said(group)} {_said(count)}" for group, count in groups["left_out"].items())
        texts.append(f"Groups of {_said(groups['column'])}, with their examples: {counts}. Left out as too small: {left_out or 'none'}.")
        texts.append(_table(rows))
    if swap := found.get("swap"):
        changed = f"{_said(swap['changed'])} of {_said(swap['examples'])} texts are answered otherwise"
        texts.append(f"With the words of {_said(_last(swap['file']))} swapped, a share of {changed}.")
    return _section("Fairness", *texts)


def _responsible(run_dir: Path, experiment: dict) -> str:
    """What follows from the facts, and who has to do what is not done."""
    context = experiment.get("model", {}).get("context_length")
    objectives = [experiment.get("objective", {}), _read(run_dir / START / "config.json").get("experiment", {}).get("objective", {})]
    taught = [_kind(one) for one in objectives if _full(one).startswith(BY_PREFERENCE)]
    long = f"It reads {_said(context)} tokens at most." if context else "How much it reads at once is not recorded."
    safety = "It had no training for safety that is recorded: no objective of preference or reward is named."
    if taught:
        safety = (
            f"It learned by {' and '.join(taught)}. Whether that covers safety depends on the comparisons or rewards, and was not measured."
        )
    private = "It may give away what it learned from: do not publish it if that is confidential."
    if (run_dir / PRIVACY).is_file():
        private = "Its promise of privacy holds for the data that is named above, and for no other."
    fair = "How it treats groups of people was not measured: do so before it has a part in decisions about them."
    if (run_dir / FAIRNESS).is_file():
        fair = "Groups and words that were not compared above may be treated otherwise."
    people = "Before it has a part in decisions about people, whoever deploys it names a person who answers for them, and a way to object."
    languages = "Languages of its data: not recorded. What it does with others than those of its evaluation was not measured."
    return _section("Responsible use", "\n".join(f"- {line}" for line in (long, languages, safety, private, fair, people)))


def _parameters(run_dir: Path) -> tuple[int | None, int | None]:
    """(step, number of parameters) of the newest checkpoint, by the shapes in its files; None where there is none."""
    steps = Journal(run_dir / "checkpoints").steps() if (run_dir / "checkpoints").is_dir() else []
    if not steps:
        return None, None
    folder = run_dir / "checkpoints" / str(max(steps))
    for item in ("params", "ema"):  # what a run starts from has one of them
        shapes = [_read(path)["shape"] for path in sorted((folder / item).rglob(".zarray"))]
        if shapes:
            return max(steps), sum(math.prod(shape) for shape in shapes)
    return max(steps), None


def _read(path: Path) -> dict:
    return json_files.read(path, "Restore the file, or remove it.") if path.is_file() else {}


def _full(part: dict) -> str:
    name = str(part.get("kind", ""))
    return OLD_NAMES.get(name, name)


def _kind(part: dict) -> str:
    """The class of a part of the experiment, as a config file names it."""
    return _full(part).rpartition(":")[2] or NOT_RECORDED


def _described(part: dict, defaults: dict, always: tuple[str, ...] = ()) -> str:
    """A part with its fields that are not at their defaults, or `always`: numbers, truth values and short texts."""
    names = [name for name in part if name in always or (not always and name in defaults and part[name] != defaults[name])]
    plain = {name: part[name] for name in names if isinstance(part.get(name), int | float | str) and part[name] != ""}
    fields = ", ".join(f"{name} {_said(_last(value) if isinstance(value, str) else value)}" for name, value in plain.items())
    return _kind(part) + (f" ({fields})" if fields else "")


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _said(value: Any) -> str:
    """A value as text that a cell of a table can hold; never empty."""
    if value is None or value == "" or value == [] or value == {}:
        return NOT_RECORDED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "no finite number"
    if isinstance(value, str) and value in json_files.NOT_FINITE:
        return "no finite number"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return " ".join(str(value).replace("|", "\\|").split()) or NOT_RECORDED


def _table(rows: Rows) -> str:
    return "\n".join(["| fact | value |", "|---|---|", *(f"| {_said(name)} | {_said(value)} |" for name, value in rows)])


def _section(title: str, *texts: str | Rows) -> str:
    return "\n\n".join([f"## {title}", *(text if isinstance(text, str) else _table(text) for text in texts)])
