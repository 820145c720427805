import dataclasses
import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data.errors import UserError
from data.files import storage
from data.loading import pool
from data.readers import stream
from data.text import task
from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus, ShardWriter
from data.tokenizer import load_tokenizer

WORDS = "the quick brown fox jumps over a lazy dog and then\n    returns 1234 times, äöü 🙂.\n".split(" ")


def text_of(i):
    random = np.random.default_rng(i)
    return f"{i}: " + " ".join(random.choice(WORDS, random.integers(1, 200)))


TEXTS = [text_of(i) for i in range(120)]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def options(tmp_path, *inputs, output="out", **changes):
    return PrepareText(**{"input": tuple(map(str, inputs)), "output": str(tmp_path / output), "workers": 1, **changes})


def documents_of(corpus, split="train"):
    tokenizer, part = corpus.tokenizer(), corpus.split(split)
    return [tokenizer.decode(part.read(i)) for i in range(part.documents)]


def content(folder):
    """Everything that must not depend on how the work was done."""
    return {
        name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if name.endswith((".tokens", ".index", "manifest.json"))
    }


@pytest.mark.parametrize("tokenizer", ["byte", "char", "sentencepiece:420"])
def test_documents_come_back_in_order_and_once(tokenizer, lines, tmp_path):
    corpus = prepare_text(options(tmp_path, lines, tokenizer=tokenizer, shard_bytes=10_000))
    train, validation = documents_of(corpus), documents_of(corpus, "validation")
    assert sorted(train + validation) == sorted(TEXTS)
    assert train == [text for text in TEXTS if text in train]
    assert 2 <= len(validation) <= 30
    assert len(corpus.manifest["splits"]["train"]["shards"]) > 3
    for split, texts in (("train", train), ("validation", validation)):
        part = corpus.split(split)
        assert part.document_bytes.tolist() == [len(text.encode()) for text in texts]
        assert part.raw_bytes == sum(part.document_bytes)
        assert all(part.read(i, length - 1)[0] == corpus.document_end for i, length in enumerate(part.lengths))


def test_adding_documents_moves_none_to_the_other_split(lines, tmp_path):
    before = prepare_text(options(tmp_path, lines))
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in ["new", *TEXTS, "newer"]))
    after = prepare_text(options(tmp_path, lines, output="after"))
    for split in ("train", "validation"):
        assert set(documents_of(before, split)) <= set(documents_of(after, split))


def test_one_text_is_cut_at_its_tail(tmp_path):
    text = "\n".join(TEXTS)
    with gzip.open(tmp_path / "a.txt.gz", "wb") as file:
        file.write(text.encode())
    corpus = prepare_text(options(tmp_path, tmp_path / "a.txt.gz", tokenizer="char"))
    (train,), (validation,) = documents_of(corpus), documents_of(corpus, "validation")
    assert train + validation == text
    assert len(train) == int(0.9 * len(text))
    assert corpus.document_end is None
    assert corpus.ids == len(set(text)) == corpus.tokenizer().base_size
    assert corpus.split("train").tokens == len(train)


@pytest.mark.parametrize(("split", "validation", "splits"), [("hash", 0, ["train"]), ("tail", 0.5, ["train", "validation"])])
def test_the_split_can_be_chosen(split, validation, splits, lines, tmp_path):
    corpus = prepare_text(options(tmp_path, lines, split=split, validation=validation))
    assert [name for name, one in corpus.manifest["splits"].items() if one["documents"]] == splits
    assert (corpus.document_end is None) == (split == "tail")
    if split == "tail":
        assert [a + b for a, b in zip(documents_of(corpus), documents_of(corpus, "validation"), strict=True)] == TEXTS


@pytest.mark.parametrize("tokenizer", ["byte", "char", "sentencepiece:420"])
def test_long_documents_have_the_ids_of_the_whole(tokenizer, tmp_path, monkeypatch):
    """Read and tokenized in chunks, in both kinds of split."""
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS))
    for split, validation in (("tail", 0.3), ("hash", 0)):
        whole = prepare_text(options(tmp_path, path, output=f"{split} whole", tokenizer=tokenizer, split=split, validation=validation))
        with monkeypatch.context() as patch:
            patch.setattr(stream, "CHUNK_BYTES", 1000)
            patch.setattr(task, "_BATCH_CHARACTERS", 500)
            prepare_text(options(tmp_path, path, output=f"{split} parts", tokenizer=tokenizer, split=split, validation=validation))
        assert content(tmp_path / f"{split} whole") == content(tmp_path / f"{split} parts")
        assert whole.split("train").tokens > 5000


def test_the_result_does_not_depend_on_the_workers(lines, tmp_path):
    for tokenizer in ("char", "sentencepiece:420"):
        for workers in (1, 2):
            prepare_text(
                options(tmp_path, lines, output=f"{workers}", tokenizer=tokenizer, workers=workers, shard_bytes=10_000, overwrite=True)
            )
        assert content(tmp_path / "1") == content(tmp_path / "2")


