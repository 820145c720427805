"""What tokens are as text: where words begin and sentences end.

A word is what white space and punctuation leave together; each mark, and each character of a script without spaces (Chinese, Japanese),
is one of its own. A lexicon joins such characters to words, always the longest that it has (forward maximum matching).
"""

import unicodedata
from collections.abc import Collection

import numpy as np

from data.errors import UserError
from data.files.text_files import read_text, split_lines
from data.text.rows import TextBatch
from data.tokenizer import Tokenizer

_LETTER, _APART, _SPACE, _ALONE = 0, 1, 2, 3  # kinds of a token's first and last character
_CLOSING = "\"'»”’)]」』】）》"
_ENDING = ".!?。！？…"
_LONGEST = 16
_WITHOUT_SPACES = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # kana, ideographs


def sentence_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of ordinary text that end a sentence: behind a full stop, question or exclamation mark, or with a line feed."""
    return tuple(number for number, text in enumerate(_texts(tokenizer)) if text and _ends_sentence(text))


def _ends_sentence(text: str) -> bool:
    return "\n" in text or text.rstrip().rstrip(_CLOSING).endswith(tuple(_ENDING))


class Words:
    """Numbers the words of rows.

    lexicon: words of scripts without spaces; tokens of one such character each are joined to the longest of them.
    """

    def __init__(self, tokenizer: Tokenizer, lexicon: Collection[str] = ()):
        texts = _texts(tokenizer)
        continued = np.array([text is not None and text.startswith("##") and len(text) > 2 for text in texts])
        if continued.mean() < 0.05:  # else WordPiece, which marks what goes on with a word
            continued[:] = False
        size = tokenizer.size
        self._first, self._last = np.full(size, _ALONE, np.int8), np.full(size, _ALONE, np.int8)
        self._first[: len(texts)] = [_LETTER if text is None else _kind(text[:1]) for text in texts]
        self._last[: len(texts)] = [_LETTER if text is None else _kind(text[-1:]) for text in texts]
        self._continued = np.zeros(size, bool)
        self._continued[: len(texts)] = continued
        self._word_piece = bool(continued.any())
        self._specials = set(tokenizer.specials.values())
        for number in self._specials:
            self._first[number] = self._last[number] = _ALONE
        self._lexicon = frozenset(word for word in lexicon if 1 < len(word) <= _LONGEST)
        self._longest = max(map(len, self._lexicon), default=0)
        self._characters = {number: text for number, text in enumerate(texts) if text and len(text) == 1 and _is_apart(text)}

    def __call__(self, batch: TextBatch) -> np.ndarray:
        """int32 [B, T]: number of the word within the row that each token belongs to, 0 on padding. No word spans two segments."""
        first, last = self._first[batch.tokens], self._last[batch.tokens]
        before = np.pad(last, ((0, 0), (1, 0)), constant_values=_ALONE)[:, :-1]
        begins = (first != _LETTER) | (before != _LETTER)
        if self._word_piece:  # marks and characters are tokens of their own there; all other pieces say whether they go on
            begins = ~self._continued[batch.tokens]
        edges = np.diff(batch.segments, axis=1, prepend=-1) != 0
        begins |= edges
        if self._lexicon:
            for row in range(len(begins)):
                self._join(batch.tokens[row], begins[row], edges[row])
        return (np.where(batch.segments != 0, np.cumsum(begins, 1) - 1, 0)).astype(np.int32)

    def _join(self, tokens: np.ndarray, begins: np.ndarray, edges: np.ndarray) -> None:
        """Clears the beginnings inside the words of the lexicon."""
        text = [self._characters.get(number, "") for number in tokens.tolist()]
        place = 0
        while place < len(text):
            longest = 1
            if text[place]:
                limit = place + 1
                while limit < len(text) and limit - place < self._longest and text[limit] and not edges[limit]:
                    limit += 1
                longest = next((n for n in range(limit - place, 1, -1) if "".join(text[place : place + n]) in self._lexicon), 1)
                begins[place + 1 : place + longest] = False
            place += longest


def read_lexicon(path: str) -> list[str]:
    """The words of a file, one a line, that before the first white space (so jieba's dict.txt is one). UserError for a file without any."""
    found = [line.split()[0] for line in split_lines(read_text(path)) if line.strip()]
    if not found:
        raise UserError(f"{path}: holds no words", "Give a file with a word a line.")
    return found


def _texts(tokenizer: Tokenizer) -> list[str | None]:
    """The text of each id of ordinary text; None for what is no whole character."""
    return [_decoded(tokenizer.decode_bytes([number])) for number in range(tokenizer.base_size)]


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _kind(character: str) -> int:
    if not character:
        return _ALONE
    if character.isspace():
        return _SPACE
    if _is_apart(character) or not (character.isalnum() or unicodedata.category(character)[0] in "LMN"):
        return _APART
    return _LETTER


def _is_apart(character: str) -> bool:
    """Whether it belongs to a script without spaces between words."""
    return any(first <= ord(character) <= last for first, last in _WITHOUT_SPACES)
