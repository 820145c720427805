"""Prompts, conversations and responses as token ids."""

from collections.abc import Iterable

import numpy as np

from data.errors import UserError
from data.tokenizer import Tokenizer
from train.rl.environments.environment import Prompt, Reply
from train.sources.records import ROLES


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    """The ids that a response to the prompt follows: those of a document's start, then the text, or the turns of a conversation."""
    start, end = tokenizer.document_start, tokenizer.specials["document_end"]
    if not prompt.messages:
        return [start, *tokenizer.encode(prompt.text).tolist()]
    ids = []
    for role, text in prompt.messages:
        ids += [tokenizer.specials[ROLES[role]], *tokenizer.encode(text).tolist(), end]
    return [start, *ids, tokenizer.specials[ROLES["assistant"]]]


def encode_reply(reply: Reply, ended: bool, tokenizer: Tokenizer) -> list[int]:
    """The ids between two turns of the policy: the end of the first, if it did not sample that itself, what was said to it, and its
    role."""
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
    sampled = zip(prompts, np.asarray(responses), np.asarray(mask), strict=True)
    return [read_on(tokenizer, prompt, ids[: int(kept.sum())].tolist()) for prompt, ids, kept in sampled]


def read_on(tokenizer: Tokenizer, before: list[int], ids: list[int]) -> str:
    """The text of ids, as it reads after others, without a stop token at the end."""
    ids = ids[:-1] if ids and ids[-1] == tokenizer.specials["document_end"] else ids
    return tokenizer.decode(before + ids)[len(tokenizer.decode(before)) :]


def check_texts(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> None:
    """UserError for the first of texts, each behind what an error calls it, that a tokenizer cannot encode."""
    texts = list(texts)
    try:
        tokenizer.encode("".join(sorted(set().union(*(text for _, text in texts)))))  # a few thousand characters, however many texts
    except UserError:
        for name, text in texts:
            try:
                tokenizer.encode(text)
            except UserError as error:
                what = str(error).partition("\n")[0]
                raise UserError(f"{name}: {what}", "Leave that out, or start from a run whose tokenizer has it.") from None
