"""Simulated users: one with wishes, and one with tastes. One whom click bait tires is in train/rl/environments/satisfaction.py, games in
text in train/rl/environments/text_games.py.

All can be searched (train/rl/search/simulator_search.py). Their rules are written once, on arrays, in `advance`: the text of a
conversation is read into moves, and the same function follows one conversation in NumPy, all users at once in NumPy, or a batch of a
search's in JAX, which is passed in as `xp`. In shapes S is slots, C categories, I items, K items of a slate, U users.
"""

import dataclasses
import functools
import itertools
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from train.kinds import check_range
from train.rl.environments.environment import Prompt, Reply, Simulator


@dataclasses.dataclass(frozen=True)
class HiddenUser(Simulator):
    """A user of whom only replies are seen, out of finitely many. A user is a NamedTuple of arrays, and so is a state of the talk, with

    reward, terminal    of the last move, as in train/rl/games/games.py
    gain                float32, what the last move was good for, told at once: what one looks at who looks no further
    heard               int32 [...], all that the last reply says; -1 where it says nothing

    Every array may have leading axes. `prompt.facts` hold the user as `user`, a number among all, and a `manner` of speaking.
    """

    @property
    def actions(self) -> int:
        """Moves that a search chooses between."""
        raise NotImplementedError

    @property
    def users(self) -> Any:
        """All there are, along a leading axis."""
        raise NotImplementedError

    def likelihood(self, text: str) -> np.ndarray:
        """How likely each user is to begin the talk with this text, float [U], up to a factor."""
        raise NotImplementedError

    def begin(self, text: str, user, xp=np) -> Any:
        """The state before the policy's first turn."""
        raise NotImplementedError

    def advance(self, user, state, move, xp=np) -> Any:
        """The state after a move of the policy."""
        raise NotImplementedError

    def choose(self, state, action, xp=np) -> Any:
        """The move that a search's action stands for, of what has been heard so far: it must not look at the user."""
        raise NotImplementedError

    def read(self, turn: str) -> np.ndarray:
        """The move that a turn of the policy is; -1 where it is none."""
        raise NotImplementedError

    def write(self, move) -> str:
        """The turn that is read as this move."""
        raise NotImplementedError

    def say(self, state, move, manner: int) -> str:
        """The user's reply."""
        raise NotImplementedError

    def understand(self, reply: str) -> np.ndarray:
        """`heard` of a reply, in whatever manner."""
        raise NotImplementedError

    def follow(self, prompt: Prompt, said: Sequence[str]) -> Any:
        """The state after all that was said."""
        user = take(self.users, prompt.facts["user"])
        state = self.begin(prompt.text, user)
        for turn in said:
            state = self.advance(user, state, self.read(turn))
        return state

    def reply(self, prompt, said):
        state = self.follow(prompt, said)
        return Reply(self.say(state, self.read(said[-1]), prompt.facts["manner"]), float(state.reward), bool(state.terminal))


def take(arrays, index) -> Any:
    """Rows of a NamedTuple of arrays."""
    return type(arrays)(*(x[index] for x in arrays))


# ------------------------------------------------------------------------------------------------------------------- dialogue

SLOTS = {"food": ("thai", "taco", "soup"), "area": ("east", "west", "port"), "price": ("low", "mid", "top")}
VALUES = 3
ANY = VALUES
"""A wish that every value fits."""
POPULAR = (0.4, 0.2, 0.15, 0.25)
"""Share of users with each wish for a slot, the last one ANY."""
PATIENCE = (2, 4, 6)
"""Turns of the policy after which users leave, equally many of each."""
_OFFERS = tuple(itertools.product(range(VALUES), repeat=len(SLOTS)))
_TURNS = [f"{slot}?" for slot in SLOTS] + [
    " ".join(words[value] for words, value in zip(SLOTS.values(), offer, strict=True)) for offer in _OFFERS
]
_MOVES = {turn: move for move, turn in enumerate(_TURNS)}
_MANNERS = ("{}", "{} pls", "ok {}")


class Wisher(NamedTuple):
    """wish_S: int32, 0 to ANY. talkative: bool, answers a question with the next untold wish too. patience: int32."""

    wish_S: Any
    talkative: Any
    patience: Any


class Talk(NamedTuple):
    """known_S: int32, the wishes told so far, -1 if not. heard: int32 [S], those told just now. turn: int32, turns of the policy."""

    known_S: Any
    heard: Any
    turn: Any
    gain: Any
    reward: Any
    terminal: Any


