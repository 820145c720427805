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
    """tic_tac_toe, connect_four, or one of pgx (extra: games), such as othello."""
    longest: int = 0
    """Of a game of pgx: moves after which it is over."""
    opening_plies: int = 6
    """A game begins with 0 to this many random moves, which are not learned from."""
    exploring_plies: int = 4
    """Until this ply moves are drawn from the policy of the search, then it plays as well as it can."""

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

    network: Literal["dense", "conv"] = "dense"
    """Layers over the whole board, fast on a CPU, or convolutions of 3x3 cells."""
    width: int = 128
    """Of a layer; of convolutions, for each cell."""
    blocks: int = 2
    """Residual blocks, of two layers each."""
    simulations: int = 32
    """Of the search at each move of self-play."""
    epochs: int = 1
    """Times that the games of a step are learned from."""
    minibatches: int = 8
    """Updates in each of those."""
    value_coefficient: float = 1.0
    """Weight of the squared error of the value."""
    bootstrap: float = 0.0
    """Share of the search's own value of a position in what the value learns, 0 to 1; the rest is how the game ended."""
    match_simulations: int = 32
    """Of the search at each move of a match in evaluations, and of plain Monte Carlo tree search, which it plays against."""

    def __post_init__(self):
        check_range("objective.", self, 1, "width", "blocks", "simulations", "epochs", "minibatches", "match_simulations")
        check_range("objective.", self, 0, "value_coefficient")
        if not 0 <= self.bootstrap <= 1:
            raise ValueError(f"objective.bootstrap is {self.bootstrap}; it must be from 0 to 1")
