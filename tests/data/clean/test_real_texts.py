"""Near copies and languages of real texts, against all pairs and what they are. OMNIA_DATA names the folder with the public data."""

import csv
import gzip
import itertools
import json
import os
from pathlib import Path

import pytest

from data.clean.language import languages_of
from data.clean.minhash import SHINGLE
from data.clean.prepare import PrepareClean, prepare_clean
from data.clean.units import folded, units_of

SHOPPING, HOTEL = "zh_online_shopping/online_shopping_10_cats.csv.gz", "zh_chnsenticorp_hotel/ChnSentiCorp_htl_all.csv.gz"


def reviews(name):
    path = Path(os.environ.get("OMNIA_DATA", "nowhere")) / name
    if not path.exists():
        pytest.skip("OMNIA_DATA names no folder with Chinese reviews")
    with gzip.open(path, "rt", newline="") as file:
        return [row["review"] for row in csv.DictReader(file)]


def clean(folder, texts, **changes):
    folder.mkdir(exist_ok=True)
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    manifest = prepare_clean(PrepareClean(str(folder / "out"), (str(path),), gopher=False, workers=1, **changes))
    removed = [json.loads(line) for line in (folder / "out" / "removed.jsonl").read_text().splitlines()]
    return manifest, {int(one["name"].rpartition(":")[2]) - 1: one for one in removed}


def pieces(text):
    """The shingles by the definition, of a text that is Chinese alone: letters of Latin words stay together."""
    units, word = [], ""
    for one in folded(text) + " ":
        if one.isalnum() and ord(one) < 0x3000:
            word += one
            continue
        units += [word] * bool(word) + [one] * one.isalnum()
        word = ""
    return {tuple(units[at : at + SHINGLE]) for at in range(max(len(units) - SHINGLE + 1, 1))} if units else set()


def test_near_copies_among_real_reviews_are_those_of_all_pairs(tmp_path):
    """300 hotel reviews of the shopping set and those of the hotel set that share their first eight characters, or none."""
    beginnings: dict[str, list[str]] = {}
    for text in reviews(HOTEL):
        beginnings.setdefault(text.strip()[:8], []).append(text)
    chosen = [text for text in reviews(SHOPPING)[-300:] if text]
    texts = [*itertools.chain.from_iterable(beginnings.get(text.strip()[:8], []) for text in chosen), *chosen]
    sets, label = [pieces(text) for text in texts], list(range(len(texts)))
    for one, other in itertools.combinations(range(len(texts)), 2):
        if sets[one] and len(sets[one] & sets[other]) >= 0.8 * len(sets[one] | sets[other]) and label[one] != label[other]:
            low, high = sorted((label[one], label[other]))
            label = [low if now == high else now for now in label]
    expected = {place for place, first in enumerate(label) if first != place}
    _, removed = clean(tmp_path, texts)
    assert len(expected) > 50
    assert len(removed.keys() ^ expected) <= 0.02 * len(expected)  # pairs near the threshold are missed once in twenty times
    assert removed.keys() <= expected


def test_equal_reviews_are_counted_as_by_hand(tmp_path):
    texts = [text for text in reviews(SHOPPING) if text]
    manifest, removed = clean(tmp_path, texts, near_duplicates=0)
    plain = [" ".join(folded(text).split()) for text in texts]
    assert len(texts) - len(set(texts)) <= manifest["removed"]["exact_duplicate"] <= len(texts) - len(set(plain))
    assert all(
        folded(texts[place]).split() == folded(texts[int(one["copy_of"].rpartition(":")[2]) - 1]).split() for place, one in removed.items()
    )


@pytest.mark.parametrize("code", ["ar", "de", "en", "es", "ru", "zh"])
def test_real_paragraphs_and_questions_are_in_their_language(code):
    path = Path(os.environ.get("OMNIA_DATA", "nowhere")) / f"xquad/xquad.{code}.articles_00-37.json.gz"
    if not path.exists():
        pytest.skip("OMNIA_DATA names no folder with XQuAD")
    articles = json.loads(gzip.decompress(path.read_bytes()))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    for texts, least in (
        ([paragraph["context"] for paragraph in paragraphs], 0.99),
        ([question["question"] for paragraph in paragraphs for question in paragraph["qas"]], 0.975),
    ):
        guesses = languages_of(units_of(texts))
        assert sum(guess.language == code for guess in guesses) >= least * len(texts)
