"""A corpus that is anonymised while it is prepared is that of files anonymised before, whoever does the work and however often."""

import json

import numpy as np
import pytest

from data.anonymize import documents
from data.anonymize.files import anonymize
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError
from data.readers import stream
from data.text.prepare import PrepareText, prepare_text

SECRET = b"a secret of 32 bytes in all ...."
KEY = Key(SECRET)


def text_of(number: int) -> str:
    rng = np.random.default_rng(number)
    phones = [f"1{rng.integers(3, 9)}{rng.integers(10**8, 10**9)}" for _ in range(6)]
    return "".join(f"{number} 电话{phone}，mail Z{phone[:4]}Q@example.cn\nfine " * int(rng.integers(0, 3)) for phone in phones) or "plain"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "key").write_bytes(SECRET)
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text_of(n)}) + "\n" for n in range(60)))
    (folder / "b.txt").write_text("\n".join(text_of(n) for n in range(100, 140)))
    (folder / "c.txt").write_text("nothing of anybody")
    return folder


def prepared(tmp_path, source, output, **changes):
    options = {
        "input": (str(source),),
        "output": str(tmp_path / output),
        "workers": 1,
        "shard_bytes": 2000,
        "anonymize": str(tmp_path / "key"),
    }
    return prepare_text(PrepareText(**options | changes))


def documents_of(corpus) -> dict[str, list[str]]:
    tokenizer = corpus.tokenizer()
    return {
        name: [tokenizer.decode(corpus.split(name).read(n)) for n in range(corpus.split(name).documents)]
        for name in ("train", "validation")
    }


@pytest.mark.parametrize("long", [False, True])
def test_documents_are_those_of_anonymised_files(source, tmp_path, monkeypatch, long):
    """Whole or by chunks, split included; nothing of a person is left in the vocabulary either."""
    if long:
        monkeypatch.setattr(documents, "SHORT", 10)
        monkeypatch.setattr(stream, "CHUNK_BYTES", 64)
    anonymize(str(source), str(tmp_path / "clean"), Anonymizer(KEY))
    (tmp_path / "clean" / "review.jsonl").unlink()
    (tmp_path / "clean" / "anonymization.json").unlink()
    own = prepared(tmp_path, source, "own", tokenizer="char")
    other = prepared(tmp_path, tmp_path / "clean", "other", tokenizer="char", anonymize="")
    assert documents_of(own) == documents_of(other)
    assert sum(map(len, documents_of(own).values())) == 62
    everything = "".join(sum(documents_of(own).values(), []))
    assert "@" not in everything and "@" not in (tmp_path / "own" / "tokenizer" / "tokenizer.json").read_text()
    found = own.manifest["anonymized"]
    assert found["key"] == KEY.fingerprint and found["replaced"].keys() == {"EMAIL", "PHONE"}
    assert found["replaced"]["PHONE"] == everything.count("[PHONE:") and "anonymized" not in other.manifest
    written = b"".join(path.read_bytes() for path in (tmp_path / "own").rglob("*") if path.is_file())
    assert SECRET not in written


def test_neither_workers_nor_a_repair_change_it(source, tmp_path, flip):
    one, two = prepared(tmp_path, source, "one"), prepared(tmp_path, source, "two", workers=2)
    assert one.manifest == two.manifest
    name = one.manifest["splits"]["train"]["shards"][0]["file"]
    damaged = tmp_path / "one" / f"{name}.tokens"
    whole = damaged.read_bytes()
    flip(damaged, 10)
    (tmp_path / "wrong").write_bytes(b"another secret of 32 bytes .....")
    for options, said in (({}, "with the same key alone"), ({"anonymize": str(tmp_path / "wrong")}, "is not the key of")):
        with pytest.raises(UserError, match=said):
            prepare_text(PrepareText(output=str(tmp_path / "one"), repair=True, workers=1, **options))
    prepare_text(PrepareText(output=str(tmp_path / "one"), repair=True, workers=1, anonymize=str(tmp_path / "key")))
    assert damaged.read_bytes() == whole
    prepare_text(PrepareText(output=str(tmp_path / "one"), repair=True, workers=1))  # nothing to be made again
    with pytest.raises(UserError, match="overwrite"):
        prepared(tmp_path, source, "one", anonymize=str(tmp_path / "wrong"))
    prepared(tmp_path, source, "plain", anonymize="")
    with pytest.raises(UserError, match="was not anonymised"):
        prepare_text(PrepareText(output=str(tmp_path / "plain"), repair=True, workers=1, anonymize=str(tmp_path / "key")))
    with pytest.raises(UserError, match="--anonymize .*none: no such file"):
        prepared(tmp_path, source, "new", anonymize=str(tmp_path / "none"))
