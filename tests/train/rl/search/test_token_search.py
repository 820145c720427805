"""Searches over tokens, on a language so small that the best response is known by enumeration."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ModelConfig
from model.critic import Critic
from model.heads import Head, logits, vocabulary_table
from model.transformer import Decoder
from train.rl.search.token_readers import CachedReader, join
from train.rl.search.token_search import (
    UNSEEN,
    Goal,
    Node,
    Rows,
    best_first_decode,
    best_seen,
    tree_search_decode,
    value_guided_decode,
)

V, ROOM, STOP = 6, 4, 5
ROWS = 8


@dataclasses.dataclass(frozen=True)
class Rereader:
    """A Reader that reads the whole text anew every time: for any callable.

    policy_and_value: (tokens_BS, lengths_B) -> log_probs_BV, values_B. What stands beyond a length is padding.
    """

    policy_and_value: Callable

    def start(self, prompts_BP, lengths_B, max_new_tokens: int):
        return jnp.pad(prompts_BP, ((0, 0), (0, max_new_tokens))), lengths_B

    def after(self, context, suffix_BD, lengths_B):
        tokens_BS, before_B = context
        return self.policy_and_value(join(tokens_BS, before_B, suffix_BD, lengths_B), before_B + lengths_B)

    def append(self, context, token_B):
        tokens_BS, lengths_B = context
        return join(tokens_BS, lengths_B, token_B[:, None], 1), lengths_B + 1


@pytest.fixture(scope="module")
def language():
    """Log-probabilities by place and last token, and the worth of a token by place and the one before; token 4 never comes."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROOM + 1, V, V)).astype(np.float32)
    logits[:, :, STOP] -= 1.0
    logits[:, :, 4] = -np.inf
    worth = rng.normal(size=(ROOM, V, V)).astype(np.float32)
    return np.asarray(jax.nn.log_softmax(logits)), worth


def prompts():
    """Rows of one or two tokens; whether the first is odd says how many."""
    tokens = np.random.default_rng(1).integers(0, 4, (ROWS, 2))
    lengths = tokens[:, 0] % 2 + 1
    tokens *= np.arange(2) < lengths[:, None]
    return jnp.asarray(tokens, jnp.int32), jnp.asarray(lengths, jnp.int32)


def make(language):
    """A Reader whose critic sees nothing of what is to come, and the reward: the summed worth of a response's tokens."""
    log_probs, worth = (jnp.asarray(x) for x in language)

    def reward(tokens_BS, before_B, lengths_B):
        place_BS = jnp.arange(tokens_BS.shape[1]) - before_B[:, None]
        inside_BS = (place_BS >= 0) & (jnp.arange(tokens_BS.shape[1]) < lengths_B[:, None])
        return (worth[jnp.clip(place_BS, 0, ROOM - 1), jnp.roll(tokens_BS, 1, axis=1), tokens_BS] * inside_BS).sum(1)

    def policy_and_value(tokens_BS, lengths_B):
        last_B = jnp.take_along_axis(tokens_BS, lengths_B[:, None] - 1, axis=1)[:, 0]
        before_B = tokens_BS[:, 0] % 2 + 1
        return log_probs[jnp.clip(lengths_B - before_B, 0, ROOM), last_B], reward(tokens_BS, before_B, lengths_B)

    return Rereader(policy_and_value), reward


def responses():
    """Every response that may come: tokens 0 to 3, and a stop at the end unless there is no room for one."""
    for length in range(1, ROOM + 1):
        for tokens in itertools.product(range(4), repeat=length - 1):
            yield (*tokens, STOP)
            if length == ROOM:
                yield from ((*tokens, last) for last in range(4))


def total(worth, row, prompt: int, length: int) -> float:
    return sum(worth[i - prompt, row[i - 1], row[i]] for i in range(prompt, length))


def run(decode, language, **options):
    reader, reward = make(language)
    return jax.device_get(
        jax.jit(lambda key: decode(reader, Goal((STOP,), reward), *prompts(), key, max_new_tokens=ROOM, **options))(jax.random.key(0))
    )


@pytest.fixture(scope="module")
def searched(language):
    return run(tree_search_decode, language, simulations=64, considered=V, depth=ROOM, gumbel_scale=0.0)


def test_search_comes_near_the_best_response_there_is(language, searched):
    """By enumeration of all responses to each prompt; the critic sees nothing ahead, so that the tree alone can find one."""
    _, worth = language
    best = []
    for row, prompt in zip(*prompts(), strict=True):
        start = row[:prompt].tolist()
        best.append(max(total(worth, [*start, *response], len(start), len(start) + len(response)) for response in responses()))
    assert (searched.scores_B > 0.9 * np.asarray(best)).all(), (searched.scores_B, best)


