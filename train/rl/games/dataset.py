"""A board game as the data of a run."""

import xxhash

from data.tokenizer import Tokenizer, character_tokenizer
from train.kinds import Dataset
from train.rl.games.options import BoardGame

MOVES = "0123456789 "
"""What a game is written with: the numbers of its moves."""


class GameSource:
    """A game as the data of a run: what a Corpus is to text. Its tokenizer is that of moves in print."""

    def __init__(self, data: BoardGame):
        self.path = data.game
        self.digest = xxhash.xxh3_128_hexdigest(data.game.encode())
        self._tokenizer = character_tokenizer(MOVES)
        self.document_end = self._tokenizer.specials["document_end"]
        self.ids = self._tokenizer.size

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer


class GameDataset(Dataset):
    """One game, whose rows the network plays itself."""

    options: BoardGame
    counts_tokens = False

    def paths(self) -> tuple[str, ...]:
        return (self.options.game,)

    def open(self, tokenizer: Tokenizer | None = None) -> list[GameSource]:
        return [GameSource(self.options)]
