"""What a run that learns a board game by playing against itself is made of. Nothing heavy is imported."""

import dataclasses
from typing import ClassVar, Literal

from train.kinds import Data, Objective, check_range

OWN = ("tic_tac_toe", "connect_four")
"""Games of train/rl/games/games.py by their names; all others are pgx's."""


@dataclasses.dataclass(frozen=True)
class BoardGame(Data):
    """A game of two players; a row of the run is one game, played by the network against itself."""

    home: ClassVar[str] = "train.rl.games.dataset:GameDataset"
    rows: ClassVar[str] = "games"

    game: str = "tic_tac_toe"
    """tic_tac_toe, connect_four, or a game of pgx (extra: games), such as othello."""
    longest: int = 0
    """With a game of pgx: maximum moves of a game."""
    opening_plies: int = 6
    """Games begin with 0 to this many random moves, which are not learned from."""
    exploring_plies: int = 4
    """Moves before this ply are sampled from the search's policy; later ones are the search's best."""

    def __post_init__(self):
        check_range("data.", self, 0, "opening_plies", "exploring_plies")
        if (self.longest > 0) == (self.game in OWN):
            raise ValueError(f"data.longest is {self.longest} for {self.game}; give it for games of pgx, and only for those")


@dataclasses.dataclass(frozen=True)
class AlphaZero(Objective):
    """A network that foresees what a tree search over it would play, and how the game ends (Silver et al. 2017).

    The search is Gumbel's (Danihelka et al. 2022). `model` is not used: the network is described here.
    """

    home: ClassVar[str] = "train.rl.games.alphazero:bind"
    learner: ClassVar[str] = "train.rl.games.learner:AlphaZeroLearner"
    reads: ClassVar[tuple[str, ...]] = ("games",)
    uses_model: ClassVar[bool] = False
    of_texts: ClassVar[bool] = False
    only_evaluated: ClassVar[tuple[str, ...]] = ("match_simulations",)

    network: Literal["dense", "conv"] = "dense"
    """dense: layers over the whole board, fast on a CPU. conv: 3x3 convolutions."""
    width: int = 128
    """Width of a layer; with conv, channels."""
    blocks: int = 2
    """Residual blocks of two layers each."""
    simulations: int = 32
    """Simulations of the search for each move of self-play."""
    epochs: int = 1
    """Passes over the games of each step."""
    minibatches: int = 8
    """Minibatches, and so updates, in each epoch."""
    value_coefficient: float = 1.0
    """Weight of the squared error of the value."""
    bootstrap: float = 0.0
    """Share of the search's own value in the value's target, 0 to 1; the rest is the outcome of the game."""
    match_simulations: int = 32
    """Simulations for each move in evaluation matches, of this search and of the plain Monte Carlo tree search it plays against."""

    def __post_init__(self):
        check_range("objective.", self, 1, "width", "blocks", "simulations", "epochs", "minibatches", "match_simulations")
        check_range("objective.", self, 0, "value_coefficient")
        if not 0 <= self.bootstrap <= 1:
            raise ValueError(f"objective.bootstrap is {self.bootstrap}; it must be from 0 to 1")
