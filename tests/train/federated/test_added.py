"""No two sums of the same updates: who helped to show one refuses another, whatever became of the server."""

import contextlib
import dataclasses
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.errors import UserError
from train.bridge.adapters import digest_of
from train.federated import client as clients
from train.federated.added import FILE, Added
from train.federated.exchange import Again, Exchange
from train.federated.messages import Malformed, packed, tree_of, unpacked
from train.federated.options import Gathered, Network

FOUR, FIVE = ("ann", "bob", "dan", "eve"), ("ann", "bob", "dan", "eve", "zoe")
PARAMS = {"w": np.zeros(3, np.float32)}
DIGEST = digest_of(tree_of(PARAMS))


def update_of(name: str) -> np.ndarray:
    return np.full(3, 0.1 + 0.01 * FIVE.index(name), np.float32)


def options(least: int, seconds: float = 30) -> Gathered:
    return Gathered(secure=True, clip=2.0, most_weight=4.0, network=Network(least=least, seconds=seconds))


class Federation(contextlib.AbstractContextManager):
    """A server, and clients in threads that take part as they do over a network. told: for which sums each client gave its shares."""

    def __init__(self, place, agreed: Gathered):
        self.agreed, self.told = agreed, {name: list[list[str]]() for name in FIVE}
        self._place, self._threads, self._stopped = place, dict[str, threading.Thread](), set[str]()
        self.start_server()

    def start_server(self, file: str = FILE, **changed: Any) -> None:
        """One that knows what is in a file."""
        agreed = dataclasses.replace(self.agreed, **changed)
        self.exchange = Exchange(agreed, {"w": (3,)}, {"run": "r"}, Added(self._place / file))

    def start(self, *names: str) -> None:
        self._stopped -= {*names}
        for name in names:
            self._threads[name] = threading.Thread(target=self._part, args=(name,), daemon=True)
            self._threads[name].start()

    def kill(self, *names: str) -> None:
        self._stopped |= {*names}
        for name in names:
            self._threads[name].join(10)

    def __exit__(self, *_):
        self.kill(*self._threads)

    def _part(self, name: str) -> None:
        (self._place / name).mkdir(exist_ok=True)

        class Trainer:
            added, shapes, count = Added(self._place / name / FILE), {"w": (3,)}, 1

            def __call__(self, number, params):
                return {"w": update_of(name)}, 2.0, 0.5

        server: Any = lambda what, message: self._answer(name, what, message)  # noqa: E731
        trainer: Any = Trainer()
        experiment: Any = SimpleNamespace(gradient=self.agreed)
        with contextlib.suppress(SystemExit):
            clients.take_part(server, trainer, experiment, name, lambda line: None)

    def _answer(self, name: str, what: str, message: dict[str, Any]) -> dict[str, Any]:
        if name in self._stopped:
            raise SystemExit
        if what == "next":
            return unpacked(packed(self.exchange.next(name, 0.02)))
        if what == "skip":
            return self.exchange.skip(name)
        if message["did"] == "unmask":
            self.told[name].append(sorted({*message["bytes"], name}))
        return {"used": self.exchange.take(name, message)}

    def round(self, number: int = 3, params=PARAMS, tries: int = 5) -> Any:
        """What a round brought, after so many tries at most; None for nothing. All clients that were started are there."""
        while {*self._threads} - self._stopped > {*self.exchange._here()}:
            time.sleep(0.01)
        for _ in range(tries):
            with contextlib.suppress(Again):
                return self.exchange.round(number, params, 9, lambda: None)
        return None


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(clients, "time", SimpleNamespace(sleep=lambda seconds: time.sleep(0.01)))


def equals_mean_of(gain, *names: str) -> bool:
    return np.allclose(gain.changes["w"][0], np.mean([update_of(name) for name in names], 0), atol=1e-6)


def test_too_few_are_not_added_up_and_then_with_one_more(tmp_path, monkeypatch):
    """Five that are enough, of which one is lost before it sends its vector, and comes back: nobody helps to show the sum of four."""
    take, lost = Exchange.take, []

    def take_but_once(exchange, name, message):
        if name == "zoe" and message["did"] == "train" and not lost:
            lost.append(exchange.skip(name))
            return False
        return take(exchange, name, message)

    monkeypatch.setattr(Exchange, "take", take_but_once)
    with Federation(tmp_path, options(5)) as federation:
        federation.start(*FIVE)
        assert equals_mean_of(federation.round(), *FIVE) and lost
        assert all(told == [[*FIVE]] for told in federation.told.values())


def test_clients_do_not_help_a_server_that_adds_up_fewer_than_agreed(tmp_path):
    with Federation(tmp_path, options(5)) as federation:
        federation.start_server(network=Network(least=3, seconds=30))
        federation.start(*FOUR)
        assert federation.round(tries=2) is None and not any(federation.told.values())


