"""Texts in slots go on: each draws its next tokens, one at a time or, where they were guessed, several.

A guess is what followed the text's last tokens when they stood in it before (prompt lookup, Saxena 2023), or what a small model draws
(Leviathan et al. 2023, arXiv:2211.17192). A token is drawn from the model's own logits with the random number of its place, and a guess is
kept only where it is the token that was drawn: what is guessed changes no text, only how many passes of the model it takes. The small model
draws with the same random numbers, so that it is right wherever its probabilities are those of the large one, however unlikely the token.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from model.decoding.generate import Causal
from model.decoding.sampling import next_tokens
from model.decoding.slots import LIKELIEST, Slots, apply_to_rows
from model.heads import Head, logits, vocabulary_table


class Drawn(flax.struct.PyTreeNode):
    """What a call drew, up to N tokens a slot. tokens_BN; log_probs_BN: of each, as the model has it, before temperature and filters;
    count_B: how many; done_B: whether the slot is at its end; likeliest_BNL, their_log_probs_BNL: the most likely tokens, where a slot asks
    for them, else zeros."""

    tokens_BN: Any
    log_probs_BN: Any
    count_B: Any
    done_B: Any
    likeliest_BNL: Any
    their_log_probs_BNL: Any


DRAFT = "draft"
"""Among a model's parameters: those of the small one beside it."""


@dataclasses.dataclass(frozen=True)
class Drafted:
    """A model and a small one of the same tokens, which read the same texts: the small one guesses what the other draws.

    Its parameters are the model's, and in them, under `draft`, those of the small one; its cache holds both.
    """

    model: Causal
    draft: Causal

    @property
    def config(self) -> Any:
        return self.model.config

    def empty_cache(self, rows: int, size: int):
        return {"model": self.model.empty_cache(rows, size), DRAFT: self.draft.empty_cache(rows, size)}

    def apply(self, variables, tokens_BT, *, positions_BT, cache, valid_BS, media=None):
        """As of the model."""
        (caches, index), where = cache, {"positions_BT": positions_BT, "valid_BS": valid_BS}
        output = self.model.apply(variables, tokens_BT, cache=(caches["model"], index), media=media, **where)
        beside = self.draft.apply({"params": variables["params"][DRAFT]}, tokens_BT, cache=(caches[DRAFT], index), **where)
        return output._replace(cache={"model": output.cache, DRAFT: beside.cache})