def test_scores_lengths_and_stops_are_those_of_the_tokens(language, searched):
    """Also: what cannot come is never chosen, and every row paid for every token that it has."""
    for tokens, length, score, passes, prompt in zip(*searched, prompts()[1], strict=True):
        response = tokens[prompt:length].tolist()
        assert tuple(response) in set(responses()) and not tokens[length:].any()
        assert score == pytest.approx(total(language[1], tokens, int(prompt), length), rel=1e-4)
        assert passes == 65 * len(response)


def test_search_is_better_than_sampling_as_often(language, searched):
    """65 forward passes a token for the search, 65 samples for the best of them; one step of looking ahead is less than either."""
    sampled = np.mean([best_of(language, row, int(prompt), 65) for row, prompt in zip(*prompts(), strict=True)])
    guided = run(value_guided_decode, language, considered=V, beta=0.01)
    assert searched.scores_B.mean() > sampled > guided.scores_B.mean()
    assert (guided.passes_B == (V + 1) * (guided.lengths_B - prompts()[1])).all()


def best_of(language, row, prompt: int, samples: int) -> float:
    """What the best of some draws among all responses is worth, by their probabilities."""
    log_probs, worth = language
    start, every = row[:prompt].tolist(), list(responses())
    likely = [np.exp(sum(log_probs[i, last, now] for i, (last, now) in enumerate(zip((start[-1], *r), r, strict=False)))) for r in every]
    assert sum(likely) == pytest.approx(1.0, abs=1e-4)
    drawn = np.random.default_rng(4).choice(len(every), samples, p=np.array(likely) / sum(likely))
    return max(total(worth, [*start, *every[k]], prompt, prompt + len(every[k])) for k in drawn)


def test_the_best_seen_is_a_complete_response_though_it_is_worth_less_than_nothing():
    """Of each row: the root, a response worth -1, one worth -2, and a node that was never reached, all zeros. The second row is done."""
    tokens, lengths = jnp.asarray([[1, 0, 0, 0], [1, 2, 0, 0]]), jnp.asarray([1, 2])
    rows = Rows(tokens, lengths, lengths, lengths + 2, None, None, jnp.asarray([False, True]))
    suffixes = jnp.asarray([[[0, 0], [3, 4], [5, 0], [0, 0]]] * 2)
    counts, worth = jnp.asarray([[0, 2, 1, 0]] * 2), jnp.asarray([[UNSEEN, -1.0, -2.0, 0.0]] * 2)
    found = best_seen(rows, Node(suffixes, counts, None, None, None, worth))
    assert found.worth_B.tolist() == [-1.0, pytest.approx(UNSEEN)]
    assert found.tokens_BS[0].tolist() == [1, 3, 4, 0] and found.lengths_B[0] == 3


def test_best_first_search_reads_every_text_once_and_the_likeliest_first(language):
    """With an expansion for each of the 5 + 4 * 5 + 16 * 5 + 64 * 5 texts it finds the best response there is, and more find nothing more.
    With few, and no critic, the responses are those of the highest probability: one after another they are those of enumeration."""
    log_probs, worth = language
    every = sum(5 * 4**depth for depth in range(ROOM))
    found = run(best_first_decode, language, expansions=every + 3, considered=V)
    for row, prompt, score in zip(*prompts(), found.scores_B, strict=True):
        start = row[:prompt].tolist()
        totals = [total(worth, [*start, *response], len(start), len(start) + len(response)) for response in responses()]
        assert score == pytest.approx(max(totals), rel=1e-4)
    assert (found.passes_B == every + 4).all()

    reader, _ = make(language)
    goal = Goal((STOP,), lambda tokens_BS, before_B, lengths_B: jnp.ones(len(lengths_B)))  # the first complete one is as good as any
    first = jax.jit(
        lambda key: best_first_decode(reader, goal, *prompts(), key, max_new_tokens=ROOM, expansions=every, considered=V, beta=1e9)
    )
    drawn = first(jax.random.key(0))
    for row, prompt, tokens, length in zip(*prompts(), drawn.tokens_BS, drawn.lengths_B, strict=True):
        before = int(row[prompt - 1])

        def likely(response, before=before):
            pairs = zip((before, *response), response, strict=False)
            return sum(log_probs[place, last, token] for place, (last, token) in enumerate(pairs))

        likeliest = max(responses(), key=likely)
        assert likely(tuple(tokens[prompt:length].tolist())) == pytest.approx(likely(likeliest), abs=1e-4)


