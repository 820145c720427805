"""The units that metrics of texts compare: words, or characters where a language has no spaces between words."""

import re

WITHOUT_SPACES = ("zh", "ja")
"""Languages that are compared by characters."""
_LATIN = re.compile(r"[0-9A-Za-z]+|[^\W_]")


def units(text: str, language: str) -> list[str]:
    """The words of a text, in lower case and without punctuation. Of a language without spaces the characters: words and numbers of Latin
    letters within it stay whole."""
    if language in WITHOUT_SPACES:
        return _LATIN.findall(text.lower())
    return re.findall(r"\w+", text.lower())