@dataclasses.dataclass(frozen=True)
class SlotFilling(HiddenUser):
    """Find a place to eat for a user who wants some food, area and price: ask (`food?`) or offer (`taco west low`).

    The opening tells up to two wishes. Every turn costs; the first offer ends the talk, with 1 if it fits all wishes, else with a penalty.
    So does the user's leaving. A turn that is neither question nor offer is answered with `sorry?`, and costs.
    """

    turns: int = 6
    """Maximum turns of the policy. In the last one only an offer can still earn anything."""
    cost: float = 0.05
    """Cost of each turn, in units of reward."""
    penalty: float = 0.5
    """Cost of a wrong offer, and of a user who leaves, in units of reward."""
    every_offer: bool = False
    """Let a search choose among all offers. False: it can only make the one likeliest to fit what was told, since it must not name wishes
    that it does not know."""

    @property
    def alphabet(self):
        return string.ascii_lowercase + " ,?"

    @property
    def actions(self):
        return len(_TURNS) if self.every_offer else len(SLOTS) + 1

    @property
    def users(self):
        return _wishers()[0]

    def likelihood(self, text):
        told_S, wish_US = self.understand(text), self.users.wish_S
        return _wishers()[1] * ((told_S < 0) | (told_S == wish_US)).all(-1)

    def draw(self, rng):
        number = rng.choices(range(len(_wishers()[1])), _wishers()[1])[0]
        manner, told = rng.randrange(len(_MANNERS)), sorted(rng.sample(range(len(SLOTS)), rng.randrange(3)))
        greeting, wish_S = rng.choice(("hi", "hey", "hello")), take(self.users, number).wish_S
        words = _MANNERS[manner].format(", ".join(_word(slot, wish_S[slot]) for slot in told))
        return Prompt(f"{greeting}, {words}" if told else greeting, {"user": number, "manner": manner})

    def begin(self, text, user, xp=np):
        zero = xp.zeros(user.patience.shape, np.float32)
        known_S = xp.broadcast_to(xp.asarray(self.understand(text)), user.wish_S.shape)
        return Talk(known_S, known_S, zero.astype(np.int32), zero, zero, zero > 0)

    def advance(self, user, state, move, xp=np):
        slots, turn = xp.arange(len(SLOTS)), state.turn + 1
        asks, offers = (move >= 0) & (move < len(SLOTS)), move >= len(SLOTS)
        ahead_S = (slots - move[..., None]) % len(SLOTS)  # 0 for the slot asked about
        untold_S = xp.where((state.known_S < 0) & (ahead_S > 0), ahead_S, len(SLOTS))
        more_S = (untold_S == untold_S.min(-1, keepdims=True)) & (untold_S < len(SLOTS)) & user.talkative[..., None]
        heard_S = xp.where(asks[..., None] & ((ahead_S == 0) | more_S), user.wish_S, -1).astype(np.int32)
        offer_S = (move - len(SLOTS))[..., None] // VALUES ** slots[::-1] % VALUES
        fits = ((user.wish_S == offer_S) | (user.wish_S == ANY)).all(-1)
        leaves = ~offers & (turn >= xp.minimum(user.patience, self.turns))
        reward = xp.where(offers & fits, 1.0, xp.where(offers | leaves, -self.penalty, 0.0)) - self.cost
        known_S = xp.where(heard_S >= 0, heard_S, state.known_S)
        return Talk(known_S, heard_S, turn, reward.astype(np.float32), reward.astype(np.float32), offers | leaves)

    def choose(self, state, action, xp=np):
        if self.every_offer:
            return action
        guess_S = xp.where((state.known_S < 0) | (state.known_S == ANY), 0, state.known_S)  # 0 is the most popular value
        offer = (guess_S * VALUES ** xp.arange(len(SLOTS))[::-1]).sum(-1)
        return xp.where(action < len(SLOTS), action, len(SLOTS) + offer)

    def read(self, turn):
        return np.int32(_MOVES.get(turn, -1))

    def write(self, move):
        return _TURNS[int(move)]

    def say(self, state, move, manner):
        told = sorted(np.flatnonzero(state.heard >= 0).tolist(), key=lambda slot: slot != move)  # the answer, then what nobody asked for
        return _MANNERS[manner].format(", ".join(_word(slot, state.heard[slot]) for slot in told)) if told else "sorry?"

    def understand(self, reply):
        words = re.findall("any [a-z]+|[a-z]+", reply)
        heard = [next((value for value in range(VALUES + 1) if _word(slot, value) in words), -1) for slot in range(len(SLOTS))]
        return np.array(heard, np.int32)

    def act(self, prompt, said, rng):
        """Asks for what is not known, but at times for anything, and makes offers too early, or with a word mistaken."""
        state = self.follow(prompt, said)
        unknown = np.flatnonzero(state.known_S < 0).tolist()
        if rng.random() < 0.2:
            return self.write(rng.randrange(len(SLOTS)))
        if unknown and rng.random() < 0.8:
            return self.write(unknown[0])
        offer = [rng.randrange(VALUES) if value in (-1, ANY) else int(value) for value in state.known_S]
        if rng.random() < 0.1:
            offer[rng.randrange(len(SLOTS))] = rng.randrange(VALUES)
        return self.write(len(SLOTS) + _OFFERS.index(tuple(offer)))


