"""A gate that lets nothing through that it was told to stop: phrases, and what a classifier takes for harmful. It fails closed."""

import re
from collections.abc import Callable, Sequence

from serve.forbidden import Phrases, Search
from serve.gate import Gate, Outgoing, Passage
from serve.protocol import Refused

Judge = Callable[[Sequence[str]], Sequence[bool]]
"""Which of some texts are harmful."""
Note = Callable[[str, str, Sequence[str], str | None], None]
"""(whose request, why, what was asked, what was being answered; None where nothing was): takes down what was stopped."""
LONGEST_PART = 240
"""Characters after which a classifier judges what it has of a sentence."""
_SENTENCE = re.compile(r"(?<=[.!?。！？\n])")


class Guard(Gate):
    """Refuses requests and ends answers. An error in here stops a text too: nobody has looked at it."""

    def __init__(self, phrases: Phrases | None = None, judge: Judge | None = None, note: Note = lambda owner, why, asked, answer: None):
        self.phrases, self.judge, self.note = phrases, judge, note

    def open(self, texts: Sequence[str], owner: str) -> Passage:
        if why := self.why(texts):
            self.note(owner, why, texts, None)
            raise Refused("this is not answered here", None, "content_filter")
        return _Watched(texts, self, owner)

    def why(self, texts: Sequence[str]) -> str:
        """Why some whole texts are stopped; empty where they are not."""
        try:
            found = next((found for text in texts if (found := self.phrases.find(text))), []) if self.phrases is not None else []
            if found:
                return f"phrase: {found[0].phrase}"
            return "classifier" if self.judge is not None and texts and any(self.judge(texts)) else ""
        except Exception as error:
            return f"error: {type(error).__name__}"


class _Watched(Passage):
    def __init__(self, texts: Sequence[str], guard: Guard, owner: str):
        super().__init__(texts)
        self._guard, self._owner = guard, owner
        self._searched: dict[str, Search] = {}

    def outgoing(self) -> Outgoing:
        return Watch(self._guard, self._note)

    def outgoing_after(self, before: str) -> Outgoing:
        if before not in self._searched and self._guard.phrases is not None:  # once for all answers to a prompt
            self._searched[before] = Search(self._guard.phrases)
            self._searched[before].feed(before)
        return Watch(self._guard, self._note, self._searched.get(before))

    def _note(self, why: str, answer: str) -> None:
        self._guard.note(self._owner, why, self.texts, answer)


class Watch(Outgoing):
    """An answer, shown as far as it was looked at."""

    def __init__(self, guard: Guard, note: Callable[[str, str], None], before: Search | None = None):
        """before: has read the prompt, where both are one text: phrases may begin there. The answer is also searched by itself."""
        self._guard, self._note = guard, note
        self._text, self._shown, self._judged = "", 0, 0
        self._searches = [] if guard.phrases is None else [Search(guard.phrases)]
        self._searches += [] if before is None else [before.copy()]
        self._begins = [search.size for search in self._searches]

    def feed(self, text: str) -> str:
        return self._look(text, last=False)

    def finish(self) -> str:
        return self._look("", last=True)

    def passes(self, texts: Sequence[str]) -> bool:
        if why := self._guard.why(texts):
            self.stopped = True
            self._note(why, "\n".join(texts))
        return not why

    def _look(self, text: str, last: bool) -> str:
        if self.stopped:
            return ""
        self._text += text
        try:
            safe, why = self._safe(text, last)
        except Exception as error:
            safe, why = self._shown, f"error: {type(error).__name__}"
        found, self._shown = self._text[self._shown : safe], max(self._shown, safe)
        if why:
            self.stopped = True
            self._note(why, self._text)
        return found

    def _safe(self, text: str, last: bool) -> tuple[int, str]:
        """(how many characters may be shown, why the text ends there)."""
        safe, why = len(self._text), ""
        for search, begins in zip(self._searches, self._begins, strict=True):
            found = search.feed(text) + (search.finish() if last else [])
            safe = min([safe, search.safe - begins, *(one.start - begins for one in found)])
            why = why or (f"phrase: {found[0].phrase}" if found else "")
        if self._guard.judge is not None:
            if not why and self._sentence_ends(last) and self._guard.judge([self._text])[0]:
                return self._shown, "classifier"
            safe = min(safe, self._judged)  # what nobody has judged is not shown, before a phrase neither
        return max(safe, self._shown), why

    def _sentence_ends(self, last: bool) -> bool:
        """Whether there is more to judge than before: whole sentences, or much of one."""
        ends = [match.start() for match in _SENTENCE.finditer(self._text, self._judged + 1)]
        end = len(self._text) if last or len(self._text) - self._judged > LONGEST_PART else ends[-1] if ends else self._judged
        found, self._judged = end > self._judged, end
        return found
