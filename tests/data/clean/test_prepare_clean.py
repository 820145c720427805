import dataclasses
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from data.clean import scan as scanning
from data.clean.classifier import PrepareClassifier, prepare_classifier
from data.clean.prepare import PrepareClean, prepare_clean
from data.errors import UserError
from data.text.prepare import PrepareText, prepare_text

ENGLISH = "the of and to in a is that it was for on with as we have".split()
WORDS = [*ENGLISH, *(f"w{number}" for number in range(800))]
CHARACTERS = [chr(0x4E00 + number) for number in range(1500)] + list("的是不了在有和") * 40


def document(seed, chinese=False):
    drawn = random.Random(seed)
    if chinese:
        return "".join(drawn.choices(CHARACTERS, k=drawn.randrange(120, 300))) + "。"
    return " ".join(drawn.choices(ENGLISH, k=60) + drawn.choices(WORDS, k=drawn.randrange(60, 200)))


EVALUATION = " ".join(f"e{number}" for number in range(20))
SHARED = document("shared")[:400]


def texts():
    """Documents good and bad: (text, the rule that should remove it, if any)."""
    good = [document(number, chinese=number % 3 == 0) for number in range(60)]
    found = [(text, None) for text in good]
    found += [(text.replace(" ", "  "), "exact_duplicate") for text in good[1:20:5]]
    found += [(text + " more 又", "near_duplicate") for text in good[3:30:5]]
    found += [(good[3] + "  more  又", "exact_duplicate")]  # of what is itself a near copy
    found += [("this is too short", "words"), ("buying cheap " * 80 + "of the and", "top_2_gram"), ("", "empty")]
    found += [(document(100) + " casino", "forbidden_word"), (document(101) + " " + EVALUATION, "contaminated")]
    found += [(document(102) + SHARED, None), (document(103) + SHARED + document(104), None)]
    found += [("Die und der zu das mit nicht ist auf dem sie " + " ".join(f"wort{number}" for number in range(80)), "language")]
    return found


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    rows = texts()
    for name, part in (("a.jsonl", rows[:50]), ("c.jsonl", rows[50:])):
        (tmp_path / "in" / name).write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in part))
    (tmp_path / "in" / "b.txt").write_text(document(200))
    (tmp_path / "words.txt").write_text("casino\n")
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": EVALUATION}) + "\n")
    return tmp_path


def options(files, output="out", **changes):
    return PrepareClean(
        **{
            "output": str(files / output),
            "input": (str(files / "in"),),
            "repeated_characters": 200,
            "language": ("en", "zh"),
            "forbidden_words": str(files / "words.txt"),
            "evaluation": (str(files / "test.jsonl"),),
            "workers": 1,
            "shard_bytes": 6000,
            **changes,
        }
    )


def kept(folder):
    documents = []
    for name in sorted(os.listdir(folder)):
        if name.startswith("documents-"):
            content = zstandard.ZstdDecompressor().stream_reader((folder / name).read_bytes()).read()
            documents += [json.loads(line) for line in content.splitlines()]
    return documents


def removed(folder):
    return [json.loads(line) for line in (folder / "removed.jsonl").read_text().splitlines()]


def content(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if name not in (".lock", "prepare.json")}


def test_each_document_is_kept_or_removed_by_the_rule_it_breaks(files, capsys):
    manifest = prepare_clean(options(files))
    expected = {f"{files}/in/a.jsonl:{number}": rule for number, (_, rule) in enumerate(texts()[:50], 1)}
    expected |= {f"{files}/in/c.jsonl:{number}": rule for number, (_, rule) in enumerate(texts()[50:], 1)} | {f"{files}/in/b.txt": None}
    found = {one["name"]: None for one in kept(files / "out")} | {one["name"]: one["reason"] for one in removed(files / "out")}
    found |= dict.fromkeys(manifest["empty"]["names"], "empty")

    def place(name):  # lines of a divided file are numbered from where its part begins
        path, _, line = name.partition(": line ")
        if not line:
            return name
        number, _, begin = line.partition(" after byte ")
        before = Path(path).read_bytes()[: int(begin) - 1].count(b"\n") + 1
        return f"{path}:{before + int(number)}"

    assert {place(name): rule for name, rule in found.items()} == expected
    assert manifest["kept"]["documents"] + sum(manifest["removed"].values()) == manifest["documents"] == len(expected) - 1
    assert manifest["cut"] == {"documents": 1, "characters": 400}
    assert manifest["evaluation"] == {
        "examples": 1,
        "too_short": 0,
        "contaminated": [{"example": f"{files}/test.jsonl: line 1", "documents": 1, "share": 1.0}],
    }
    texts_kept = [one["text"] for one in kept(files / "out")]
    assert sum(SHARED in text for text in texts_kept) == 1 and document(103) + document(104) in texts_kept
    assert manifest["kept"]["bytes"] == sum(len(text.encode()) for text in texts_kept)
    copies = [one for one in removed(files / "out") if "copy_of" in one]
    names = {one["name"] for one in kept(files / "out")}
    assert len(copies) == 11 and all(one["copy_of"] in names and one["value"] >= 0.8 for one in copies)
    said = capsys.readouterr().out
    assert "exact_duplicate 5" in said and "1 of 1 examples are found" in said and "1 empty" in said