def _word(slot: int, value: int) -> str:
    name, words = list(SLOTS.items())[slot]
    return f"any {name}" if value == ANY else words[value]


@functools.cache
def _wishers() -> tuple[Wisher, np.ndarray]:
    """All users, and how common each is."""
    rows = list(itertools.product(*[range(VALUES + 1)] * len(SLOTS), (False, True), PATIENCE))
    users = Wisher(np.array([row[: len(SLOTS)] for row in rows], np.int32), *(np.array(x) for x in list(zip(*rows, strict=True))[-2:]))
    return users, np.asarray(POPULAR)[users.wish_S].prod(-1) / (2 * len(PATIENCE))


# ------------------------------------------------------------------------------------------------------------- recommendation

CATEGORIES = (("alien", "heat", "jaws"), ("abba", "bach", "jazz"), ("dune", "emma", "iliad"), ("chess", "tetris", "uno"))
ITEMS = tuple(itertools.chain(*CATEGORIES))
EACH = len(CATEGORIES[0])
LEVELS = 4
"""Of a taste for a category: 0 is never liked, 3 bears the category twice in a row."""
REACTIONS = ("skipped", "liked", "bored")
_TIRING = ("{}: {}", "{} {}", "{}.. {}")


class Taster(NamedTuple):
    """taste_C: int32, 0 to 3 for each category."""

    taste_C: Any


class Session(NamedTuple):
    """seen_I: bool, items the user has reacted to. fed_C: int32, how weary of each category. liked, bored: int32, items so far.
    heard: int32, 3 * the item reacted to + the reaction. turn: int32."""

    seen_I: Any
    fed_C: Any
    liked: Any
    bored: Any
    heard: Any
    turn: Any
    gain: Any
    reward: Any
    terminal: Any


