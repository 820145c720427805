"""Secure aggregation: the sum is exact whoever drops out, and a single vector looks like nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data.errors import UserError
from train.federated import secure
from train.federated.messages import Malformed
from train.federated.secure import SecureClient, SecureServer

SIZE = 64
NAMES = [f"client-{number}" for number in range(9)]


def a_round(vectors, degree: int = 100, lost=((), (), (), ())):
    """(server, clients, what each sent, the sum). lost: who stops before keys, shares, vectors, and the last step."""
    gone: set[str] = set()

    def left(phase):
        gone.update(lost[phase])
        return [name for name in vectors if name not in gone]

    clients = {name: SecureClient(name, 7) for name in vectors}
    server = SecureServer(7, degree, SIZE)
    keys = server.after_keys({name: clients[name].keys() for name in left(0)})
    shares = server.after_shares({name: clients[name].shares(keys[name]) for name in left(1)})
    sent = {name: clients[name].masked(vectors[name], shares[name]) for name in left(2)}
    asked = server.after_vectors(sent)
    told = {name: clients[name].unmask(*asked[name]) for name in left(3)}
    return server, clients, sent, server.sum(told)


def drawn(seed: int = 0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2**32, SIZE, dtype=np.uint32) for name in NAMES}


@given(st.integers(0, 99), st.sampled_from([4, 6, 100]), st.lists(st.integers(0, 3), min_size=9, max_size=9))
@settings(max_examples=25, deadline=None)
def test_the_sum_is_that_of_those_who_sent_their_vectors(seed, degree, phases):
    """Exactly, modulo 2^32, with one client lost before each step at most; else it is refused."""
    lost = [[name for name, phase in zip(NAMES, phases, strict=True) if phase == step][:1] for step in range(4)]
    vectors = drawn(seed)
    try:
        _, _, sent, total = a_round(vectors, degree, lost)
    except UserError:  # Malformed too: too few neighbours were left, and nobody told anything
        assert degree < 8 or sum(map(len, lost)) > 2
        return
    np.testing.assert_array_equal(total, sum((vectors[name] for name in sent), np.zeros(SIZE, np.uint32)))
    assert {*sent} == {*NAMES} - {one for step in lost[:3] for one in step}


def test_a_vector_that_was_sent_looks_uniform_and_tells_nothing_without_the_neighbours():
    vectors = {name: np.zeros(SIZE, np.uint32) for name in NAMES}
    bytes_ = np.concatenate([np.concatenate(list(a_round(vectors)[2].values())).view(np.uint8) for _ in range(8)])
    assert stats.chisquare(np.bincount(bytes_, minlength=256)).pvalue > 1e-3
    one, other = (a_round(vectors)[2][NAMES[0]] for _ in range(2))
    assert (one != other).mean() > 0.9, "each round has masks of its own"


def test_too_few_who_are_left_tell_nothing():
    """With a third gone before the last step the sum stays hidden, and nobody is asked twice."""
    with pytest.raises(UserError, match="shares are there"):
        a_round(drawn(), lost=((), (), (), NAMES[:4]))
    with pytest.raises(Malformed, match="too few"):
        a_round(drawn(), lost=((), (), NAMES[:4], ()))
    with pytest.raises(Malformed, match="too few to hide among"):
        a_round({name: drawn()[name] for name in NAMES[:2]})


def test_a_client_does_not_tell_both_secrets_of_another():
    """Whoever has both sees the vector: also when they are asked for one after the other."""
    server, clients, _, _ = a_round(drawn())
    other = server.graph[NAMES[0]][0]
    with pytest.raises(Malformed, match="both secrets"):
        clients[NAMES[0]].unmask(server.graph[NAMES[0]][1:], [other])
    fresh = {name: SecureClient(name, 7) for name in NAMES}
    server = SecureServer(7, 100, SIZE)
    keys = server.after_keys({name: client.keys() for name, client in fresh.items()})
    shares = server.after_shares({name: client.shares(keys[name]) for name, client in fresh.items()})
    fresh[NAMES[0]].masked(drawn()[NAMES[0]], shares[NAMES[0]])
    everybody = server.graph[NAMES[0]]
    with pytest.raises(Malformed, match="both secrets"):
        fresh[NAMES[0]].unmask(everybody, everybody[:1])
    with pytest.raises(Malformed, match="others than neighbours"):
        fresh[NAMES[0]].unmask([*everybody, "stranger"], [])


def test_a_client_that_leaves_neighbours_out_or_tells_rubbish_holds_nobody_up():
    """It is left out, or its shares are: the others' sum is there."""
    vectors = drawn()
    clients = {name: SecureClient(name, 7) for name in NAMES}
    server = SecureServer(7, 100, SIZE)
    keys = server.after_keys({name: client.keys() for name, client in clients.items()})
    sent = {name: client.shares(keys[name]) for name, client in clients.items()}
    sent[NAMES[0]].pop(NAMES[1])
    shares = server.after_shares(sent)
    assert NAMES[0] not in shares and all(NAMES[0] not in one for one in shares.values())
    asked = server.after_vectors({name: clients[name].masked(vectors[name], of) for name, of in shares.items()})
    told = {name: clients[name].unmask(*of) for name, of in asked.items()}
    told[NAMES[2]] = dict.fromkeys(told[NAMES[2]], b"rubbish")
    np.testing.assert_array_equal(server.sum(told), sum((vectors[name] for name in NAMES[1:]), np.zeros(SIZE, np.uint32)))