def test_a_killed_preparation_goes_on_where_it_stopped(lines, tmp_path):
    """SIGKILL at several moments, each time run again; finished shards are not made again, and the bytes are those of an unbroken run."""
    many = options(tmp_path, lines, output="killed", workers=2, shard_bytes=4000)
    prepare_text(dataclasses.replace(many, output=str(tmp_path / "unbroken"), workers=1))
    script = (
        "import sys, time\nfrom data.text import prepare, task\n"
        "real = task._Writer.close\n"
        "def slow(self):\n    time.sleep(0.03)\n    return real(self)\n"
        "task._Writer.close = slow\n"
        "prepare.prepare_text(prepare.PrepareText(input=(sys.argv[1],), output=sys.argv[2], shard_bytes=4000, workers=1))\n"
    )
    made, kills = {}, 0
    for finished in (1, 4, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(lines), many.output],
            cwd=os.getcwd(),
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        journal = tmp_path / "killed" / ".prepare"
        while process.poll() is None and (not journal.exists() or len(list(journal.glob("*.json"))) < finished):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += process.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed" / "manifest.json").exists()
        tokens = {path.stem.split("-")[1]: path for path in (tmp_path / "killed").glob("train-*.tokens")}
        now = {path.stem: tokens[path.stem].stat().st_mtime_ns for path in journal.glob("*.json") if path.stem in tokens}
        assert made.items() <= now.items()
        made = now
    assert kills == 3
    prepare_text(many)  # in two processes
    assert content(tmp_path / "killed") == content(tmp_path / "unbroken")
    assert not (tmp_path / "killed" / ".prepare").exists()
    assert all(
        (tmp_path / "killed" / f"train-{number}-of-{len(list(plan_tasks(tmp_path))):05d}.tokens").stat().st_mtime_ns == when
        for number, when in made.items()
    )


def plan_tasks(tmp_path):
    return json.loads((tmp_path / "killed" / "prepare.json").read_text())["tasks"]


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = (
        "import os, time\nfrom data.loading import pool\n"
        "def wait(report):\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n    list(pool.run_tasks(wait, [(), ()], 2, 'waiting', 1))\n"
    )
    (tmp_path / "script.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{worker}/exe") for worker in workers):
        time.sleep(0.02)
    for worker in workers:
        with pytest.raises(OSError):
            os.readlink(f"/proc/{worker}/exe")  # gone, or a zombie


def test_a_second_run_finds_it_done(lines, tmp_path, capsys):
    prepare_text(options(tmp_path, lines))
    before = {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in content(tmp_path / "out")}
    prepare_text(options(tmp_path, lines, workers=2, max_damaged=3))
    assert before == {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in content(tmp_path / "out")}
    assert "120" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "char"}, "tokenizer = 'byte', not 'char'"),
        ({"validation": 0.2}, "validation = 0.1, not 0.2"),
        ({"split": "tail"}, "split = 'hash', not 'tail'"),
        ({"shard_bytes": 9000}, "shard_bytes"),
    ],
)
def test_other_options_are_refused_and_overwritten_on_request(changes, message, lines, tmp_path):
    prepare_text(options(tmp_path, lines, shard_bytes=20_000))
    changed = options(tmp_path, lines, **{"shard_bytes": 20_000, **changes})
    with pytest.raises(UserError, match=message):
        prepare_text(changed)
    prepare_text(dataclasses.replace(changed, overwrite=True))
    prepare_text(dataclasses.replace(changed, output=str(tmp_path / "fresh")))
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_changed_inputs_are_refused(lines, tmp_path):
    prepare_text(options(tmp_path, lines))
    lines.write_text(lines.read_text() * 2)
    with pytest.raises(UserError, match=f"{lines} was added, removed or changed"):
        prepare_text(options(tmp_path, lines))


def test_a_changed_tokenizer_file_is_refused(lines, tmp_path):
    prepare_text(options(tmp_path, lines, output="first", tokenizer="char"))
    again = options(tmp_path, lines, output="second", tokenizer=str(tmp_path / "first"))
    prepare_text(again)
    os.unlink(tmp_path / "second" / "manifest.json")
    prepare_text(options(tmp_path, lines, output="first", tokenizer="byte", overwrite=True))
    with pytest.raises(UserError, match="another tokenizer"):
        prepare_text(again)


def test_a_folder_with_other_things_in_it_is_left_alone(lines, tmp_path):
    for overwrite in (False, True):
        with pytest.raises(UserError, match="not empty"):
            prepare_text(options(tmp_path, lines, output=".", overwrite=overwrite))
    assert lines.exists()


