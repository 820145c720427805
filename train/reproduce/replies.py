"""What a run's chat model replies to conversations, for tables that ask it."""

from collections.abc import Sequence

from model.decoding.sampling import Sampling
from train.checkpoints.checkpointer import load_parameters
from train.generation.chat import load_chat
from train.generation.text import make_generator
from train.runs.directory import open_run

AT_ONCE = 32
"""Replies that are written together."""


def replies(
    folder: str,
    conversations: Sequence[list[dict[str, str]]],
    *,
    tokens: int,
    temperature: float = 0.0,
    top_p: float = 0.95,
    seed: int = 0,
) -> list[str]:
    """Of each conversation, a list of {"role", "content"}, the reply, without spaces around it. tokens: at most. temperature: 0 is greedy,
    whatever top_p is."""
    run = open_run(folder)
    params, _ = load_parameters(run)
    generator, tokenizer, chat = make_generator(run, params), run.tokenizer(), load_chat(run.path)
    prompts = [chat.encode(one, tokenizer) for one in conversations]
    found = []
    for first in range(0, len(prompts), AT_ONCE):
        sampling = Sampling(temperature=temperature, top_p=top_p if temperature else 1.0)
        part = generator.generate(prompts[first : first + AT_ONCE], tokens=tokens, sampling=sampling, seed=seed + first)
        found += [completion.text.strip() for completion in part]
    return found