def test_the_result_does_not_depend_on_workers_or_batches(files, monkeypatch):
    prepare_clean(options(files, "one"))
    prepare_clean(options(files, "two", workers=2))
    monkeypatch.setattr(scanning, "BATCH_CHARACTERS", 500)
    prepare_clean(options(files, "small"))
    assert content(files / "one") == content(files / "two") == content(files / "small")
    assert len(content(files / "one")) > 8


def test_shards_of_any_size_hold_the_same_documents(files):
    prepare_clean(options(files))
    prepare_clean(options(files, "large", shard_bytes=1 << 20))
    assert [one["text"] for one in kept(files / "out")] == [one["text"] for one in kept(files / "large")]


def test_a_killed_run_goes_on_and_ends_in_the_same_bits(files):
    """SIGKILL in each of the stages, each time run again."""
    whole = options(files, "unbroken")
    prepare_clean(whole)
    script = (
        "import json, sys, time\nfrom data.clean import prepare\nfrom data.loading import journal\n"
        "real = journal.write_json\n"
        "def slow(*arguments):\n    real(*arguments)\n    time.sleep(0.05)\n"
        "journal.write_json = slow\n"
        "given = json.loads(sys.argv[1])\n"
        "given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}\n"
        "prepare.prepare_clean(prepare.PrepareClean(**given))\n"
    )
    given = json.dumps(dataclasses.asdict(options(files, "killed")))
    journal, kills = files / "killed" / ".prepare", 0
    for wanted in ("scan-00002.json", "decided.json", "prints-00003.json", "spans-00000.json", "00001.json"):
        process = subprocess.Popen(
            [sys.executable, "-c", script, given], stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
        while process.poll() is None and not (journal / wanted).exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += process.returncode == -signal.SIGKILL
        assert not (files / "killed" / "clean.json").exists() and not (files / "killed" / "removed.jsonl").exists()
    assert kills == 5
    prepare_clean(dataclasses.replace(whole, output=str(files / "killed")))
    assert content(files / "killed") == content(files / "unbroken")
    assert not journal.exists()


def test_what_is_clean_stays_as_it_is(files):
    prepare_clean(options(files))
    again = prepare_clean(options(files, "again", input=(f"{files}/out/documents-*",)))
    assert again["removed"] == {} and again["cut"]["documents"] == 0
    assert [one["text"] for one in kept(files / "again")] == [one["text"] for one in kept(files / "out")]


def test_another_order_changes_only_which_copy_stays(files):
    """Names apart, the same groups of copies lose all but one text."""
    rows = [text for text, rule in texts() if rule in (None, "exact_duplicate", "near_duplicate")]
    groups = []
    for output, order in (("forth", rows), ("mixed", random.Random(1).sample(rows, len(rows)))):
        path = files / f"{output}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in order))
        prepare_clean(options(files, output, input=(str(path),), repeated_characters=0, shard_bytes=1 << 20))
        text_of = {f"{path}:{number}": text for number, text in enumerate(order, 1)}
        group = {one["name"]: {one["text"]} for one in kept(files / output)}
        for one in removed(files / output):
            group[one["copy_of"]].add(text_of[one["name"]])
        groups.append({frozenset(members) for members in group.values()})
    assert groups[0] == groups[1]


def test_prepare_text_reads_what_is_kept(files):
    manifest = prepare_clean(options(files))
    corpus = prepare_text(
        PrepareText(str(files / "corpus"), (f"{files}/out/documents-*",), validation=0, tokenizer="byte", split="hash", workers=1)
    )
    assert corpus.manifest["splits"]["train"]["documents"] == manifest["kept"]["documents"]
    assert corpus.manifest["splits"]["train"]["raw_bytes"] == manifest["kept"]["bytes"]


def test_rules_can_be_switched_off(files):
    off = options(
        files,
        exact_duplicates=False,
        near_duplicates=0,
        repeated_characters=0,
        gopher=False,
        language=(),
        forbidden_words="",
        evaluation=(),
    )
    assert prepare_clean(off)["removed"] == {}
    assert [one["text"] for one in kept(files / "out")][-1] == texts()[-1][0]


def test_contamination_can_be_reported_alone(files):
    manifest = prepare_clean(options(files, contaminated="report"))
    assert "contaminated" not in manifest["removed"] and len(manifest["evaluation"]["contaminated"]) == 1


def test_copies_of_a_contaminated_text_do_not_make_it_common(files):
    rows = [document(number) + " " + EVALUATION for number in range(3)] + [document(0) + " " + EVALUATION] * 20
    (files / "many.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*rows, document(50)]))
    manifest = prepare_clean(options(files, input=(str(files / "many.jsonl"),), repeated_characters=0))
    assert manifest["removed"] == {"contaminated": 3, "exact_duplicate": 20} and manifest["kept"]["documents"] == 1


def test_a_classifier_of_ones_own_removes_what_it_takes_for_positive(files):
    rows = "".join(f"{document(number)} {word},{label}\n" for number in range(60) for word, label in (("jackpot", 1), ("river", 0)))
    (files / "labelled.csv").write_text("text,label\n" + rows)
    prepare_classifier(PrepareClassifier(str(files / "bad.npz"), (str(files / "labelled.csv"),), false_positive_rate=0.1))
    (files / "more.jsonl").write_text(json.dumps({"text": document(300) + " jackpot" * 3}) + "\n" + json.dumps({"text": document(301)}))
    clean = options(files, input=(str(files / "more.jsonl"),), classifier=str(files / "bad.npz"))
    assert prepare_clean(clean)["removed"] == {"classifier": 1}
    assert "jackpot" not in kept(files / "out")[0]["text"]
    with pytest.raises(UserError, match="no document is left: classifier 2"):
        prepare_clean(dataclasses.replace(clean, classifier_threshold=1e-9, overwrite=True))


def test_a_changed_file_of_words_is_another_preparation(files):
    prepare_clean(options(files))
    before = content(files / "out")
    prepare_clean(options(files))
    assert content(files / "out") == before
    (files / "words.txt").write_text("jackpot\n")
    with pytest.raises(UserError, match="forbidden_words"):
        prepare_clean(options(files))
    manifest = prepare_clean(options(files, overwrite=True))
    assert "forbidden_word" not in manifest["removed"]


def test_damage_stops_or_is_counted(files):
    with gzip.open(files / "in" / "d.jsonl.gz", "wt") as file:
        file.write("{broken\n" + json.dumps({"text": document(400)}) + "\n")
    with pytest.raises(UserError, match=r"d\.jsonl\.gz:1: invalid JSON"):
        prepare_clean(options(files))
    manifest = prepare_clean(options(files, max_damaged=1))
    assert [name for name, _ in manifest["damaged"]] == [f"{files}/in/d.jsonl.gz:1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"near_duplicates": 1.2}, "near_duplicates"),
        ({"near_duplicates": 0.01}, "near_duplicates"),
        ({"repeated_characters": 20}, "repeated_characters"),
        ({"language": ("xx",)}, "'xx'"),
        ({"classifier_threshold": 0.5}, "classifier_threshold has no effect"),
        ({"contaminated": "report", "evaluation": ()}, "contaminated has no effect"),
        ({"forbidden_words": "nowhere.txt"}, r"nowhere\.txt"),
        ({"classifier": "nowhere.npz"}, r"nowhere\.npz"),
        ({"evaluation": ("nowhere.jsonl",)}, r"nowhere\.jsonl"),
        ({"input": ()}, "no input"),
        ({"workers": -1}, "workers"),
    ],
)
def test_mistakes_are_named(changes, message, files):
    with pytest.raises(UserError, match=message) as error:
        prepare_clean(options(files, **changes))
    assert str(error.value).count("\n") == 1
    assert not (files / "out").exists() or os.listdir(files / "out") == [".lock"]
