"""What a run may start from, and what of its config stays its own."""

import dataclasses

import pytest

from data.tokenizer import byte_tokenizer
from model.config import ModelConfig
from model.critic import Critic
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.generation.chat import Chat
from train.rl.environments.simulators import SlotFilling
from train.rl.environments.text_tasks import Addition
from train.sources.examples import Examples

KINDS = (ModelConfig(), TextEncoderConfig(), EncoderDecoderConfig())


@pytest.mark.parametrize("own", KINDS)
@pytest.mark.parametrize("theirs", KINDS)
def test_a_model_starts_from_its_own_kind_alone(own, theirs):
    if type(own) is type(theirs):
        assert own.started_from(theirs, True) == theirs
    else:
        with pytest.raises(ValueError, match=f"it is a {theirs.kind}, and the config's is a {own.kind}"):
            own.started_from(theirs, True)


def test_heads_and_switches_of_an_encoder_are_the_new_runs():
    theirs = TextEncoderConfig(embed_dim=384, num_heads=12, prediction_head=False)
    own = TextEncoderConfig(pooler=False).started_from(theirs, False, dropout=0.1)
    assert own == dataclasses.replace(theirs, pooler=False, prediction_head=True, dropout=0.1)


def test_texts_need_no_ids_of_roles_and_conversations_do():
    """A published model has no rows for ids that only this project knows: tasks on plain text must not ask for them."""
    tokenizer = byte_tokenizer()
    assert Examples(Addition(), tokenizer).ids == 1 + tokenizer.specials["document_end"]
    assert Examples(SlotFilling(), tokenizer).ids > tokenizer.specials["spare_1"]
    assert Examples(SlotFilling(), tokenizer, chat=Chat("{{ messages }}")).ids == 1 + tokenizer.specials["document_end"]


def test_a_branch_has_the_windows_of_the_layers_that_it_copies():
    config = ModelConfig(num_layers=26, window=8, global_every=6, positions="rotary", embed_dim=16, num_heads=2)
    for layers in range(1, 26):
        own = dataclasses.replace(config, num_layers=layers)
        if all(config.layer_window(26 - layers + n) == own.layer_window(n) for n in range(layers)):
            Critic(config, "branch", layers)
        else:
            with pytest.raises(ValueError, match="not be of the same kinds.*take one of 1, 2, "):
                Critic(config, "branch", layers)