def test_two_preparations_do_not_write_at_once(lines, tmp_path):
    import fcntl

    os.makedirs(tmp_path / "out")
    with open(tmp_path / "out" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another preparation"):
            prepare_text(options(tmp_path, lines))


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_inputs_stop_or_are_counted_and_named(tokenizer, workers, lines, tmp_path):
    good = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join([*good[:30], "{broken\n", *good[30:100], '{"other": 1}\n', '{"text": ""}\n', *good[100:]]))
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    many = options(tmp_path, lines, tmp_path / "bad.txt", tokenizer=tokenizer, workers=workers, shard_bytes=8000)
    with pytest.raises(UserError, match=r"lines\.jsonl:31: invalid JSON|lines\.jsonl:102: no text|bad\.txt: invalid UTF-8"):
        prepare_text(many)
    with pytest.raises(UserError, match="3 damaged, 2 tolerated"):
        prepare_text(dataclasses.replace(many, max_damaged=2))
    corpus = prepare_text(dataclasses.replace(many, max_damaged=3))
    assert [name for name, _ in corpus.manifest["damaged"]] == [f"{lines}:31", f"{lines}:102", str(tmp_path / "bad.txt")]
    assert corpus.manifest["empty"]["count"] == 1
    assert sorted(documents_of(corpus) + documents_of(corpus, "validation")) == sorted(TEXTS)


@pytest.mark.parametrize("tokenizer", ["byte", "char", "sentencepiece:420"])
def test_repair_makes_what_is_damaged_again(tokenizer, lines, tmp_path, flip, capsys):
    prepare_text(options(tmp_path, lines, tokenizer=tokenizer, shard_bytes=10_000))
    folder, whole = tmp_path / "out", content(tmp_path / "out")
    tokens = [name for name in whole if name.endswith(".tokens")]
    shutil.rmtree(folder / "tokenizer")
    flip(folder / tokens[0], 10)
    (folder / tokens[1]).unlink()
    os.truncate(folder / tokens[2], 4)
    flip(folder / tokens[-1].replace(".tokens", ".index"), 3)
    prepare_text(PrepareText(output=str(folder), repair=True, workers=1))
    assert content(folder) == whole
    assert Corpus(str(folder)).tokenizer()
    assert "4 of" in capsys.readouterr().out
    prepare_text(PrepareText(output=str(folder), repair=True))
    assert "0 of" in capsys.readouterr().out


def test_repair_says_when_the_inputs_are_gone_or_changed(lines, tmp_path, flip):
    prepare_text(options(tmp_path, lines))
    folder = tmp_path / "out"
    flip(folder / "train-00000-of-00001.tokens", 10)
    repair = PrepareText(output=str(folder), repair=True)
    text = lines.read_text()
    lines.write_text(text.replace("fox", "cat"))
    with pytest.raises(UserError, match="inputs have changed"):
        prepare_text(repair)
    lines.unlink()
    with pytest.raises(UserError, match="lines.jsonl: missing"):
        prepare_text(repair)
    lines.write_text(text)
    prepare_text(repair)
    with pytest.raises(UserError, match=r"manifest\.json: missing"):
        prepare_text(PrepareText(output=str(tmp_path / "nothing"), repair=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": 1.1},
        {"validation": float("nan")},
        {"validation": -0.1},
        {"split": "half"},
        {"workers": -1},
        {"shard_bytes": 0},
        {"max_damaged": -1},
        {"tokenizer": "sentencepiece"},
        {"tokenizer": "sentencepiece:many"},
        {"tokenizer": "sentencepiece:3"},
        {"tokenizer": "sentencepiece:²"},
        {"tokenizer": "sentencepiece:1000000"},
        {"tokenizer": "nowhere.model"},
        {"input": ()},
    ],
)
def test_mistakes_are_named(changes, lines, tmp_path):
    with pytest.raises(UserError) as error:
        prepare_text(options(tmp_path, lines, **changes))
    assert str(error.value).count("\n") == 1


def test_what_the_system_refuses_is_told_in_a_line(lines, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"lines\.jsonl.*(File exists|Not a directory)"):
        prepare_text(options(tmp_path, lines, output="lines.jsonl"))

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "close", full)
        with pytest.raises(UserError, match="No space left"):
            prepare_text(options(tmp_path, lines))
    assert prepare_text(options(tmp_path, lines)).split("train").documents > 90


def test_a_corpus_without_training_documents_is_a_mistake(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match="no document is left for training"):
        prepare_text(options(tmp_path, tmp_path / "a.txt"))


def fail(number, report):
    report(1)
    if number == 3:
        raise UserError("task 3 failed.", "Mend it.")
    for _ in range(2000):
        time.sleep(0.01)
        report(1)


def test_a_failed_task_ends_the_others(lines):
    start = time.monotonic()
    with pytest.raises(UserError, match="task 3 failed"):
        list(pool.run_tasks(fail, [(i,) for i in (3, 1, 2, 4)], 2, "working", 100))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("split", ["hash", "tail"])
