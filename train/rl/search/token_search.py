"""Decoding that looks ahead with a critic: tree search over tokens, and what it has to beat at equal forward passes.

PPO trains a critic and then throws it away. Searching with it while decoding does better than sampling from the policy alone (Liu et al.
2023, "Don't throw away your value model"). A tree over a whole vocabulary, with a cache in every node, would fit no memory. So a node has K
actions, the likeliest tokens after its text, and holds no more than the tokens by which it differs from the root.

B rows, P their prompts and S = P + R with their responses: from the left, padding behind. K tokens considered, V vocabulary, D the
greatest depth of a search. A model gives two things for a text: log-probabilities [B, V] of the next token, and the critic's value [B].
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx

from train.rl.search.search import search
from train.rl.search.token_readers import Reader, at_index, join
from train.rl.search.tree import ILLEGAL


@dataclasses.dataclass(frozen=True)
class Goal:
    """What makes a response end, and what it is worth then.

    stop_ids: tokens that end a response and belong to it. reward: (tokens_BS, prompt_lengths_B, lengths_B) -> float32 [B] of whole rows,
    called within jit; None: the critic's value of the end. reference: with it, each token costs kl_coefficient * (log-probability of the
    policy - that of the reference), as in PPO's rewards.
    """

    stop_ids: tuple[int, ...] = ()
    reward: Callable | None = None
    reference: Reader | None = None
    kl_coefficient: float = 0.0


class Decoded(NamedTuple):
    """tokens_BS: prompt and response, 0 behind. lengths_B: of both together, a stop id included. scores_B: what the end is worth.
    passes_B: texts that the model evaluated for the row, one for each token of plain sampling; those of a reference are not counted."""

    tokens_BS: Any
    lengths_B: Any
    scores_B: Any
    passes_B: Any


class Rows(NamedTuple):
    """Where a decoder stands: tokens of the rows, lengths of prompts, of both, and of both at most, what the model and the reference made
    of them, which are done."""

    tokens_BS: Any
    prompts_B: Any
    lengths_B: Any
    limits_B: Any
    context: Any
    reference: Any
    done_B: Any

    def ended(self, token_B, lengths_B, goal: Goal):
        """Whether rows of lengths_B that end with token_B are complete."""
        stopped_B = jnp.isin(token_B, jnp.asarray(goal.stop_ids, jnp.int32)) if goal.stop_ids else jnp.zeros(token_B.shape, bool)
        return stopped_B | (lengths_B >= self.limits_B)


def tree_search_decode(
    reader: Reader,
    goal: Goal,
    prompts_BP,
    lengths_B,
    key,
    *,
    max_new_tokens: int,
    simulations: int,
    considered: int = 16,
    depth: int = 8,
    **options,
) -> Decoded:
    """Tokens, each the outcome of a tree search of `simulations` over the `considered` likeliest tokens, up to `depth` ahead.

    A complete response that some search has seen, and that is worth more than what the tokens end up as, takes their place (Schadd et al.
    2008, sec. 4.3, for games of one player); not with a price for KL, which such a response would not have paid from the start.
    options: of train.rl.search.search.search: the policy, and its own. Costs simulations + 1 forward passes a token.
    """

    def choose(key, rows: Rows):
        choices_BK, plan = plan_token(reader, goal, rows, key, simulations=simulations, considered=considered, depth=depth, **options)
        token_B = jnp.take_along_axis(choices_BK, plan.action_B[:, None], axis=1)[:, 0]
        return token_B, simulations + 1, None if goal.reference is not None else best_seen(rows, plan.embeddings)

    return _decode(reader, goal, prompts_BP, lengths_B, key, choose, max_new_tokens=max_new_tokens, ahead=depth)


def best_first_decode(
    reader: Reader, goal: Goal, prompts_BP, lengths_B, key, *, max_new_tokens: int, expansions: int, considered: int = 16, beta: float = 0.5
) -> Decoded:
    """The best complete response that `expansions` of the most promising text come upon (Meister et al. 2020, sec. 3).

    What is read next is, of all texts so far with one of the `considered` likeliest tokens after them, the one with the highest
    log-probability + (the critic's value of the text before that token) / beta. No text is read twice, so all responses differ, and the
    critic decides whose continuations come first. Rows in which no response was completed go on greedily. Costs expansions + 1 forward
    passes, whatever the length.
    """
    rows = _begin(reader, goal, prompts_BP, lengths_B, max_new_tokens, max_new_tokens)
    batch, at = len(lengths_B), jnp.arange(len(lengths_B))

    def evaluate(suffix_BD, length_B, ended_B):
        """A node, the log-probabilities of what may come after it, and its value."""
        log_probs_BV, value_B = reader.after(rows.context, suffix_BD, length_B)
        choices_BK, prior_BK, cost_BK = _consider(goal, rows, log_probs_BV, suffix_BD, length_B, considered)
        worth_B = _worth(goal, rows, join(rows.tokens_BS, rows.lengths_B, suffix_BD, length_B), rows.lengths_B + length_B, value_B)
        node = Node(suffix_BD, length_B, choices_BK, cost_BK, ended_B, jnp.where(ended_B, worth_B, UNSEEN))
        return node, jnp.where(ended_B[:, None], ILLEGAL, prior_BK), value_B

    root, prior_BK, value_B = evaluate(jnp.zeros((batch, max_new_tokens), rows.tokens_BS.dtype), jnp.zeros_like(lengths_B), rows.done_B)

    def fresh(x):
        return jnp.zeros((batch, expansions + 1, *x.shape[1:]), x.dtype).at[:, 0].set(x)

    nodes, log_prob_BN = jax.tree.map(fresh, root), jnp.zeros((batch, expansions + 1))
    promise_BNK = jnp.full((batch, expansions + 1, prior_BK.shape[1]), ILLEGAL).at[:, 0].set(prior_BK + value_B[:, None] / beta)

    def expand(number, carry):
        nodes, log_prob_BN, prior_BNK, promise_BNK = carry
        best_B = promise_BNK.reshape(batch, -1).argmax(1)
        node_B, action_B = jnp.divmod(best_B, promise_BNK.shape[2])
        left_B = promise_BNK[at, node_B, action_B] > ILLEGAL / 2  # else there is nothing left to read
        parent = jax.tree.map(lambda x: x[at, node_B], nodes)
        token_B, length_B = parent.choices_BK[at, action_B], parent.length_B + 1
        suffix_BD = parent.suffix_BD.at[at, parent.length_B].set(token_B)
        node, prior_BK, value_B = evaluate(suffix_BD, length_B, rows.ended(token_B, rows.lengths_B + length_B, goal) & left_B)
        log_prob_B = log_prob_BN[at, node_B] + prior_BNK[at, node_B, action_B]
        promise_BK = jnp.where(left_B[:, None], log_prob_B[:, None] + prior_BK + value_B[:, None] / beta, ILLEGAL)
        return (
            jax.tree.map(lambda x, new: x.at[:, number].set(new), nodes, node),
            log_prob_BN.at[:, number].set(log_prob_B),
            prior_BNK.at[:, number].set(prior_BK),
            promise_BNK.at[at, node_B, action_B].set(ILLEGAL).at[:, number].set(jnp.maximum(promise_BK, ILLEGAL)),
        )

    nodes, *_ = jax.lax.fori_loop(1, expansions + 1, expand, (nodes, log_prob_BN, fresh(prior_BK), promise_BNK))
    best = best_seen(rows, nodes)

    def choose(key, rows: Rows):
        log_probs_BV, _ = reader.after(rows.context, _nothing(rows), jnp.zeros_like(rows.lengths_B))
        return log_probs_BV.argmax(-1), 1, None

    unseen_B = best.worth_B <= UNSEEN
    found = _decode(reader, goal, prompts_BP, lengths_B, key, choose, max_new_tokens=max_new_tokens, ahead=0, done_B=~unseen_B)
    whole = _better(Seen(found.tokens_BS, found.lengths_B, jnp.where(unseen_B, found.scores_B, UNSEEN)), best)
    return Decoded(*whole, found.passes_B + expansions + 1)


def value_guided_decode(
    reader: Reader, goal: Goal, prompts_BP, lengths_B, key, *, max_new_tokens: int, considered: int = 16, beta: float = 0.1
) -> Decoded:
    """Tokens, each sampled in proportion to prior * exp(value / beta) from the `considered` likeliest.

    The value is the critic's of the text with that token, or what the text is worth where it ends there: one step of looking ahead. This is
    the policy that is best in the critic's eyes less beta times the KL to the prior. Costs considered + 1 forward passes a token.
    """

    def choose(key, rows: Rows):
        log_probs_BV, _ = reader.after(rows.context, _nothing(rows), jnp.zeros_like(rows.lengths_B))
        choices_BK, prior_BK, _ = _consider(goal, rows, log_probs_BV, _nothing(rows), 0, considered)

        def value_of(token_B):
            suffix_B1, one_B = token_B[:, None], jnp.ones_like(rows.lengths_B)
            _, value_B = reader.after(rows.context, suffix_B1, one_B)
            whole_BS, whole_B = join(rows.tokens_BS, rows.lengths_B, suffix_B1, one_B), rows.lengths_B + 1
            return jnp.where(rows.ended(token_B, whole_B, goal), _worth(goal, rows, whole_BS, whole_B, value_B), value_B)

        value_BK = jax.vmap(value_of, in_axes=1, out_axes=1)(choices_BK)
        action_B = jax.random.categorical(key, jnp.maximum(prior_BK + value_BK / beta, ILLEGAL))
        return jnp.take_along_axis(choices_BK, action_B[:, None], axis=1)[:, 0], choices_BK.shape[1] + 1, None

    return _decode(reader, goal, prompts_BP, lengths_B, key, choose, max_new_tokens=max_new_tokens, ahead=1)


class Node(NamedTuple):
    """What a tree keeps of a text: its suffix, D tokens of which the first `length` count; the tokens that its actions stand for; what
    each costs in KL; whether it has ended; and what it is worth if it ends here, UNSEEN where it does not."""

    suffix_BD: Any
    length_B: Any
    choices_BK: Any
    cost_BK: Any
    over_B: Any
    worth_B: Any


UNSEEN = -1e30
"""Worth of what is no complete response."""


class Seen(NamedTuple):
    """The best complete response of each row that a search has come upon, as whole rows; worth UNSEEN where there is none."""

    tokens_BS: Any
    lengths_B: Any
    worth_B: Any


def best_seen(rows: Rows, nodes: Node) -> Seen:
    """Of all nodes of a search from where the rows stand."""
    worth_BN = jnp.where((nodes.length_B > 0) & ~rows.done_B[:, None], nodes.worth_B, UNSEEN)  # nodes never reached are all zeros
    best_B = worth_BN.argmax(1)
    suffix_BD, length_B, worth_B = (at_index(x, best_B) for x in (nodes.suffix_BD, nodes.length_B, worth_BN))
    return Seen(join(rows.tokens_BS, rows.lengths_B, suffix_BD, length_B), rows.lengths_B + length_B, worth_B)


def _better(old: Seen, new: Seen) -> Seen:
    better_B = new.worth_B > old.worth_B
    return jax.tree.map(lambda a, b: jnp.where(better_B.reshape(-1, *(1,) * (a.ndim - 1)), b, a), old, new)


def plan_token(
    reader: Reader, goal: Goal, rows: Rows, key, *, simulations: int, considered: int, depth: int, least: float = 0.0, **options
):
    """One search from where the rows stand. Returns choices_BK, the tokens that were considered, and the Plan over them."""
    nothing_B = jnp.zeros_like(rows.lengths_B)
    suffix_BD = jnp.zeros((len(nothing_B), depth), rows.tokens_BS.dtype)
    log_probs_BV, value_B = reader.after(rows.context, suffix_BD[:, :0], nothing_B)
    choices_BK, prior_BK, cost_BK = _consider(goal, rows, log_probs_BV, suffix_BD[:, :0], nothing_B, considered)
    root = mctx.RootFnOutput(
        prior_logits=prior_BK,
        value=value_B,
        embedding=Node(suffix_BD, nothing_B, choices_BK, cost_BK, jnp.zeros_like(rows.done_B), jnp.full_like(value_B, UNSEEN)),
    )

    def simulate(params, key, action_B, node: Node):
        at = jnp.arange(len(action_B))
        token_B, cost_B = node.choices_BK[at, action_B], node.cost_BK[at, action_B]
        suffix_BD, length_B = node.suffix_BD.at[at, node.length_B].set(token_B), node.length_B + 1
        whole_B = rows.lengths_B + length_B
        log_probs_BV, value_B = reader.after(rows.context, suffix_BD, length_B)
        choices_BK, prior_BK, costs_BK = _consider(goal, rows, log_probs_BV, suffix_BD, length_B, considered)
        ends_B = node.over_B | rows.ended(token_B, whole_B, goal)
        worth_B = _worth(goal, rows, join(rows.tokens_BS, rows.lengths_B, suffix_BD, length_B), whole_B, value_B)
        return mctx.RecurrentFnOutput(
            reward=jnp.where(node.over_B, 0.0, jnp.where(ends_B, worth_B, 0.0) - cost_B),
            discount=jnp.where(ends_B, 0.0, 1.0),
            prior_logits=prior_BK,
            value=jnp.where(ends_B, 0.0, value_B),
        ), Node(suffix_BD, length_B, choices_BK, costs_BK, ends_B, jnp.where(ends_B & ~node.over_B, worth_B, UNSEEN))

    legal_BK = prior_BK > ILLEGAL
    return choices_BK, search(root, simulate, None, key, simulations=simulations, legal_BA=legal_BK, max_depth=depth, **options)


def _consider(goal: Goal, rows: Rows, log_probs_BV, suffix_BD, length_B, considered: int):
    """The likeliest tokens, their log-probabilities (ILLEGAL for those that cannot come), and what each costs in KL: [B, K]."""
    prior_BK, choices_BK = jax.lax.top_k(log_probs_BV, min(considered, log_probs_BV.shape[1]))
    cost_BK = jnp.zeros_like(prior_BK)
    if goal.reference is not None:
        reference_BV, _ = goal.reference.after(rows.reference, suffix_BD, length_B)
        cost_BK = goal.kl_coefficient * (prior_BK - jnp.take_along_axis(reference_BV, choices_BK, axis=1))
    possible_BK = prior_BK > -1e9
    return choices_BK.astype(jnp.int32), jnp.where(possible_BK, prior_BK, ILLEGAL), jnp.where(possible_BK, cost_BK, 0.0)


def _worth(goal: Goal, rows: Rows, tokens_BS, lengths_B, value_B):
    return value_B if goal.reward is None else goal.reward(tokens_BS, rows.prompts_B, lengths_B).astype(jnp.float32)


def _nothing(rows: Rows):
    """The empty suffix."""
    return rows.tokens_BS[:, :0]


def _begin(reader: Reader, goal: Goal, prompts_BP, lengths_B, max_new_tokens: int, ahead: int, done_B=None) -> Rows:
    """Rows of prompts alone, with room for a response and for what a search reads `ahead`."""
    return Rows(
        tokens_BS=jnp.pad(prompts_BP, ((0, 0), (0, max_new_tokens))),
        prompts_B=lengths_B,
        lengths_B=lengths_B,
        limits_B=lengths_B + max_new_tokens,
        context=reader.start(prompts_BP, lengths_B, max_new_tokens + ahead),
        reference=None if goal.reference is None else goal.reference.start(prompts_BP, lengths_B, max_new_tokens + ahead),
        done_B=jnp.zeros(lengths_B.shape, bool) if done_B is None else done_B,
    )


def _decode(
    reader: Reader, goal: Goal, prompts_BP, lengths_B, key, choose: Callable, *, max_new_tokens: int, ahead: int, done_B=None
) -> Decoded:
    """Append what choose(key, rows) -> token_B, forward passes, the best complete responses seen (Seen, or None) says, until every row has
    ended. done_B: rows that have from the beginning."""

    def go_on(carry):
        rows, _, _, number, _ = carry
        return (number < max_new_tokens) & ~rows.done_B.all()

    def step(carry):
        rows, passes_B, key, number, best = carry
        key, now = jax.random.split(key)
        token_B, passes, seen = choose(now, rows)
        best = best if seen is None else _better(best, seen)
        token_B = jnp.where(rows.done_B, 0, token_B).astype(rows.tokens_BS.dtype)
        tokens_BS = join(rows.tokens_BS, rows.lengths_B, token_B[:, None], (~rows.done_B).astype(jnp.int32))
        grown_B = rows.lengths_B + ~rows.done_B
        rows = (
            rows._replace(
                tokens_BS=tokens_BS,
                lengths_B=grown_B,
                context=reader.append(rows.context, token_B),
                reference=None if goal.reference is None else goal.reference.append(rows.reference, token_B),
                done_B=rows.done_B | rows.ended(token_B, grown_B, goal),
            ),
            passes_B + jnp.where(rows.done_B, 0, passes),
        )
        return *rows, key, number + 1, best

    rows = _begin(reader, goal, prompts_BP, lengths_B, max_new_tokens, ahead, done_B)
    nothing = Seen(rows.tokens_BS, lengths_B, jnp.full(lengths_B.shape, UNSEEN))
    rows, passes_B, _, _, best = jax.lax.while_loop(go_on, step, (rows, jnp.zeros_like(lengths_B), key, 0, nothing))
    if goal.reward is not None:
        worth_B = _worth(goal, rows, rows.tokens_BS, rows.lengths_B, None)
    else:
        whole = reader.start(rows.tokens_BS, rows.lengths_B, 0)  # rows that ended early have read padding since
        _, worth_B = reader.after(whole, _nothing(rows), jnp.zeros_like(rows.lengths_B))
        passes_B += 1
    return Decoded(*_better(Seen(rows.tokens_BS, rows.lengths_B, worth_B), best), passes_B)
