"""What objectives on text ask of a model, and say of a batch."""

import jax.numpy as jnp

from data.errors import UserError
from model.media.multimodal_config import MultimodalConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.objectives.terms import Mean


def tokens_of(batch) -> Mean:
    """The metric that counts the tokens that a step reads, where its loss counts fewer."""
    seen = (batch.segments != 0).sum().astype(jnp.float32)
    return Mean(seen, seen)


def check_encoder(options, experiment: Experiment) -> None:
    """UserError unless the model is an encoder of text that this objective can train."""
    name, config = type(options).__name__, experiment.model
    if not isinstance(config, TextEncoderConfig):
        raise UserError(f"objective {name} trains an encoder of text; the model is a {type(config).__name__}", "Use a TextEncoderConfig.")
    if config.experts:
        raise UserError(f"objective {name} balances no experts; model.experts is {config.experts}", "Set --model.experts 0.")
    if not config.prediction_head and hasattr(options, "mask"):
        raise UserError(f"objective {name} predicts tokens; model.prediction_head is off", "Set --model.prediction-head.")
    if not config.pooler and (not hasattr(options, "mask") or getattr(options, "sentence_pairs", False)):
        raise UserError(f"objective {name} judges pairs by the pooler; model.pooler is off", "Set --model.pooler.")
    check_ids(options, config, "mask")


def check_ids(options, config, *names: str) -> None:
    """UserError where the model has no embedding for a special id of the options."""
    for name in names:
        if getattr(options, name, -1) >= config.vocab_size > 0:
            raise UserError(
                f"objective.{name} is {getattr(options, name)}, but model.vocab_size is {config.vocab_size}",
                "Set --model.vocab-size 0, which takes the tokenizer's.",
            )


def check_next_tokens(options, experiment: Experiment) -> None:
    """UserError unless the model is a decoder or an encoder-decoder that this objective can train."""
    name, config = type(options).__name__, experiment.model
    if isinstance(config, TextEncoderConfig | MultimodalConfig):
        raise UserError(f"objective {name} trains a decoder; the model is a {type(config).__name__}", "Use another model, or objective.")
    if config.experts:
        raise UserError(f"objective {name} balances no experts; model.experts is {config.experts}", "Set --model.experts 0.")
