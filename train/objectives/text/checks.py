"""What objectives on text ask of a model, and say of a batch."""

import jax.numpy as jnp

from data.errors import UserError
from model.encoder_decoder_config import EncoderDecoderConfig
from model.media.multimodal_config import MultimodalConfig
from model.text_encoder_config import TextEncoderConfig
from train.experiment import Experiment
from train.objectives.terms import Mean


def tokens_of(batch) -> Mean:
    """The metric that counts the tokens that a step reads, where its loss counts fewer."""
    seen = (batch.segments != 0).sum().astype(jnp.float32)
    return Mean(seen, seen)


def check_encoder(options, experiment: Experiment, *, predicts: bool = False, judges: bool = False) -> None:
    """UserError unless the model is an encoder of text that this objective can train. predicts: tokens; judges: pairs."""
    name, config = type(options).__name__, experiment.model
    if not isinstance(config, TextEncoderConfig):
        raise UserError(f"objective {name} trains an encoder of text; the model is a {type(config).__name__}", "Use a TextEncoderConfig.")
    _check_no_experts(options, experiment)
    if predicts and not config.prediction_head:
        raise UserError(f"objective {name} predicts tokens; model.prediction_head is off", "Set --model.prediction-head.")
    if judges and not config.pooler:
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


def check_trunk(options, experiment: Experiment) -> None:
    """UserError unless the model reads rows of text by themselves: an encoder or a decoder."""
    name, config = type(options).__name__, experiment.model
    if isinstance(config, MultimodalConfig) or is_encoder_decoder(experiment):
        raise UserError(f"objective {name} trains an encoder or a decoder; the model is a {type(config).__name__}", "Use another model.")
    _check_no_experts(options, experiment)


def check_next_tokens(options, experiment: Experiment) -> None:
    """UserError unless the model writes tokens one after the other: a decoder or an encoder-decoder."""
    name, config = type(options).__name__, experiment.model
    if isinstance(config, TextEncoderConfig | MultimodalConfig):
        raise UserError(f"objective {name} trains a decoder; the model is a {type(config).__name__}", "Use another model, or objective.")
    _check_no_experts(options, experiment)


def check_continues(options, experiment: Experiment) -> None:
    """UserError unless the model continues its own rows: one that sees both ways reads what it predicts, and one with a source needs it."""
    name, config = type(options).__name__, experiment.model
    if isinstance(config, TextEncoderConfig | EncoderDecoderConfig):
        raise UserError(
            f"objective {name} trains a decoder, which continues its own rows; the model is a {type(config).__name__}",
            "Use a ModelConfig, or start from a run of a decoder.",
        )


def check_encoder_decoder(options, experiment: Experiment) -> None:
    """UserError unless the model is an encoder-decoder."""
    if not is_encoder_decoder(experiment):
        name, config = type(options).__name__, experiment.model
        raise UserError(
            f"objective {name} trains an encoder-decoder; the model is a {type(config).__name__}", "Use an EncoderDecoderConfig."
        )
    _check_no_experts(options, experiment)


def is_encoder_decoder(experiment: Experiment) -> bool:
    """Whether an encoder reads what a decoder writes of."""
    return isinstance(experiment.model, EncoderDecoderConfig)


def _check_no_experts(options, experiment: Experiment) -> None:
    if experiment.model.experts:
        raise UserError(
            f"objective {type(options).__name__} balances no experts; model.experts is {experiment.model.experts}", "Set --model.experts 0."
        )