def test_value_guidance_draws_from_the_prior_times_exp_value(language):
    """The first token of many rows, against the distribution by its formula."""
    log_probs, worth = (jnp.asarray(x) for x in language)
    beta, many = 0.7, 4000

    def policy_and_value(tokens_BS, lengths_B):
        last_B = jnp.take_along_axis(tokens_BS, lengths_B[:, None] - 1, axis=1)[:, 0]
        return log_probs[lengths_B - 1, last_B], jnp.where(lengths_B > 1, worth[0, 0, last_B], 0.0)

    tokens, lengths = jnp.zeros((many, 1), jnp.int32), jnp.ones(many, jnp.int32)
    drawn = jax.jit(
        lambda key: value_guided_decode(Rereader(policy_and_value), Goal(), tokens, lengths, key, max_new_tokens=1, considered=V, beta=beta)
    )
    found = np.bincount(drawn(jax.random.key(3)).tokens_BS[:, 1], minlength=V) / many
    want = jax.nn.softmax(log_probs[0, 0] + worth[0, 0] / beta)
    np.testing.assert_allclose(found, want, atol=0.03)


def test_kl_to_the_reference_is_paid_for(language):
    """A heavy coefficient leaves only tokens that the reference likes better than the policy does, whatever their worth."""
    reader, reward = make(language)
    liked = jnp.where(jnp.arange(V) == 2, 0.0, -40.0)
    reference = Rereader(lambda tokens_BS, lengths_B: (jnp.broadcast_to(liked, (ROWS, V)), None))
    goal = Goal((STOP,), reward, reference, kl_coefficient=10.0)
    found = jax.jit(
        lambda key: tree_search_decode(reader, goal, *prompts(), key, max_new_tokens=2, simulations=32, considered=V, depth=2, policy="max")
    )
    tokens, before = found(jax.random.key(0)).tokens_BS, prompts()[1]
    assert (jnp.take_along_axis(tokens, before[:, None] + jnp.arange(2), 1) == 2).all()


@pytest.mark.parametrize("layout", ["shared", "branch", "separate"])
def test_a_shared_cache_changes_nothing(layout):
    """Policy and critic from a cache, and anew: log-probabilities and values after suffixes agree, before and after rows have grown."""
    config = ModelConfig(
        vocab_size=11, context_length=24, num_layers=2, embed_dim=16, num_heads=2, dtype="float32", ngrams=3, ngram_rows=29
    )
    model, critic = Decoder(config), Critic(config, layout)

    @jax.jit
    def fresh(key):
        one, other = jax.random.split(key)
        return model.init(one, jnp.zeros((1, 1), jnp.int32))["params"] | critic.start(other)

    params = jax.tree.map(lambda x: getattr(x, "value", x), fresh(jax.random.key(0)), is_leaf=lambda x: hasattr(x, "value"))
    params["value"]["weights"] = jnp.linspace(-1.0, 2.0, config.embed_dim)
    params["ngrams"]["table"] = jnp.sin(jnp.arange(29.0 * 16)).reshape(29, 16)

    def policy_and_value(tokens_BS, lengths_B):
        output, at = model.apply({"params": params}, tokens_BS, branch=critic.branch_at), (jnp.arange(len(lengths_B)), lengths_B - 1)
        values_BS = critic(params, output, tokens_BS, None, None)
        return jax.nn.log_softmax(logits(Head(output.hidden_BTD[at], vocabulary_table(params)))), values_BS[at]

    prompts_BP = jax.random.randint(jax.random.key(1), (3, 5), 0, 11)
    lengths_B, suffix_BD = jnp.asarray([5, 1, 3]), jax.random.randint(jax.random.key(2), (3, 3), 0, 11)

    def evaluate(reader):
        context = reader.start(prompts_BP, lengths_B, 6)
        found = [reader.after(context, suffix_BD, jnp.asarray([2, 0, 3]))]
        context = reader.append(context, jnp.asarray([7, 8, 9]))
        return found + [
            reader.after(context, suffix_BD, jnp.asarray([3, 1, 0])),
            reader.after(context, suffix_BD[:, :0], jnp.zeros(3, int)),
        ]

    cached, anew = jax.jit(lambda: (evaluate(CachedReader(model, critic, params)), evaluate(Rereader(policy_and_value))))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cached, anew)
    assert np.ptp(anew[0][1]) > 0.1  # values that say something


def test_join_writes_behind_each_row():
    rows = jnp.asarray([[1, 2, 0, 0], [1, 0, 0, 0], [1, 2, 3, 4]])
    joined = join(rows, jnp.asarray([2, 1, 4]), jnp.asarray([[7, 8], [7, 8], [7, 8]]), jnp.asarray([1, 2, 2]))
    assert joined.tolist() == [[1, 2, 7, 0], [1, 7, 8, 0], [1, 2, 3, 4]]
