"""How many names of a tagged file are replaced by patterns alone, and by patterns and a tagger.

python benchmarks/anonymize_names.py FILE RUN [KIND ...]
FILE: sentences with tags (CoNLL), which are put together as running text. RUN: of Tagging. KIND: person, place, organisation.
"""

import sys
import time
from collections import Counter

from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.records.sentences import Sentence, read_sentences
from train.tasks.names import KINDS, NameFinder
from train.tasks.words import spaces


def running(sentence: Sentence) -> tuple[str, list[tuple[int, int, str]]]:
    """The text of a sentence, without spaces where it is Chinese, and where its names stand: (start, end, type)."""
    text, found = "", []
    chinese = any("一" <= token[:1] <= "鿿" for token in sentence.tokens)
    for token, tag, space in zip(sentence.tokens, sentence.tags, spaces(sentence.tokens), strict=True):
        text += " " if space and not chinese else ""
        mark, _, kind = tag.partition("-")
        if mark == "B":
            found.append((len(text), len(text) + len(token), kind))
        elif mark == "I":
            found[-1] = (found[-1][0], len(text) + len(token), kind)
        text += token
    return text, found


def measure(sentences: list[Sentence], anonymizer: Anonymizer, wanted: list[str]) -> dict[str, float]:
    meant = {name: kind for kind in wanted for name in KINDS[kind][1]}
    kinds, whole, right, total = {KINDS[kind][0] for kind in wanted}, Counter(), 0, 0
    count: Counter[str] = Counter()
    texts, names = zip(*map(running, sentences), strict=True)
    anonymizer.look_ahead(texts)
    for text, own in zip(texts, names, strict=True):
        spans = [span for span in anonymizer.found(text) if span.kind in kinds]
        inside = {place for span in spans for place in range(span.start, span.end)}
        for start, end, kind in own:
            if kind.upper() in meant:
                count[meant[kind.upper()]] += 1
                whole[meant[kind.upper()]] += all(place in inside for place in range(start, end) if text[place].isalnum())
        total += len(spans)
        right += sum(any(span.start < end and start < span.end and kind.upper() in meant for start, end, kind in own) for span in spans)
    recall = {f"recall of {kind} ({count[kind]})": whole[kind] / max(count[kind], 1) for kind in wanted}
    return recall | {f"precision ({total})": right / max(total, 1)}


def main() -> None:
    path, run, *wanted = sys.argv[1:]
    wanted = wanted or ["person", "place"]
    sentences = read_sentences(path, left_out=Counter())
    for what, finder in (("patterns", None), ("patterns and tagger", NameFinder(run, wanted))):
        began = time.perf_counter()
        found = measure(sentences, Anonymizer(Key.drawn(), finder), wanted)
        print(f"{what}: {', '.join(f'{name} {value:.3f}' for name, value in found.items())}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
