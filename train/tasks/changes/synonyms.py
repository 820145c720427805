"""Words in place of words: a table that the user gives, or neighbours in the embedding table of a run.

python -m train.tasks.changes.synonyms RUN texts.csv synonyms.tsv [COLUMN] writes such a table for the words of a column of a file.
Neighbours in an embedding table are used alike, which is not to mean the same: good is near bad. Look at the table before you use it.
"""

import itertools
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.errors import UserError
from data.files import storage
from data.files.text_files import read_text, split_lines
from data.records.record import Record, check_text, lacks
from data.records.rows import read_records
from data.tokenizer import Tokenizer
from train.tasks.changes.noise import split_words

Synonyms = dict[str, tuple[str, ...]]
"""What may stand in place of each word in lower case, the best first."""

NEIGHBOURS = 8
"""Of each word, at most."""
NEAR = 0.5
"""Lowest cosine of a neighbour."""
WORDS = 20_000
"""The most frequent ones, of which neighbours are looked for."""
FUNCTION_WORDS = frozenset(
    "a about above after again against all am an and any are as at be because been before being below between both but by can could did "
    "do does doing down during each few for from further had has have having he her here hers him his how i if in into is it its just "
    "me more most my no nor not of off on once only or other our out over own same she should so some such than that the their them "
    "then there these they this those through to too under until up very was we were what when where which while who whom why will with "
    "would you your".split()
)
"""Words that carry grammar, and the negations, which nothing replaces."""


def read_synonyms(path: str) -> Synonyms:
    """A table with a word on each line and, behind a tab each, what may stand in its place. UserError for what is no such table."""
    found: Synonyms = {}
    for number, line in enumerate(split_lines(read_text(path)), 1):
        word, *others = (cell.strip() for cell in line.split("\t"))
        if word and not any(others):
            raise UserError(f"{path}: line {number}: no word beside {word!r}", "Give lines of a word and its synonyms, tabs between them.")
        if word:
            found[word.lower()] = (*found.get(word.lower(), ()), *(other for other in others if other))
    if not found:
        raise UserError(f"{path}: holds no words", "Give lines of a word and its synonyms, tabs between them.")
    return found


def in_place_of(word: str, synonyms: Synonyms) -> list[str]:
    """The synonyms of a word, each written as the word is: with a capital, or all in capitals."""

    def written(other: str) -> str:
        if len(word) > 1 and word.isupper():
            return other.upper()
        return other[:1].upper() + other[1:] if word[:1].isupper() else other

    return [written(other) for other in synonyms.get(word.lower(), ())]


def frequent_words(texts: Iterable[str]) -> list[str]:
    """The most frequent words of texts, in lower case, without function words, figures and single letters."""
    seen = Counter(word.lower() for text in texts for _, word in split_words(text))
    fine = (word for word, _ in seen.most_common() if word.isalpha() and word not in FUNCTION_WORDS and (len(word) > 1 or word > "z"))
    return list(itertools.islice(fine, WORDS))


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """The words that have an id of their own, in lower case, without function words."""
    texts = (tokenizer.decode([id_]).strip() for id_ in range(tokenizer.base_size))
    able = dict.fromkeys(text for text in texts if len(text) > 2 and text.isalpha() and text.islower() and text not in FUNCTION_WORDS)
    return [word for word, ids in zip(able, tokenizer.encode_batch([*able]), strict=True) if len(ids) == 1]


def neighbours(table_VW: np.ndarray, tokenizer: Tokenizer, words: list[str]) -> Synonyms:
    """Of each word the others, and whole words of the vocabulary, that are nearest by the cosine of their vectors; a word's is the mean of
    its pieces'. Vectors are centred: what all words share tells none apart."""
    among = [*dict.fromkeys([*words, *whole_words(tokenizer)])]
    if not words:
        return {}
    vectors_NW = np.stack([table_VW[ids].mean(0) for ids in tokenizer.encode_batch(among)]).astype(np.float32)
    vectors_NW -= vectors_NW.mean(0)
    vectors_NW /= np.maximum(np.linalg.norm(vectors_NW, axis=1, keepdims=True), 1e-9)
    found: Synonyms = {}
    for first in range(0, len(words), 1024):
        chunk = words[first : first + 1024]
        cosine_MN = vectors_NW[first : first + len(chunk)] @ vectors_NW.T
        nearest_MK = np.argpartition(-cosine_MN, min(NEIGHBOURS, len(among) - 1))[:, : NEIGHBOURS + 1]
        for row, word in enumerate(chunk):
            places = nearest_MK[row][np.argsort(-cosine_MN[row, nearest_MK[row]], kind="stable")]
            near = [among[place] for place in places if cosine_MN[row, place] >= NEAR and among[place] != word]
            if near:
                found[word] = tuple(near[:NEIGHBOURS])
    return found


def embedding_table(run, params) -> np.ndarray:
    """float32 [V, W] of a run's parameters; UserError where it has none."""
    if "embedding" not in params:
        raise UserError(f"{run.path}: has no embedding table whose neighbours could be synonyms", "Give a table: --synonyms FILE.")
    return np.asarray(params["embedding"]["table"], np.float32)


def write_neighbours(run_dir: str, file: str, output: str, name: str = "text") -> str:
    """Writes a table for the words of a column of a file; returns a line that says so."""
    from train.checkpoints.checkpointer import load_parameters
    from train.runs.directory import open_run

    run = open_run(run_dir)
    params, _ = load_parameters(run)
    words = frequent_words(_text(record, name) for record in read_records(file))
    found = neighbours(embedding_table(run, params), run.tokenizer(), words)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomically(output, "".join("\t".join((word, *others)) + "\n" for word, others in found.items()).encode())
    return f"{output}: neighbours of {len(found)} of {len(words)} words"


def _text(record: Record, name: str) -> str:
    if name not in record:
        raise lacks(record, name)
    return check_text(record[name], f"{record.where}: {name}")


def main(arguments: list[str]) -> int:
    if len(arguments) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(write_neighbours(*arguments))
    except (UserError, OSError) as error:
        print(f"omnia: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
