"""The pages that the server shows: each is one file that loads nothing, and a browser runs of it what stands in that file alone."""

import base64
import hashlib
import html
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PLACE = re.compile(r"\{\{(\w+)\}\}")


class Page:
    """A file beside this one, with the style that all share in it, and {{places}} that are filled when it is shown."""

    def __init__(self, name: str):
        text = (FOLDER / name).read_text(encoding="utf-8")
        self._text = text.replace("{{style}}", (FOLDER / "page.css").read_text(encoding="utf-8"))
        self.policy = _policy_of(self._text)
        """Content-Security-Policy."""

    def filled(self, **values: str) -> bytes:
        """With these texts in its places, which can be texts or values of attributes."""
        return PLACE.sub(lambda place: html.escape(values[place[1]]), self._text).encode("utf-8", "replace")


def _policy_of(page: str) -> str:
    """What a browser may run for a page: its own script and style, to the letter, and nothing from elsewhere."""

    def only(tag: str) -> str:
        own = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {only('script')}; style-src {only('style')}; connect-src 'self'; img-src data: blob:; "
        "media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
