"""A smaller run beside the one that is served, which guesses what that will draw."""

from pathlib import Path
from typing import Any

from data.errors import UserError
from model.decoding.continuing import Drafted
from model.stack import unstack_layers
from model.transformer import Decoder
from train.checkpoints.checkpointer import load_parameters
from train.generation.text import decoder_of
from train.runs.directory import open_run

GUESSES = 4
"""Tokens that a small model guesses, where nobody says how many."""


def with_draft(model: Any, folder: str, tokenizer: Any, context: int) -> tuple[Drafted, Any]:
    """(the model with the small one beside it, the small one's parameters, with its layers apart).

    UserError for models that read media or sources, for a small one of other tokens, or one whose context is shorter.
    """
    run = open_run(Path(folder))
    draft = decoder_of(run)
    if type(model) is not Decoder or type(draft) is not Decoder:
        raise UserError("--draft is for decoders of text", "Leave it out; --guesses guesses by what stands in a text.")
    own = run.tokenizer()
    if draft.config.vocab_size != model.config.vocab_size or own.pieces != tokenizer.pieces or own.specials != tokenizer.specials:
        raise UserError(f"--draft {folder}: has other tokens than the run that is served", "Train it with the same tokenizer.")
    if draft.config.context_length < context:
        raise UserError(
            f"--draft {folder}: reads {draft.config.context_length} tokens, and the run that is served {context}",
            f"Give a longer one, or --context {draft.config.context_length}.",
        )
    params, _ = load_parameters(run)
    return Drafted(model, draft), unstack_layers(params) if "layers" in params else params
