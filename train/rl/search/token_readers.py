"""What searches over tokens ask of a model: what may follow a text, and what the text is worth.

B rows, P their prompts: from the left, padding behind. S positions in all, V vocabulary, T tokens read at once.
"""

import dataclasses
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from model.critic import Critic
from model.heads import Head, logits, vocabulary_table
from model.transformer import Decoder


class Reader(Protocol):
    """What searches ask of a model. A context is any pytree that stands for the rows read so far."""

    def start(self, prompts_BP, lengths_B, max_new_tokens: int) -> Any:
        """The context of prompts that may grow by `max_new_tokens` tokens, those of suffixes included."""

    def after(self, context, suffix_BD, lengths_B) -> tuple[Any, Any]:
        """Log-probabilities [B, V] and values [B] after a suffix of lengths_B tokens (0: none), which does not become part of the rows."""

    def append(self, context, token_B) -> Any:
        """The context of the rows with one more token each."""


class Cached(flax.struct.PyTreeNode):
    """The context of a CachedReader: keys and values of all layers of the policy and of its critic, which of them are tokens, how many of
    each row, the next free place.

    last_BD, value_B: hidden state and value of each row's last token.
    """

    cache: Any
    critic_cache: Any
    valid_BS: Any
    lengths_B: Any
    index: Any
    last_BD: Any
    value_B: Any


@dataclasses.dataclass(frozen=True)
class CachedReader:
    """A Reader for our decoder and its critic: rows are read once into a cache, which all nodes of a tree share; of a node only its suffix
    is read. params: of both. With critic layout none all values are 0."""

    model: Decoder
    critic: Critic
    params: Any

    def start(self, prompts_BP, lengths_B, max_new_tokens: int):
        batch, prompt = prompts_BP.shape
        size = prompt + max_new_tokens
        index_S = jnp.arange(size)
        # Rows end at different places, and go on together behind the longest: what lies between is masked.
        valid_BS = ((index_S < lengths_B[:, None]) | (index_S >= prompt)).astype(jnp.int32)
        context = Cached(
            cache=self.model.empty_cache(batch, size),
            critic_cache=self.critic.empty_cache(batch, size),
            valid_BS=valid_BS,
            lengths_B=jnp.zeros_like(lengths_B),
            index=jnp.int32(0),
            last_BD=None,
            value_B=None,
        )
        hidden_BPD, values_BP, cache, critic_cache = self._read(context, prompts_BP)
        return context.replace(
            cache=cache,
            critic_cache=critic_cache,
            lengths_B=lengths_B,
            index=jnp.int32(prompt),
            last_BD=at_index(hidden_BPD, lengths_B - 1),
            value_B=at_index(values_BP, lengths_B - 1),
        )

    def after(self, context: Cached, suffix_BD, lengths_B):
        hidden_BD, value_B = context.last_BD, context.value_B
        if suffix_BD.shape[1]:
            hidden_BTD, values_BT, *_ = self._read(context, suffix_BD)
            last_B = jnp.maximum(lengths_B - 1, 0)
            hidden_BD = jnp.where(lengths_B[:, None] > 0, at_index(hidden_BTD, last_B), hidden_BD)
            value_B = jnp.where(lengths_B > 0, at_index(values_BT, last_B), value_B)
        x_BV = logits(Head(hidden_BD, vocabulary_table(self.params)), softcap=self.model.config.logit_softcap)
        return jax.nn.log_softmax(x_BV), value_B

    def append(self, context: Cached, token_B):
        hidden_B1D, values_B1, cache, critic_cache = self._read(context, token_B[:, None])
        return context.replace(
            cache=cache,
            critic_cache=critic_cache,
            lengths_B=context.lengths_B + 1,
            index=context.index + 1,
            last_BD=hidden_B1D[:, 0],
            value_B=values_B1[:, 0],
        )

    def _read(self, context: Cached, tokens_BT):
        """Hidden states and values of all tokens, and both caches."""
        where = {"positions_BT": context.lengths_B[:, None] + jnp.arange(tokens_BT.shape[1]), "valid_BS": context.valid_BS}
        options = {"cache": (context.cache, context.index), "branch": self.critic.branch_at}
        output = self.model.apply({"params": self.params}, tokens_BT, **options, **where)
        if self.critic.layout == "none":
            return output.hidden_BTD, jnp.zeros(tokens_BT.shape), output.cache, ()
        own = (context.critic_cache, context.index) if self.critic.layers_of_its_own else None
        values_BT, own = self.critic.read(self.params, output, tokens_BT, cache=own, **where)
        return output.hidden_BTD, values_BT, output.cache, own or ()


def at_index(x_BT, index_B):
    """x of each row's token at an index."""
    return x_BT[jnp.arange(len(index_B)), index_B]


def join(tokens_BS, lengths_B, suffix_BD, suffix_lengths_B):
    """The rows with a suffix written behind their lengths; what does not fit is lost."""
    if not suffix_BD.shape[1]:
        return tokens_BS
    place_BS = jnp.arange(tokens_BS.shape[1]) - lengths_B[:, None]
    inside_BS = (place_BS >= 0) & (place_BS < jnp.reshape(suffix_lengths_B, (-1, 1)))
    written_BS = jnp.take_along_axis(suffix_BD, jnp.clip(place_BS, 0, suffix_BD.shape[1] - 1), axis=1)
    return jnp.where(inside_BS, written_BS, tokens_BS)
