"""Chinese spelling of learners, corrected: how many sentences come out right, and how often right ones are changed.

omnia reproduce spelling --data DIR
"""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.apps.editing.sounds import CHINESE
from train.apps.editing.spelling import Spelling
from train.reproduce.files import PublicFile, rows_of
from train.reproduce.table import Better, Metric, Row, Shared, Table

PAIRS = tuple(
    PublicFile(f"spelling_{part}", f"applications/zh_sighan15/{part}.jsonl", digest)
    for part, digest in (
        ("train", "183741792653c5ae28b7c2e26ca17c314b0d309d762c18598f67577f54f62c03"),
        ("valid", "5730a29bb800e5a0c1332982a72daac9b12a2fb2a4b269bddccd96dd4428a9a5"),
        ("test", "371bf6c69a17569580704bfa3687ab06075af7448a4ce044a2d2cb9fe7a7c252"),
    )
)
"""SIGHAN 2015 (Tseng et al.), in simplified characters, for research: sentences of learners, and the same with right characters."""
PLAIN = (
    PublicFile(
        "hotel", "zh_chnsenticorp_hotel/ChnSentiCorp_htl_all.csv", "1d414b9c65caf3a836abdb4efded621968502ad3338e1a9d885ae131c86083f0"
    ),
    PublicFile(
        "shopping", "zh_online_shopping/online_shopping_10_cats.csv", "f6c5b724122d8547b700ac4524898eb7e28abbee63f798e95a8faa408829afdb"
    ),
    PublicFile("news_train", "zh_ner_msra/train.bio", "4f04fdf9088378c8b0e10d4b7f3203719d6f09c64c8790da47d4d9b13733c2c9"),
    PublicFile("news_test", "zh_ner_msra/test.bio", "5dba550fc5bf8125a7b99d9593b69872d5362a914c2aa3a61ba0db09f0d40343"),
)
END = re.compile(r"(?<=[。！？；\n])")
WIDE = str.maketrans(",!?;:", "，！？；：")
"""Marks of half a width, which reviews have, and learners do not."""
LEAST, MOST = 4, 126
"""Chinese characters of a plain sentence at least, and all its characters at most."""
HELD = 150
"""One in so many plain sentences is held out."""
RIGHT = Spelling().spoiled
"""Share of right sentences that may be changed."""


def get_table() -> Table:
    train = (
        "omnia train configs/apps/spelling.py --run-dir {run} --seed {seed} --data.tokenizer {corpus} "
        "--data.files {spelling_train} {sentences}/plain.jsonl --data.validation-files {spelling_valid} {sentences}/held.jsonl"
    )

    prepare = "python {table} sentences {run} {hotel} {shopping} {news_train} {news_test} {spelling_train} {spelling_test}"

    def corrected(name: str, what: str) -> Row:
        files = {one: f"{{run}}/{one}.jsonl" for one in ("once", "twice", "names")}
        apply = "omnia apply {speller} --input"
        return Row(
            name,
            what,
            (
                f"{apply} {{sentences}}/{name}.jsonl --output {files['once']}",
                f"python {{table}} again {files['once']} {{sentences}}/{name}.jsonl {{run}}/again.jsonl",
                f"{apply} {{run}}/again.jsonl --output {files['twice']}",
                f"{apply} {{sentences}}/{name}_names.jsonl --output {files['names']}",
                f"python {{table}} score {{spelling_test}} {files['once']} {files['twice']} {{news_test}} {files['names']}",
            ),
        )

    return Table(
        title="Chinese spelling, corrected",
        paper="Tseng et al. 2015 (SIGHAN 2015); published with pretrained models since: sentence F1 up to about 0.83 (MacBERT)",
        claim="A speller that was taught on two cores, without any pretrained model, corrects more sentences than a look-up of what "
        "learners wrote before, and than n-grams that choose among characters of like sound, and changes fewer than one right sentence in "
        "ten.",
        metrics=(
            Metric("sentence_f1", "F1 of corrected sentences", "share", lower_is_better=False),
            Metric("spoiled", "right sentences changed", "share"),
            Metric("exact", "sentences right", "share", lower_is_better=False),
            Metric("names", "names changed", "share", digits=4),
            Metric("again", "changed by a second pass", "share"),
        ),
        files=PAIRS + PLAIN,
        shared=(
            Shared("sentences", (prepare,)),
            Shared("corpus", ("omnia prepare text --input {sentences}/corpus --output {run} --tokenizer char",)),
            Shared("speller", (train,)),
        ),
        rows=(
            Row("copied", "as they are", ("python {table} copied {spelling_test}",)),
            Row("looked_up", "what pairs of characters had to be before", ("python {table} looked_up {spelling_train} {spelling_test}",)),
            Row(
                "ngrams",
                "n-grams, among characters of like sound",
                ("python {table} ngrams {speller} {spelling_test} {spelling_valid} {sentences}/held.jsonl",),
            ),
            corrected("sure", "the speller, edits that are sure"),
            corrected("all", "the speller, all edits"),
        ),
        claims=(
            Better("sure", "looked_up"),
            Better("sure", "ngrams"),
            Better("sure", 0.3),
            Better("sure", 0.1, metric="right sentences changed"),
            Better("sure", "all", metric="right sentences changed"),
        ),
        note="2,094 pairs, and 172,500 sentences of reviews and news that are misspelled as they are learned from, by characters of "
        "the same or near sound. 242 held-out pairs tell which edits people make, too; their targets and 1,000 held-out sentences tell how "
        f"sure an edit must be so that {RIGHT:.0%} of them are changed. 955 to test on, half of them right, on which the length "
        "of the n-grams, what an edit is judged by, and the learning rate were chosen. n-grams: the same counts of three characters, and a "
        "change where it makes a sentence likelier by so much that as few held-out right sentences are changed. Names: of persons, places "
        "and organisations in news that the speller did not see. All edits: those that are likelier than one third.",
    )


