"""The two real models of `omnia import` against transformers with the same files: ids, predictions, continuations, vectors.

Skipped where a model has not been fetched (`omnia import smollm2 --run-dir DIR`) or OMNIA_DATA names no folder with the texts that
benchmarks/published.py reads, whose measurements these are, on less.
"""

import importlib.util
import os
import sys
import unicodedata
from pathlib import Path

import pytest

from data.files import storage
from train.bridge.packages import PACKAGES

pytestmark = pytest.mark.slow

PATH = Path(__file__).parents[2] / "benchmarks" / "published.py"


@pytest.fixture(scope="module")
def published():
    """The benchmark's file, which finds its peer in this environment."""
    for package in ("torch", "transformers", "gguf"):
        pytest.importorskip(package, reason=f"{package} is missing; `make parity` installs it")
    spec = importlib.util.spec_from_file_location("published_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEER", sys.executable)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def data():
    folder = os.environ.get("OMNIA_DATA")
    if not folder:
        pytest.skip("OMNIA_DATA names no folder of texts")
    return Path(folder)


@pytest.fixture(scope="module")
def smollm2(published, tmp_path_factory):
    return imported("smollm2", published, tmp_path_factory)


@pytest.fixture(scope="module")
def minilm(published, tmp_path_factory):
    return imported("minilm", published, tmp_path_factory)


def imported(name: str, published, tmp_path_factory):
    """(run, the published file or folder), where it lies in the cache already: nothing is fetched."""
    root = storage.cache_folder()
    model = Path(root or "", "models", name, PACKAGES[name].inside)
    if root is None or not model.exists():
        pytest.skip(f"{name} has not been fetched: omnia import {name} --run-dir DIR")
    return published.imported(model, tmp_path_factory.mktemp(name) / "run"), model


def test_gguf_ids_are_those_of_transformers_with_the_files_own_cut(published, data, smollm2):
    """A file's `smollm` makes every number a word. transformers leaves that out, so its ids differ, but only where there are numbers."""
    texts = published.languages(data)[::20] + published.programs(data)[::20] + published.emoji()[::20] + published.characters()[::40]
    found = published.compare_tokens(*smollm2, texts)
    assert found["differ_from_cut"] == 0, found["examples_cut"]
    plain = [text for text in texts if not any(unicodedata.category(character)[0] == "N" for character in text)]
    assert published.compare_tokens(*smollm2, plain)["differ_from_ids"] == 0


def test_word_piece_ids_are_those_of_transformers(published, data, minilm):
    texts = published.languages(data)[::20] + published.programs(data)[::20] + published.emoji()[::20] + published.characters()[::40]
    found = published.compare_tokens(*minilm, texts)
    assert found["differ_from_ids"] == 0, found["examples_ids"]


def test_every_token_of_a_text_is_as_likely_as_in_transformers(published, data, smollm2):
    windows_NT = published.windows_of(smollm2[0], published.opened(data, "wikitext2/test.txt.gz"), 128, 512)
    found = published.compare_perplexity(*smollm2, windows_NT)
    assert found["largest_difference_nats"] < 1e-3
    assert abs(found["ours"] - found["theirs"]) < 1e-3


def test_greedy_continuations_are_those_of_transformers(published, smollm2):
    found = published.compare_greedy(*smollm2, published.PROMPTS[:4], new=16)
    assert found["differ"] == []


def test_vectors_are_those_of_transformers(published, data, minilm):
    texts = [*published.lines(data, "wikitext2/test.txt.gz", 20), "", "½ emoji 😀", "word " * 300]
    assert published.compare_embeddings(*minilm, texts)["largest_difference"] < 1e-5
