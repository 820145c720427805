"""Environments and files of comparisons as the data of a run: what they hold as tokens, by the number of a row."""

import dataclasses
import functools
import gzip
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from data.errors import UserError
from data.mixture import Mixture, counts_of_sizes, counts_of_weights
from data.order import fold, permute, shuffled
from data.readers import tfds
from data.text import TextBatch, empty_batch
from data.tokenizer import Tokenizer, character_tokenizer, load_tokenizer
from train.experiment import Experiment
from train.rl.environments import Environment, Prompt, Reply
from train.rl.experiment import Demonstrations, Preferences, Prompts, RewardModelling
from train.serialize import to_json

ROLES = {"user": "spare_0", "assistant": "spare_1", "system": "spare_2", "tool": "spare_3"}
"""The special ids that begin a turn of a conversation; it ends with that of a document's end."""
SAMPLE = 256
"""Rows that padding is reckoned from."""


class Examples:
    """One environment, or one file of comparisons, as a run sees it: what a Corpus is to text.

    Attributes: path, its files or its name; digest, of what it is made of; document_end; ids, one more than the largest it can hold.
    """

    def __init__(self, source: Environment | str, tokenizer: Tokenizer):
        self.source, self._tokenizer = source, tokenizer
        files = (source,) if isinstance(source, str) else source.files
        self.path = ", ".join(files) or type(source).__name__
        what = "" if isinstance(source, str) else json.dumps(to_json(dataclasses.replace(source)), sort_keys=True)
        digest = xxhash.xxh3_128(what.encode() if not files else b"")
        for file in files:
            digest.update(read_bytes(file))
        self.digest = digest.hexdigest()
        self.document_end = tokenizer.specials["document_end"]
        self.ids = tokenizer.size

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer


def open_examples(experiment: Experiment, tokenizer: Tokenizer | None = None) -> list[Examples]:
    """The sources that an experiment names, with the tokenizer given, that of the run it starts from, or one of their own characters."""
    data = experiment.data
    assert isinstance(data, Prompts | Demonstrations | Preferences)
    if tokenizer is not None:
        pass
    elif experiment.start:
        tokenizer = load_tokenizer(experiment.start)
    elif isinstance(data, Preferences):
        raise UserError("comparisons need a run whose tokenizer and weights they start from", "Give one: --start RUN_DIR.")
    else:
        tokenizer = character_tokenizer("".join(environment.alphabet for environment in data.environments))
    return [Examples(source, tokenizer) for source in (data.files if isinstance(data, Preferences) else data.environments)]


# ------------------------------------------------------------------------------------------------------------------- tokens


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """The ids that a response to the prompt follows: those of a document's start, then the text, or the turns of a conversation."""
    end = tokenizer.specials["document_end"]
    if not prompt.messages:
        return [end, *tokenizer.encode(prompt.text).tolist()]
    ids = []
    for role, text in prompt.messages:
        ids += [tokenizer.specials[ROLES[role]], *tokenizer.encode(text).tolist(), end]
    return [end, *ids, tokenizer.specials[ROLES["assistant"]]]


def encode_reply(reply: Reply, ended: bool, tokenizer: Tokenizer) -> list[int]:
    """The ids between two turns of the policy: the end of the first, if it did not draw that itself, what was said to it, and its role."""
    end = tokenizer.specials["document_end"]
    text = tokenizer.encode(reply.text).tolist()
    return [*([] if ended else [end]), tokenizer.specials[ROLES[reply.role]], *text, end, tokenizer.specials[ROLES["assistant"]]]


def encode_demonstration(prompt: Prompt, response: str, tokenizer: Tokenizer, learn_prompt: bool) -> tuple[list[int], list[int]]:
    """Ids of prompt and response with the end of the document, and 1 for those that are learned: responses with their ends, all turns of
    the assistant; with learn_prompt everything but the first id, which nothing precedes."""
    end = tokenizer.specials["document_end"]
    ids = encode_prompt(prompt, tokenizer)
    learned = [0] * len(ids)
    place = 1
    for role, text in prompt.messages:
        length = len(tokenizer.encode(text)) + 2  # with its role and its end
        if role == "assistant":
            learned[place + 1 : place + length] = [1] * (length - 1)
        place += length
    if learn_prompt:
        learned = [0] + [1] * (len(ids) - 1)
    answer = [*tokenizer.encode(response).tolist(), end]
    return ids + answer, learned + [1] * len(answer)


def decode_responses(tokenizer: Tokenizer, prompts: list[list[int]], responses, mask) -> list[str]:
    """The texts of responses int32 [B, R] up to their masks' ends, as `read_on` gives them."""
    drawn = zip(prompts, np.asarray(responses), np.asarray(mask), strict=True)
    return [read_on(tokenizer, prompt, ids[: int(kept.sum())].tolist()) for prompt, ids, kept in drawn]