@pytest.mark.parametrize("clients_too", [False, True])
def test_a_server_that_died_before_it_saved_gets_the_same_sum_again_and_no_other(tmp_path, clients_too):
    """Four are added up, the server dies, and a fifth comes. It has the sum of four from before, so that of five would show the fifth."""
    with Federation(tmp_path, options(4)) as federation:
        federation.start(*FOUR)
        assert equals_mean_of(federation.round(), *FOUR)
        if clients_too:
            federation.kill(*FOUR)
            federation.start(*FOUR)
        federation.start("zoe")
        federation.start_server("lost")
        assert federation.round() is None, "a server that has lost its list gets nothing"
        federation.start_server()
        assert equals_mean_of(federation.round(), *FOUR)
        assert all(told == [[*FOUR]] * 2 for name, told in federation.told.items() if name != "zoe") and not federation.told["zoe"]
        assert equals_mean_of(federation.round(4, {"w": np.ones(3, np.float32)}), *FIVE), "the next round is another matter"


def test_the_same_parameters_are_not_added_up_with_others_in_another_round(tmp_path):
    """From them come the same updates, whatever the round is called; nor a round of the same number, from parameters nearly the same."""
    with Federation(tmp_path, options(4)) as federation:
        federation.start(*FOUR)
        assert equals_mean_of(federation.round(), *FOUR)
        federation.start("zoe")
        federation.start_server("lost")
        assert federation.round(4) is None and federation.round(3, {"w": PARAMS["w"] + 1e-9}) is None


def test_a_client_that_did_not_come_back_is_waited_for_and_then_done_without(tmp_path):
    """Where the others have not helped yet: those who have would refuse."""
    with Federation(tmp_path, options(4, seconds=1)) as federation:
        Added(tmp_path / FILE).keep("r", 3, DIGEST, [*FOUR, "gone"])
        federation.start_server()
        federation.start(*FOUR)
        assert equals_mean_of(federation.round(), *FOUR)


@pytest.mark.parametrize(
    "asked",
    [
        {"among": ["ann", "bob", "dan"]},
        {"among": ["bob", "dan", "eve", "zoe"]},
        {"among": ["ann", "dan", "eve", "zoe"]},
        {"dropped": ["eve"]},
        {"among": ["ann", "ann", "bob", "dan", "eve"]},
        {"among": "ann"},
        {"survivors": [["bob"]]},
    ],
)
def test_a_client_helps_with_the_sum_that_it_is_told_of_and_no_other(tmp_path, asked):
    """Too few; without itself; without a neighbour that is asked for; one neighbour asked for both ways; no names."""
    secure: Any = SimpleNamespace(name="ann", unmask=lambda survivors, dropped: {"bob": b""})
    fine = {"among": [*FOUR], "survivors": ["bob", "dan", "eve"], "dropped": []}
    once = Added()
    for _ in range(2):
        assert clients._unmasked(secure, ("r", 3, DIGEST), fine, 4, once)
    with pytest.raises(Malformed, match="was added up with ann, bob, dan, eve before"):
        clients._unmasked(secure, ("r", 3, DIGEST), fine | {"among": [*FIVE]}, 4, once)
    with pytest.raises(Malformed):
        clients._unmasked(secure, ("r", 3, DIGEST), fine | asked, 4, added := Added(tmp_path / FILE))
    assert not added.of("r", 3, DIGEST)


def test_what_was_added_up_outlives_a_process_and_half_a_line(tmp_path):
    added = Added(tmp_path / FILE)
    added.keep("r", 3, "x", ["b", "a"])
    with open(tmp_path / FILE, "ab") as file:
        file.write(b'\n{"run": "r", "round": 4, "par')
    again = Added(tmp_path / FILE)
    again.keep("r", 5, "y", ["a"])
    for one in (again, Added(tmp_path / FILE)):
        assert one.of("r", 3, "z") == one.of("s", 9, "x") == {frozenset("ab")} and one.of("r", 5, "y") == {frozenset("a")}
        assert not one.of("r", 4, "z") and not one.of("s", 3, "z")
        one.check("r", 3, "x", "ab")
        with pytest.raises(Malformed, match="round 3 was added up with a, b before"):
            one.check("r", 3, "x", "abc")


@pytest.mark.parametrize("length", [1e16, 3e38])
def test_an_update_that_no_square_can_hold_is_refused_by_name(length):
    exchange = Exchange(Gathered(), {"w": (3,)}, {})
    message = {"did": "train", "change": {"w": np.full(3, length, np.float32)}, "weight": 1, "loss": 0.0}
    with pytest.raises(Malformed, match="no update is longer than 1e\\+15"):
        exchange._checked(message)


def test_what_a_crash_left_is_borne_and_damage_is_not(tmp_path):
    """Half a line at the end, or before the next; a line that was whole once and is not any more says which sums may not be asked for."""
    path = tmp_path / FILE
    Added(path).keep("r", 1, "a", FOUR)
    with path.open("ab") as file:
        file.write(b'\n{"run": "r", "rou')
    again = Added(path)
    again.keep("r", 2, "b", FIVE)
    assert Added(path).of("r", 1, "x") == {frozenset(FOUR)} and Added(path).of("r", 2, "x") == {frozenset(FIVE)}
    path.write_bytes(path.read_bytes().replace(b'"round": 1', b'"round" 1', 1).replace(b'"round":1', b'"round" 1', 1))
    with pytest.raises(UserError, match="is damaged"):
        Added(path)
