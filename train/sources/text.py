"""Packed rows of prepared text."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from data.errors import UserError
from data.rows.order import row_numbers
from data.text.batches import Batches, damage_error
from data.text.lanes import LaneBatches
from data.text.rows import Segments, TextBatch, empty_batch, fill
from data.text.shards import Corpus
from data.text.words import Words, read_lexicon
from data.tokenizer import Tokenizer
from train.experiment import Experiment, TextData
from train.kinds import Dataset, Sample, Units


class TextDataset(Dataset):
    """Folders that `omnia prepare text` made."""

    options: TextData
    experiment: Experiment
    takes = frozenset({"split", "batch_size", "int8"})
    evaluates_all = True

    def open(self, tokenizer: Tokenizer | None = None) -> list[Corpus]:
        return [Corpus(path) for path in self.options.shards]

    def describe(self, source: Corpus) -> str:
        return ", ".join(f"{name} {split['tokens']:,} tokens" for name, split in source.manifest["splits"].items())

    def batches(self, sources: list[Corpus], split: str = "train") -> Batches | LaneBatches:
        data = self.options
        if split != "train":
            return self.in_order(sources, split)
        for corpus in sources:
            if not corpus.targets("train"):
                raise UserError(f"{corpus.path}: holds no token to learn in its training split", "Prepare more text, or leave it out.")
        batches = Batches(
            sources,
            weights=data.weights,
            split="train",
            context_length=self.experiment.model.context_length,
            seed=self.experiment.seed,
            max_damaged=data.max_damaged,
            fim_rate=data.fim_rate,
            words=self._words(sources),
        )
        if batches.ids > self.experiment.model.vocab_size:
            raise UserError(
                f"data.fim_rate needs the token id {batches.ids - 1}, but model.vocab_size is {self.experiment.model.vocab_size}",
                "Set --model.vocab-size 0, which takes the tokenizer's, or --data.fim-rate 0.",
            )
        return batches

    def units(self, sources: list[Corpus], user: str = "", rows: int = 1) -> Units:
        """Documents, of each of which a row has one piece, as long as the context, that begins anywhere."""
        if user:
            raise UserError(f"gradient.user {user!r}: prepared text does not say whose it is", "Leave it out: a unit is then a document.")
        for name in ("fim_rate", "weights"):
            if getattr(self.options, name):
                raise UserError(f"data.{name} mixes documents, and here each is drawn by itself", f"Leave --data.{name} out.")
        length, splits = self.experiment.model.context_length, [corpus.split("train") for corpus in sources]
        ends = np.cumsum([len(split.lengths) for split in splits])
        words, damaged = self._words(sources), set[tuple[int, int]]()

        def make(numbers: np.ndarray, coins: np.ndarray) -> TextBatch:
            batch = empty_batch(row_numbers(coins), length)
            for number, (corpus, split) in enumerate(zip(sources, splits, strict=True)):
                chosen = np.flatnonzero((numbers >= 0) & (np.searchsorted(ends, numbers, "right") == number))
                document = numbers[chosen] - (ends[number] - len(split.lengths))
                whole = split.lengths[document]
                places = np.maximum(whole - length, 0) + 1
                starts = (coins[chosen] % places.astype(np.uint64)).astype(np.int64)
                segments = Segments(np.arange(len(chosen)), document, starts, np.minimum(whole, length))
                bad = fill(batch, chosen, segments, split, corpus.document_start) if chosen.size else np.zeros(0, bool)
                damaged.update((number, int(one)) for one in document[bad])
                if len(damaged) > self.options.max_damaged:
                    raise damage_error(corpus, split, int(document[bad][0]), len(damaged))
            return batch._replace(words=words(batch)) if words else batch

        return Units("document", int(ends[-1]), make)

    def empty(self, count: int) -> TextBatch:
        batch = empty_batch(np.arange(count), self.experiment.model.context_length)
        return batch._replace(words=np.zeros_like(batch.tokens)) if self.options.words else batch

    def check(self, sources: list) -> None:
        check_samples(self.experiment, sources)

    def can_validate(self, sources: list[Corpus]) -> bool:
        return any(corpus.targets("validation") for corpus in sources)

    def evaluate(
        self,
        evaluator,
        params,
        sources: list[Corpus],
        *,
        split: str = "validation",
        rows: int = 0,
        between: Callable[[], None] = lambda: None,
    ) -> dict:
        """Means over the split, every token predicted once; empty when no corpus has a token to predict in it.

        rows: of each corpus, from its start; 0 takes all. Returns {"loss": nats per token, "bits_per_byte", "perplexity", "tokens", ...};
        bits per byte count the raw UTF-8 bytes of the split, in proportion when only some rows are used. With several corpora, also
        "sources", the names of all, and "loss/<i>" of each that has the split, i being its place among them.
        """
        totals: dict[str, np.ndarray] = {}
        expected_bytes, losses = 0.0, {}
        for number, corpus in enumerate(sources):
            if not corpus.targets(split):
                continue
            batches = self.in_order([corpus], split)
            count = min(rows or batches.rows_per_epoch, batches.rows_per_epoch)
            own = evaluator.totals(params, batches.batch, count, between=between)
            expected_bytes += batches.raw_bytes * own["loss"][1] / batches.targets
            if own["loss"][1]:
                losses[number] = own["loss"][0] / own["loss"][1]
            totals = {name: totals.get(name, np.zeros(2)) + value for name, value in own.items()}
        result: dict[str, Any] = evaluator.result(totals)
        if not result:
            return {}
        nats, tokens = totals["loss"]
        if self.experiment.objective.generates:  # and so predicts every token
            result |= {
                "bits_per_byte": float(nats / math.log(2) / max(expected_bytes, 1e-8)),
                "perplexity": math.exp(min(result["loss"], 700.0)),
            }
        result |= {"tokens": int(tokens)}
        if len(sources) > 1:
            result |= {"sources": source_names([corpus.path for corpus in sources])}
            result |= {f"loss/{number}": float(loss) for number, loss in losses.items()}
        return result

    def in_order(self, sources: list[Corpus], split: str, length: int = 0) -> Batches | LaneBatches:
        """One pass over a split, of the training split too, the same for any seed. length: of a row, 0 for the model's context."""
        length = length or self.experiment.model.context_length
        return Batches(
            sources,
            split=split,
            context_length=length,
            order="sequential",
            max_damaged=self.options.max_damaged,
            words=self._words(sources),
        )

    def _words(self, sources: list[Corpus]) -> Words | None:
        """What numbers the words of rows, where the experiment wants them numbered."""
        if not self.options.words:
            return None
        return Words(sources[0].tokenizer(), read_lexicon(self.options.lexicon) if self.options.lexicon else ())

    def samples(self, run, params, sources: list, said: Callable[[str], None]):
        return continuations(run, params)