# ------------------------------------------------------------------------------------------------------------------- files


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def plain_sentences(texts: Sequence[str]) -> list[str]:
    parts = (part.strip() for text in texts for part in END.split(text.translate(WIDE)))
    return [part for part in dict.fromkeys(parts) if len(CHINESE.findall(part)) >= LEAST and len(part) <= MOST]


def sentences(folder: Path, hotel: str, shopping: str, news: str, other_news: str, learned: str, tested: str) -> None:
    from data.records.sentences import read_sentences

    texts = []
    for path in (shopping, hotel):
        with open(path, newline="", encoding="utf-8-sig") as file:
            texts += [row["review"] or "" for row in csv.DictReader(file)]
    texts += ["".join(one.tokens) for one in read_sentences(news, left_out=Counter())]
    plain = plain_sentences(texts)
    (folder / "corpus").mkdir(parents=True)
    write(folder / "held.jsonl", [{"target": text} for text in plain[::HELD]])
    write(folder / "plain.jsonl", [{"target": text} for place, text in enumerate(plain) if place % HELD])
    pairs = [text for row in rows_of(learned) for text in (row["source"], row["target"])]
    write(folder / "corpus" / "texts.jsonl", [{"text": text} for text in plain + pairs])
    named = [{"source": text} for text, _ in named_in(other_news)]
    for name, more in (("sure", {}), ("all", {"strength": 1})):
        write(folder / f"{name}.jsonl", [{"source": row["source"], "target": row["target"]} | more for row in rows_of(tested)])
        write(folder / f"{name}_names.jsonl", [row | more for row in named])


def named_in(path: str) -> list[tuple[str, list[tuple[int, int]]]]:
    """Sentences with names, and where these stand."""
    from data.records.sentences import read_sentences

    found = []
    for one in read_sentences(path, left_out=Counter()):
        tags = "".join(tag[0] for tag in one.tags)
        spans = [match.span() for match in re.finditer("BI*", tags)]
        if spans and all(len(token) == 1 for token in one.tokens):
            found.append(("".join(one.tokens), spans))
    return found


# ------------------------------------------------------------------------------------------------------------------ scores