def test_shares_that_were_changed_on_their_way_are_found():
    clients = {name: SecureClient(name, 7) for name in NAMES[:4]}
    server = SecureServer(7, 100, SIZE)
    keys = server.after_keys({name: client.keys() for name, client in clients.items()})
    shares = server.after_shares({name: client.shares(keys[name]) for name, client in clients.items()})
    sent = dict(shares[NAMES[0]])
    for wrong in ({NAMES[1]: sent[NAMES[2]]}, {NAMES[1]: bytes(len(sent[NAMES[1]]))}):
        with pytest.raises(Malformed, match="changed on their way"):
            clients[NAMES[0]].masked(np.zeros(SIZE, np.uint32), sent | wrong)
    with pytest.raises(Malformed, match="no keys"):
        server.after_keys({NAMES[0]: {"box": b"short", "mask": bytes(32)}})


@given(st.binary(min_size=32, max_size=32), st.integers(2, 6), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_any_threshold_of_shares_tells_the_secret_and_fewer_do_not(secret, threshold, more):
    shares = dict(enumerate(secure.shared(secret, threshold + more, threshold)))
    some = dict(list(shares.items())[more:])
    assert secure.joined(some, threshold) == secret
    with pytest.raises(UserError, match="shares are there"):
        secure.joined(dict(list(some.items())[1:]), threshold)


def test_fixed_point_adds_up_without_overflow_and_without_bias():
    rng = np.random.default_rng(0)
    ones = np.ones(4)
    for clients in (2, 100):
        for value in (ones, -ones):
            total = sum((secure.fixed_point(value * 9, 0.5, clients, rng) for _ in range(clients)), np.zeros(4, np.uint32))
            np.testing.assert_allclose(secure.from_fixed_point(total, 0.5, clients), clients * 0.5 * value, rtol=1e-6)
    values = rng.uniform(-0.5, 0.5, 1000)
    total = sum((secure.fixed_point(values, 0.5, 10, rng) for _ in range(10)), np.zeros(1000, np.uint32))
    np.testing.assert_allclose(secure.from_fixed_point(total, 0.5, 10), 10 * values, atol=2e-8)
    level = 0.5 / ((2**31 - 1) // 10 - 1)
    small = np.full(20000, 0.25 * level)
    assert abs(secure.from_fixed_point(secure.fixed_point(small, 0.5, 10, rng), 0.5, 10).mean() / level - 0.25) < 0.02