def text_data(experiment: Experiment) -> TextData:
    """The experiment's data, which must be text."""
    if not isinstance(experiment.data, TextData):
        raise UserError(f"data: {type(experiment.data).__name__} is not text", "This needs a run whose data is TextData.")
    return experiment.data


def text_dataset(experiment: Experiment) -> TextDataset:
    return TextDataset(text_data(experiment), experiment)


def writes_text(experiment: Experiment) -> bool:
    """Whether samples are continuations of samples.prompts."""
    return experiment.objective.generates and experiment.model.generates and experiment.samples.tokens > 0


def check_samples(experiment: Experiment, sources: list) -> None:
    """UserError for a prompt of `samples` that the data's tokenizer, or the model, does not know: it would be found at the first sample."""
    if not writes_text(experiment):
        return
    tokenizer = sources[0].tokenizer()
    for prompt in experiment.samples.prompts:
        try:
            ids = tokenizer.encode(prompt)
        except UserError as error:
            raise UserError(
                f"samples.prompts: {prompt!r}: {str(error).splitlines()[0]}", "Give others with --samples.prompts, or --samples.tokens 0."
            ) from None
        if ids.size and ids.max() >= experiment.model.vocab_size:
            raise UserError(
                f"samples.prompts: {prompt!r} holds id {ids.max()}; the model has {experiment.model.vocab_size}", "Give others."
            )


def continuations(run, params) -> list[Sample]:
    """What the model writes after the run's sample prompts."""
    from model.decoding.sampling import Sampling
    from train.generation.text import make_generator

    wanted = run.experiment.samples
    prompts = [prompt for prompt in wanted.prompts if prompt or run.document_end is not None]
    if not prompts or not writes_text(run.experiment):
        return []
    sampling = Sampling(temperature=wanted.temperature)
    found = make_generator(run, params).generate(prompts, tokens=wanted.tokens, sampling=sampling, seed=run.experiment.seed)
    return [Sample(completion.prompt, completion.text) for completion in found]


def source_names(paths: list[str]) -> list[str]:
    """What a person calls each folder of shards: the last components of its path, as many as tell all of them apart."""
    components = [(path if "://" in path else os.path.abspath(path)).rstrip("/").split("/") for path in paths]
    for depth in range(1, 1 + max(map(len, components))):
        names = ["/".join(component[-depth:]) for component in components]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names)]  # one folder, named more than once