def test_all_of_it_can_be_held_out(split, lines, tmp_path):
    corpus = prepare_text(options(tmp_path, lines, validation=1.0, split=split))
    assert documents_of(corpus, "validation") == TEXTS
    assert not corpus.targets("train")
    with pytest.raises(UserError, match="no documents in the split 'train'"):
        corpus.split("train")


def test_a_preparation_without_a_finished_task_gives_way(tmp_path):
    """What the message advises, another field or a mended line, must not be refused because of the attempt that failed."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "one"}\n{"content": "two}\n')
    with pytest.raises(UserError, match="no text in the field 'text'"):
        prepare_text(options(tmp_path, path, validation=0))
    with pytest.raises(UserError, match="a.jsonl:2: invalid JSON"):
        prepare_text(options(tmp_path, path, validation=0, text_field="content"))
    path.write_text('{"content": "one"}\n{"content": "two"}\n')
    assert documents_of(prepare_text(options(tmp_path, path, validation=0, text_field="content"))) == ["one", "two"]


def test_other_inputs_are_named_before_options_that_follow_from_them(lines, tmp_path):
    """One document is split at its tail, several by hash: that a file was added is the cause, the split its effect."""
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(TEXTS[0]), other.write_text(TEXTS[1])
    prepare_text(options(tmp_path, one))
    with pytest.raises(UserError, match=r"other inputs \(.*other.txt was added"):
        prepare_text(options(tmp_path, one, other))


@pytest.mark.parametrize("name", ["prepare.json", ".prepare/00000.json"])
@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff\xfe", b'{"format": 1, "opt'])
def test_a_damaged_journal_is_named(name, damage, lines, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UserError("stopped")

    monkeypatch.setattr("data.text.prepare._manifest", fail)
    with pytest.raises(UserError, match="stopped"):
        prepare_text(options(tmp_path, lines))
    (tmp_path / "out" / name).write_bytes(damage)
    with pytest.raises(UserError, match=rf"{name}: damaged \(.*\nPrepare it again with --overwrite"):
        prepare_text(options(tmp_path, lines))


def test_what_a_tokenizer_does_not_know_is_counted(tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("a b c a d\n")
    corpus = prepare_text(options(tmp_path, tmp_path / "a.txt", tokenizer=str(tmp_path / "tokenizer.json"), validation=0))
    assert corpus.manifest["unknown"] == 2
    assert "unknown to the tokenizer: 2 tokens (40.00%)" in capsys.readouterr().out


def test_characters_without_an_id_are_counted(tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, [])).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("abxxxa")
    corpus = prepare_text(options(tmp_path, tmp_path / "a.txt", tokenizer=str(tmp_path / "tokenizer.json"), validation=0))
    assert corpus.manifest["unknown"] == 3
    assert "unknown to the tokenizer: 3 tokens" in capsys.readouterr().out


def test_a_repair_takes_no_other_options(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    done = options(tmp_path, tmp_path / "a.txt", validation=0)
    prepare_text(done)
    changes = {"input": ("a.txt",), "validation": 0.5, "tokenizer": "char", "split": "tail", "text_field": "x", "shard_bytes": 5}
    for name, value in {**changes, "overwrite": True, "max_damaged": 1}.items():
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} would have no effect.*\nLeave"):
            prepare_text(PrepareText(output=done.output, repair=True, **{name: value}))


def test_what_is_wrong_with_a_corpus_names_its_remedy(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    done = options(tmp_path, tmp_path / "a.txt", validation=0)
    corpus = prepare_text(done)
    header = os.path.join(done.output, "tokenizer", "tokenizer.json")
    for damage in (b"{", None):
        storage.write_atomically(header, damage) if damage else os.remove(header)
        with pytest.raises(UserError, match=f"\nRun `omnia prepare text --output {done.output} --repair`"):
            corpus.tokenizer()
    prepare_text(PrepareText(output=done.output, repair=True))
    assert corpus.tokenizer().kind == "byte"
    run = tmp_path / "run"
    (run / "tokenizer").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "tokenizer" / "tokenizer.json").write_text("{")
    for path in (run, run / "tokenizer"):
        with pytest.raises(UserError, match="\nBring the folder .*run/tokenizer back"):
            load_tokenizer(path)
    manifest = os.path.join(done.output, "manifest.json")
    for content, said in (('{"kind": "media"}', "holds media, not text.*\nPrepare text with"), ("{}", "damaged .*\n.*--overwrite")):
        with open(manifest, "w") as file:
            file.write(content)
        for opened in (lambda: Corpus(done.output), lambda: prepare_text(PrepareText(output=done.output, repair=True))):
            with pytest.raises(UserError, match=said):
                opened()