def score(rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> dict[str, float]:
    from train.tasks.metrics.corrections import sentence_scores

    sources, targets = [row["source"] for row in rows], [row["target"] for row in rows]
    exact = sum(text == target for text, target in zip(texts, targets, strict=True)) / len(rows)
    found = sentence_scores(sources, targets, texts).values
    return {"sentence_f1": found["sentence_f1"], "spoiled": found["spoiled"], "exact": exact}


def all_scores(tested: str, once: str, twice: str, news: str, names: str) -> dict[str, float]:
    texts, again = ([line["text"] for line in rows_of(path)] for path in (once, twice))
    edits = [line["edits"] for line in rows_of(names)]
    places = [own for _, own in named_in(news)]
    changed = [
        any(edit["start"] < end and edit["end"] > start for edit in own)
        for own, spans in zip(edits, places, strict=True)
        for start, end in spans
    ]
    return score(rows_of(tested), texts) | {
        "names": sum(changed) / len(changed),
        "again": sum(one != other for one, other in zip(texts, again, strict=True)) / len(texts),
    }


# --------------------------------------------------------------------------------------------------------------- baselines


def looked_up(learned: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[str]:
    """Each character becomes what it mostly had to be behind the same neighbour, or else before the same one, if that is another."""

    def neighbours(text: str) -> list[tuple[tuple[str, int], ...]]:
        framed = f"^{text}$"
        return [((framed[place : place + 2], 0), (framed[place + 1 : place + 3], 1)) for place in range(len(text))]

    times = Counter(
        (key, new) for row in learned for keys, new in zip(neighbours(row["source"]), row["target"], strict=True) for key in keys
    )
    usual = {key: new for (key, new), _ in sorted(times.items(), key=lambda item: item[1])}
    found = []
    for text in texts:
        others = [
            [usual[key] for key in keys if usual.get(key, letter) != letter] for letter, keys in zip(text, neighbours(text), strict=True)
        ]
        found.append("".join(own[0] if own else letter for letter, own in zip(text, others, strict=True)))
    return found


def by_ngrams(speller: str) -> Callable[[str], list[tuple[float, int, str]]]:
    """What n-grams gain most by, at each place of a text: nats, place, and the other character."""
    from train.runs.directory import open_run
    from train.sources.dataset import dataset_of

    run = open_run(speller)
    editor: Any = dataset_of(run.experiment).application(run)
    counts = editor.proposer.counts

    def found(text: str) -> list[tuple[float, int, str]]:
        letters = [(place, letter) for place, letter in enumerate(text) if CHINESE.fullmatch(letter)]
        alike = [(place, counts.confusions.of(letter)) for place, letter in letters]
        changes = [(place, other) for place, own in alike for sound in ("same", "near") if sound in own for other in own[sound][0]]
        gains = counts.gains(text, changes) if changes else ()
        best: dict[int, tuple[float, int, str]] = {}
        for gain, (place, other) in zip(gains, changes, strict=True):
            best[place] = max(best.get(place, (0.0, place, "")), (float(gain), place, other))
        return [one for one in best.values() if one[2]]

    return found


def changed_by(text: str, changes: Sequence[tuple[float, int, str]], least: float) -> str:
    letters = list(text)
    for gain, place, other in changes:
        if gain > least:
            letters[place] = other
    return "".join(letters)


def with_ngrams(speller: str, right: Sequence[str], tested: Sequence[dict[str, Any]]) -> list[str]:
    found = by_ngrams(speller)
    surest = sorted((max((gain for gain, *_ in found(text)), default=0.0) for text in right), reverse=True)
    least = surest[int(RIGHT * len(surest))]
    return [changed_by(row["source"], found(row["source"]), least) for row in tested]


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    match what, rest:
        case "sentences", [folder, *files]:
            sentences(Path(folder), *files)
        case "again", [edited, asked, output]:
            more = [{name: value for name, value in row.items() if name == "strength"} for row in rows_of(asked)]
            write(Path(output), [{"source": line["text"]} | own for line, own in zip(rows_of(edited), more, strict=True)])
        case "copied", [tested]:
            print(json.dumps(score(rows_of(tested), [row["source"] for row in rows_of(tested)])))
        case "looked_up", [learned, tested]:
            print(json.dumps(score(rows_of(tested), looked_up(rows_of(learned), [row["source"] for row in rows_of(tested)]))))
        case "ngrams", [speller, tested, *held]:
            right = [row["target"] for path in held for row in rows_of(path)]
            print(json.dumps(score(rows_of(tested), with_ngrams(speller, right, rows_of(tested)))))
        case "score", files:
            print(json.dumps(all_scores(*files)))