def read_on(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """The text of ids, as it reads after others, without a stop token at the end."""
    ids = ids[:-1] if ids and ids[-1] == tokenizer.specials["document_end"] else ids
    return tokenizer.decode(before + ids)[len(tokenizer.decode(before)) :]


# --------------------------------------------------------------------------------------------------------------------- rows


class Comparisons(NamedTuple):
    """B prompts with K responses each. tokens, targets, segments, positions int32 [B, K, T]; weights float32 [B, K, T], 1 on the tokens of
    responses; best int32 [B]; present float32 [B, K], 0 where there are fewer responses; scores float32 [B, K], NaN where the file has
    none; counts float32 [B], 0 on rows of padding; rows int32 [B]."""

    tokens: Any
    targets: Any
    segments: Any
    positions: Any
    weights: Any
    best: Any
    present: Any
    scores: Any
    counts: Any
    rows: Any


class ExampleBatches:
    """Rows of demonstrations or comparisons, one a row, padded at the end: a pure function of (seed, row).

    split: `train` is an endless stream, `validation` the first rows of what is kept from it. An example longer than the context is left
    out: its row has weight 0, and it counts as damaged.
    """

    def __init__(self, experiment: Experiment, sources: list[Examples], split: str):
        self.length, self.seed, self.split = experiment.model.context_length, experiment.seed, split
        data = experiment.data
        assert isinstance(data, Demonstrations | Preferences)
        self.data, self.sources = data, sources
        self.damaged: set[int] = set()
        self.damage = f"examples of more than {self.length} tokens"
        self._tokenizer, self._end = sources[0].tokenizer(), sources[0].document_end
        if isinstance(self.data, Preferences):
            self.length -= 1  # a reward model reads the last token too
            self._tables = [read_comparisons(source.path) for source in sources]
            scored = isinstance(experiment.objective, RewardModelling) and experiment.objective.loss == "score"
            for source, table in zip(sources, self._tables, strict=True):
                if scored and not all(math.isfinite(score) for row in table for score in row["scores"]):
                    raise UserError(
                        f"{source.path}: objective.loss is score, and some responses have none", 'Give "scores" in every record.'
                    )
            self._responses = max(len(row["responses"]) for table in self._tables for row in table)
            held = [max(1, min(self.data.validation, len(table) // 4)) for table in self._tables]
            self._spans = {
                "train": [(count, len(table) - count) for count, table in zip(held, self._tables, strict=True)],
                "validation": [(0, count) for count in held],
            }[split]
            if min(size for _, size in self._spans) < 1:
                raise UserError(f"{sources[0].path}: too few comparisons to keep some for validation", "Give at least two.")
            weights = self.data.weights
            self._mixture = Mixture(counts_of_weights(weights) if weights else counts_of_sizes(np.array([size for _, size in self._spans])))
            self.validation_rows = sum(size for _, size in self._spans)
        else:
            self._mixture = Mixture(counts_of_weights(self.data.weights or (1.0,) * len(sources)))
            self.validation_rows = self.data.validation
        self.padding_share = 1.0 - float(np.mean(self.batch(0, SAMPLE).segments != 0))
        if self.padding_share == 1.0:
            raise UserError(f"none of {SAMPLE} examples fits {self.length} tokens", "Give a longer --model.context-length.")

    def batch(self, first_row: int, count: int) -> TextBatch | Comparisons:
        """Rows [first_row, first_row + count)."""
        numbers = np.arange(first_row, first_row + count)
        return self._comparisons(numbers) if isinstance(self.data, Preferences) else self._demonstrations(numbers)

    def _demonstrations(self, numbers) -> TextBatch:
        batch = empty_batch(numbers, self.length)
        which, local = self._mixture(numbers)
        for place, (number, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            environment = self.sources[number].source
            seed = self.seed if self.split == "train" else 0
            prompt, response = environment.transcript(environment.prompt(seed, index, self.split), seed, index)
            ids, learned = encode_demonstration(
                prompt, response, self._tokenizer, isinstance(self.data, Demonstrations) and self.data.learn_prompts
            )
            if not _fill(batch, place, ids, learned):
                self.damaged.add(int(numbers[place]))
        return batch

    def _comparisons(self, numbers) -> Comparisons:
        shape = (len(numbers), self._responses, self.length)
        tokens, targets, segments, positions = (np.zeros(shape, np.int32) for _ in range(4))
        weights, best = np.zeros(shape, np.float32), np.zeros(len(numbers), np.int32)
        present, counts = np.zeros(shape[:2], np.float32), np.zeros(len(numbers), np.float32)
        scores = np.full(shape[:2], np.nan, np.float32)
        batch = Comparisons(tokens, targets, segments, positions, weights, best, present, scores, counts, numbers.astype(np.int32))
        which, local = self._mixture(numbers)
        for place, (number, index) in enumerate(zip(which.tolist(), local.tolist(), strict=True)):
            first, size = self._spans[number]
            index = index % size if self.split == "validation" else shuffled(index, size, int(fold(self.seed, number)))[1]
            row = self._tables[number][_spread(int(index) + first, len(self._tables[number]), number)]
            prompt = Prompt(row["prompt"])
            fits = True
            for k, response in enumerate(row["responses"]):
                encoded, learned = encode_demonstration(prompt, response, self._tokenizer, False)
                fits &= _fill(batch, (place, k), encoded, learned)
                present[place, k], scores[place, k] = 1, row["scores"][k]
            best[place], counts[place] = row["best"], float(fits)
            if not fits:
                self.damaged.add(int(numbers[place]))
        return batch


def _spread(index: int, size: int, number: int) -> int:
    """A place in a file, by a fixed permutation, so that validation is a fair sample of a sorted file."""
    return int(permute(np.int64(index), size, fold(1, number)))


def _fill(batch, place, ids: list[int], learned: list[int]) -> bool:
    """Write one example into a row; False, and nothing written, where it is longer than that."""
    length = len(ids) - 1
    if length > batch.tokens.shape[-1]:
        return False
    batch.tokens[place][:length], batch.targets[place][:length] = ids[:-1], ids[1:]
    batch.weights[place][:length], batch.segments[place][:length] = learned[1:], 1
    batch.positions[place][:length] = np.arange(length)
    return True


# -------------------------------------------------------------------------------------------------------------------- files


def read_bytes(path: str) -> bytes:
    """Of a file; of tfds:NAME[/CONFIG][:VERSION][@SPLIT], a prepared data set of TFDS, its examples as JSONL."""
    if path.startswith(tfds.PREFIX):
        return b"\n".join(json.dumps(record, ensure_ascii=False).encode() for record in tfds.read_records(path))
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "Give a file that can be read.") from None


@functools.lru_cache
def read_records(path: str) -> list[dict]:
    """The objects of a JSONL file, or of a JSON file that is a list of them; gzipped where its name ends in .gz."""
    content = read_bytes(path)
    try:
        text = (gzip.decompress(content) if path.endswith(".gz") else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}", "Give UTF-8 text, gzipped if its name ends in .gz.") from None
    lines = [text] if text.lstrip().startswith("[") else text.split("\n")  # not splitlines: JSON may hold U+2028 and its like
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number}: {error.msg}", "Give one JSON object a line, or a list of them.") from None
        for record in found if isinstance(found, list) else [found]:
            if not isinstance(record, dict):
                raise UserError(
                    f"{path}: line {number}: {str(record)[:40]!r} is no object", "Give one JSON object a line, or a list of them."
                )
            records.append(record)
    if not records:
        raise UserError(f"{path}: holds no records", "Give one JSON object a line.")
    return records


@functools.lru_cache
def read_comparisons(path: str) -> list[dict]:
    """Records of {"prompt", "responses", "best", "scores"}, as they are, or from {"prompt", "chosen", "rejected"}, or from pairs of whole
    texts with a common beginning ({"chosen", "rejected"}, as in Anthropic's hh-rlhf). Comparisons of equal responses are left out: they
    say nothing. Scores are NaN where a record has none."""
    found = []
    for number, record in enumerate(read_records(path), 1):
        prompt: Any = record.get("prompt")
        responses: Any = record.get("responses")
        best: Any = record.get("best", 0)
        if "chosen" in record and "rejected" in record:
            responses, best = [record["chosen"], record["rejected"]], 0
            if prompt is None and all(isinstance(text, str) for text in responses):
                shared = common_beginning(*responses)
                prompt, responses = responses[0][:shared], [text[shared:] for text in responses]
        texts = isinstance(responses, list) and all(isinstance(text, str) for text in [prompt, *responses])
        if not texts or len(responses) < 2 or not isinstance(best, int) or not 0 <= best < len(responses):
            raise UserError(
                f"{path}: record {number} is no comparison",
                'Give {"prompt", "chosen", "rejected"}, or {"prompt", "responses", "best"}, all texts but best, which counts from 0.',
            )
        scores = record.get("scores", [math.nan] * len(responses))
        if not isinstance(scores, list) or len(scores) != len(responses) or not all(isinstance(x, int | float) for x in scores):
            raise UserError(
                f"{path}: record {number}: scores {str(scores)[:40]} are not one number for each response", "Mend or drop them."
            )
        if len(set(responses)) > 1:
            found.append({"prompt": prompt, "responses": responses, "best": best, "scores": scores})
    if not found:
        raise UserError(f"{path}: all comparisons are of equal responses", "Give responses that differ.")
    return found


def common_beginning(a: str, b: str) -> int:
    """Where two texts part, moved back to the start of the line, which a turn of a conversation begins."""
    shared = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    marker = a.rfind("\n\nAssistant:", 0, shared)
    return marker + len("\n\nAssistant:") if marker >= 0 else a.rfind("\n", 0, shared) + 1
