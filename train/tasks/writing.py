"""What models without a head answer: the likelihood of each choice, or a text that they write."""

import zlib
from typing import Any

import numpy as np

from model.decoding.sampling import Sampling
from train.evaluation.likelihood import Likelihoods, Request
from train.generation.chat import Chat
from train.generation.text import Completion, TextGenerator
from train.tasks.examples import NO, YES

AT_ONCE = 32
"""Texts that are written together."""


def answers_of(dataset: Any, model: Any, params, mesh, examples: list) -> list[Any]:
    """For each example the probabilities of its choices, float32 [choices], or of each of several statements; where any text may be right,
    the text that the model writes."""
    choices = [dataset.choices(example) for example in examples]
    if choices and choices[0]:
        return _probabilities(dataset, Likelihoods(model, params, mesh), examples, choices)
    if examples and (each := len(dataset.statements(examples[0]))):
        asked = [one for example in examples for one in dataset.statements(example)]
        both = _probabilities(dataset, Likelihoods(model, params, mesh), asked, [(YES, NO)] * len(asked))
        return list(np.array(both)[:, 0].reshape(-1, each))
    written = completions_of(dataset, generator_of(dataset, model, params), examples)
    return [one[0].text if dataset.drawn == 1 else [sample.text for sample in one] for one in written]


def completions_of(dataset: Any, generator: TextGenerator, examples: list) -> list[list[Completion]]:
    """The texts that a generator writes for each example, `dataset.drawn` of them, with the probabilities of their tokens."""
    prompts = prompts_of(dataset, examples)
    samples = dataset.drawn
    sampling = Sampling(temperature=dataset.options.temperature if samples > 1 else 0.0)
    found: list[list[Completion]] = [[] for _ in examples]
    order = sorted(range(len(examples)), key=lambda number: -len(prompts[number]))
    order = [number for number in order for _ in range(samples)]
    how = {"tokens": dataset.options.written, "sampling": sampling, "stop": dataset.stops, "stop_in_space": False}
    # By the prompt and the sample's number alone: whatever else is asked changes nothing.
    draws = [
        (dataset.experiment.seed, zlib.crc32(np.array([place % samples, *prompts[number]], np.int64).tobytes()))
        for place, number in enumerate(order)
    ]
    for first in range(0, len(order), AT_ONCE):
        chosen = order[first : first + AT_ONCE]
        written = generator.generate([prompts[number] for number in chosen], draws=draws[first : first + AT_ONCE], **how)
        for number, completion in zip(chosen, written, strict=True):
            found[number].append(completion)
    return found


def generator_of(dataset: Any, model: Any, params) -> TextGenerator:
    """What writes the answers of a dataset whose `tokens` are set."""
    tokenizer, chat = dataset.tokens, getattr(dataset, "chat", Chat())
    return TextGenerator(model, params, tokenizer, tokenizer.specials["document_end"], chat)


def prompts_of(dataset: Any, examples: list) -> list[list[int]]:
    """Ids that a generator is given for examples."""
    room = dataset.options.length - (0 if dataset.way == "source" else dataset.options.written)
    prompts = [dataset.prompt_ids(example, room).tolist() for example in examples]
    return [prompt[:-1] for prompt in prompts] if dataset.way == "source" else prompts  # the generator ends what is read by itself


def _probabilities(dataset, likelihoods: Likelihoods, examples: list, choices: list[tuple[str, ...]]) -> list[np.ndarray]:
    """By Bayes with equal priors: each choice in proportion to the likelihood of writing it, and ending there, after the prompt."""
    requests = []
    for example, texts in zip(examples, choices, strict=True):
        answers = [dataset.answer_ids(text) for text in texts]
        prompt = dataset.prompt_ids(example, dataset.options.length - max(map(len, answers)))
        requests += [Request(prompt.tolist(), answer.tolist()) for answer in answers]
    scores = np.array([score for score, _ in likelihoods(requests)], np.float64)
    found, begin = [], 0
    for texts in choices:
        own = scores[begin : begin + len(texts)]
        begin += len(texts)
        likely = np.exp(own - own.max())
        found.append((likely / likely.sum()).astype(np.float32))
    return found