def go_on(model: Causal, params, slots: Slots, alive_B, steps, guessing=True, *, most: int, guesses: int = 0) -> tuple[Slots, Drawn]:
    """Draw tokens in each slot that is neither done nor given up, in up to `steps` passes of the model; stops early where none is left.

    alive_B: bool, slots whose texts are still wanted. steps: traced, at most `most`. guesses: tokens of each text that a pass reads beside
    the one that is certain, of a Drafted model those that its small one draws; a pass draws as many at most, and one more, and one alone
    where `guessing`, a traced bool, is false. A text must have places for all of them, or for those up to its limit, and behind them for
    the guesses. A slot ends with a stop id, which is drawn and counted, and at its limit.
    """
    batch, size = slots.tokens_BS.shape
    rows_B, room = jnp.arange(batch), most * (1 + guesses)
    drawn = Drawn(
        tokens_BN=jnp.zeros((batch, room), jnp.int32),
        log_probs_BN=jnp.zeros((batch, room), jnp.float32),
        count_B=jnp.zeros(batch, jnp.int32),
        done_B=slots.done_B,
        likeliest_BNL=jnp.zeros((batch, room, LIKELIEST), jnp.int32),
        their_log_probs_BNL=jnp.zeros((batch, room, LIKELIEST), jnp.float32),
    )
    slots = slots.replace(done_B=slots.done_B | ~alive_B)
    steps = jnp.minimum(steps, most)

    def step(carry):
        slots, drawn, passes = carry
        goes_B, start_B = ~slots.done_B, slots.index_B
        token_B = _next(slots)
        slots, drawn = _take(slots, drawn, goes_B, token_B)
        token_B = jnp.where(goes_B, token_B, 0)
        place_B = jnp.where(goes_B, start_B, size - 1 - guesses)  # what a slot writes that goes not on, nobody reads
        tokens_BT, hidden_BTD, cache = _read_with_guesses(slots, token_B, place_B)
        logits_BTV = logits(Head(hidden_BTD, vocabulary_table(params)), softcap=model.config.logit_softcap)
        slots = slots.replace(cache=cache, logits_BV=jnp.where(goes_B[:, None], logits_BTV[:, 0], slots.logits_BV))
        for number in range(1, guesses + 1):
            token_B = _next(slots)
            goes_B = goes_B & ~slots.done_B & guessing & (token_B == tokens_BT[:, number])
            slots, drawn = _take(slots, drawn, goes_B, token_B)
            slots = slots.replace(logits_BV=jnp.where(goes_B[:, None], logits_BTV[:, number], slots.logits_BV))
        return slots, drawn, passes + 1

    def _next(slots: Slots, logits_BV=None, ahead=0):
        """The token that comes next in each slot. logits_BV: those of the slots, by default; ahead: for a token that stands so much further
        on, behind guesses."""
        index_S, logits_BV = jnp.arange(size), slots.logits_BV if logits_BV is None else logits_BV
        held_BS = index_S < slots.index_B[:, None]
        keys = functools.partial(jax.vmap(jax.random.fold_in), slots.keys_B, slots.index_B + ahead)
        return next_tokens(keys, logits_BV, slots.sampling, slots.tokens_BS, held_BS, held_BS & (index_S >= slots.begin_B[:, None]))

    def _read_with_guesses(slots: Slots, token_B, place_B):
        """The slots' next token and guesses behind it, from their places on: (tokens [B, 1 + guesses], hidden states, cache)."""
        if not guesses:
            return token_B[:, None], *apply_to_rows(model, params, slots.cache, token_B[:, None], place_B)
        if not isinstance(model, Drafted):
            tokens_BT = jnp.concatenate([token_B[:, None], guess(slots.tokens_BS, slots.index_B, guesses)], axis=1)
            return tokens_BT, *apply_to_rows(model, params, slots.cache, tokens_BT, place_B)

        def draft(carry, number):
            token_B, cache = carry
            hidden_B1D, cache = apply_to_rows(model.draft, params[DRAFT], cache, token_B[:, None], place_B + number)
            head = Head(hidden_B1D[:, 0], vocabulary_table(params[DRAFT]))
            guess_B = _next(slots, logits(head, softcap=model.draft.config.logit_softcap), number)
            return (guess_B, cache), token_B

        # The last guess is read too, since its place must be known where it is right.
        (_, beside), tokens_TB = jax.lax.scan(draft, (token_B, slots.cache[DRAFT]), jnp.arange(1 + guesses))
        hidden_BTD, cache = apply_to_rows(model.model, params, slots.cache["model"], tokens_TB.T, place_B)
        return tokens_TB.T, hidden_BTD, {"model": cache, DRAFT: beside}

    def _take(slots: Slots, drawn: Drawn, goes_B, token_B):
        """Both with this token behind the texts that go on."""
        log_p_BV = jax.nn.log_softmax(slots.logits_BV, axis=-1)
        nobody = jnp.zeros((batch, LIKELIEST), jnp.float32), jnp.zeros((batch, LIKELIEST), jnp.int32)
        their_log_probs_BL, likeliest_BL = jax.lax.cond(
            (slots.asks_B & goes_B).any(), lambda: tuple(jax.lax.top_k(log_p_BV, LIKELIEST)), lambda: nobody
        )
        place_B = jnp.where(goes_B, drawn.count_B, room)  # beyond the last, which writes nothing

        def put(held, new):
            return held.at[rows_B, place_B].set(new, mode="drop")

        drawn = drawn.replace(
            tokens_BN=put(drawn.tokens_BN, token_B),
            log_probs_BN=put(drawn.log_probs_BN, jnp.take_along_axis(log_p_BV, token_B[:, None], axis=-1)[:, 0]),
            count_B=drawn.count_B + goes_B,
            likeliest_BNL=put(drawn.likeliest_BNL, likeliest_BL),
            their_log_probs_BNL=put(drawn.their_log_probs_BNL, their_log_probs_BL),
        )
        index_B = slots.index_B + goes_B
        ended_B = (token_B[:, None] == slots.sampling.stops_BE).any(-1) | (index_B >= slots.limit_B)
        tokens_BS = slots.tokens_BS.at[rows_B, jnp.where(goes_B, slots.index_B, size)].set(token_B, mode="drop")
        return slots.replace(tokens_BS=tokens_BS, index_B=index_B, done_B=slots.done_B | (goes_B & ended_B)), drawn

    def more(carry):
        slots, _, passes = carry
        return (passes < steps) & ~slots.done_B.all()

    slots, drawn, _ = jax.lax.while_loop(more, step, (slots, drawn, jnp.int32(0)))
    return slots, drawn.replace(done_B=slots.done_B)


def guess(tokens_BS, count_B, guesses: int):
    """int32 [B, guesses]: what followed the last place where a text's last two tokens stood before; where its last three did, if they did;
    anything where neither. All that followed must be known. count_B: tokens of each text."""
    before_BS, index_S = tokens_BS[:, :-1], jnp.arange(1, tokens_BS.shape[1])

    def last(back: int):
        return jnp.take_along_axis(tokens_BS, jnp.maximum(count_B - 1 - back, 0)[:, None], axis=1)

    two_BS = (before_BS == last(1)) & (tokens_BS[:, 1:] == last(0)) & (index_S + guesses < count_B[:, None])
    three_BS = two_BS & (jnp.pad(before_BS[:, :-1], ((0, 0), (1, 0)), constant_values=-1) == last(2))
    score_BS = jnp.where(two_BS, index_S, 0) + jnp.where(three_BS, tokens_BS.shape[1], 0)
    found_B = jnp.argmax(score_BS, axis=1) + 1
    return jnp.take_along_axis(tokens_BS, jnp.minimum(found_B[:, None] + 1 + jnp.arange(guesses), tokens_BS.shape[1] - 1), axis=1)