@dataclasses.dataclass(frozen=True)
class Recommendations(HiddenUser):
    """Name an item a turn (`dune`) to a user with tastes over categories; what the session was worth is told at its end alone.

    An item is liked if the taste for its category is greater than how fed up the user is with that, which grows by 2 with every item of
    it and falls by 1 in every other turn. Else a user with some taste for it is bored, and leaves when bored too often. No item is liked
    twice. The session is worth the share of its turns in which something was liked, and a bonus if the user stayed.
    """

    turns: int = 6
    """Turns of a session."""
    slate: int = 1
    """Items named in a turn, separated by commas: the user takes the one liked best, the first of equals."""
    tolerance: int = 2
    """Boring items after which the user leaves."""
    bonus: float = 0.25
    """Reward for a user who stayed to the end."""

    def __post_init__(self):
        super().__post_init__()
        check_range("Recommendations: ", self, 1, "slate")

    @property
    def alphabet(self):
        return string.ascii_lowercase + " ,:.?"

    @property
    def actions(self):
        return len(CATEGORIES) ** self.slate

    @property
    def users(self):
        return _tasters()

    def likelihood(self, text):
        wanted = [item // EACH for item, name in enumerate(ITEMS) if name in text.split()]
        taste_UC = self.users.taste_C
        choices_U = EACH * (taste_UC > 0).sum(-1)
        return (taste_UC[:, wanted] > 0).all(-1) / (choices_U * (choices_U - 1))

    def draw(self, rng):
        number = rng.randrange(len(self.users.taste_C))
        wanted = [item for item in range(len(ITEMS)) if self.users.taste_C[number, item // EACH] > 0]
        a, b = rng.sample(wanted, 2)
        return Prompt(f"i like {ITEMS[a]} and {ITEMS[b]}", {"user": number, "manner": rng.randrange(len(_TIRING))})

    def begin(self, text, user, xp=np):
        zero = xp.zeros(user.taste_C.shape[:-1], np.float32)
        none, fed_C = zero.astype(np.int32), xp.zeros(user.taste_C.shape, np.int32)
        return Session(xp.zeros((*zero.shape, len(ITEMS)), bool), fed_C, none, none, none - 1, none, zero, zero, zero > 0)

    def advance(self, user, state, move, xp=np):
        """move: int32 [K], items."""
        makes_sense, turn = (move >= 0).all(-1), state.turn + 1
        named_KI = move[..., None] == xp.arange(len(ITEMS))
        of_KC = (move // EACH)[..., None] == xp.arange(len(CATEGORIES))
        again_K = (named_KI & state.seen_I[..., None, :]).any(-1)
        worth_K = (of_KC * (user.taste_C - state.fed_C)[..., None, :]).sum(-1)
        worth_K = xp.where(again_K, -99, worth_K)
        taken_K = (worth_K.argmax(-1)[..., None] == xp.arange(self.slate)) & makes_sense[..., None]
        taken_C, item = (taken_K[..., None] & of_KC).any(-2), (taken_K * move).sum(-1)
        likes = makes_sense & (worth_K.max(-1) > 0)
        tires = makes_sense & ~likes & ((taken_C * user.taste_C).sum(-1) > 0)
        fed_C = xp.where(taken_C, state.fed_C + 2, xp.maximum(state.fed_C - 1, 0))
        liked, bored = state.liked + likes, state.bored + tires
        leaves = bored >= self.tolerance
        over = leaves | (turn >= self.turns)
        reward = xp.where(over, liked / self.turns + xp.where(leaves, 0.0, self.bonus), 0.0)
        return Session(
            seen_I=state.seen_I | (taken_K[..., None] & named_KI).any(-2),
            fed_C=fed_C.astype(np.int32),
            liked=liked,
            bored=bored,
            heard=xp.where(makes_sense, len(REACTIONS) * item + likes + 2 * tires, -1).astype(np.int32),
            turn=turn,
            gain=likes.astype(np.float32),
            reward=reward.astype(np.float32),
            terminal=over,
        )

    def choose(self, state, action, xp=np):
        """An action is a category for each place of the slate: of each the first item not yet seen."""
        category_K = action[..., None] // len(CATEGORIES) ** xp.arange(self.slate)[::-1] % len(CATEGORIES)
        unseen_CE = ~state.seen_I.reshape(*state.seen_I.shape[:-1], len(CATEGORIES), EACH)
        first_C = unseen_CE.argmax(-1)  # the first of all where all are seen
        of_KC = category_K[..., None] == xp.arange(len(CATEGORIES))
        return EACH * category_K + (of_KC * first_C[..., None, :]).sum(-1)

    def read(self, turn):
        names = turn.split(", ")
        if len(names) != self.slate or not set(names) <= set(ITEMS):
            return np.full(self.slate, -1, np.int32)
        return np.array([ITEMS.index(name) for name in names], np.int32)

    def write(self, move):
        return ", ".join(ITEMS[item] for item in move)

    def say(self, state, move, manner):
        item, reaction = divmod(int(state.heard), len(REACTIONS))
        return _TIRING[manner].format(ITEMS[item], REACTIONS[reaction]) if state.heard >= 0 else "which?"

    def understand(self, reply):
        words = re.findall("[a-z]+", reply)
        if words == ["which"]:
            return np.int32(-1)
        return np.int32(len(REACTIONS) * ITEMS.index(words[0]) + REACTIONS.index(words[1]))

    def act(self, prompt, said, rng):
        """Goes on with the category that was liked last, by half; else anything. Names what was seen before."""
        item, reaction = divmod(int(self.follow(prompt, said).heard), len(REACTIONS))
        first = rng.choice(CATEGORIES[item // EACH]) if said and reaction == 1 and rng.random() < 0.5 else rng.choice(ITEMS)
        return ", ".join([first, *(rng.choice(ITEMS) for _ in range(self.slate - 1))])


@functools.cache
def _tasters() -> Taster:
    """All but those who like nothing."""
    return Taster(np.array(list(itertools.product(range(LEVELS), repeat=len(CATEGORIES)))[1:], np.int32))
