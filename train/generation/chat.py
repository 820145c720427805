"""What belongs to a conversation with a run's model, in `<run>/chat.json`: its template, special tokens, where a reply ends.

Templates are Jinja of strangers and run in a sandbox. What people write never becomes a special token.
"""

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.files import json_files
from data.tokenizer import Tokenizer

FILE = "chat.json"
GENERATION = (re.compile(r"({%[-+]?\s*)generation(\s*[-+]?%})"), r"\1if true\2"), (re.compile(r"({%[-+]?\s*)endgeneration\b"), r"\1endif")
"""A tag of Hugging Face's library around what the assistant says, which marks it for training, and what renders alike."""
PRIVATE = range(0xE000, 0xF900)
"""Unicode's private-use characters: one that no text holds stands around what only looks like a special token."""


@dataclasses.dataclass(frozen=True)
class Chat:
    """What belongs to a conversation with a model."""

    template: str = ""
    """Jinja, as Hugging Face's library renders it; empty for a model that has none."""
    tokens: dict[str, str] = dataclasses.field(default_factory=dict)
    """Special tokens by their roles (`bos_token`, `eos_token`, ...), which templates read as variables."""
    specials: dict[str, int] = dataclasses.field(default_factory=dict)
    """Ids of all special tokens, by what is written for them."""
    start_ids: tuple[int, ...] = ()
    """What the model expects before a plain text; empty where it has no such token."""
    stop_ids: tuple[int, ...] = ()
    """A reply, or a text, ends with any of these."""
    defaults: dict[str, float] = dataclasses.field(default_factory=dict)
    """How its authors sample from it: temperature, top_k, top_p, min_p, repetition_penalty."""
    pool: str = ""
    """How its authors make the vector of a text, in the words of `omnia embed --pool`; empty where they do not say."""
    max_tokens: int = 0
    """Tokens of a text that they read for it. 0: the model's context."""

    @property
    def reads_tools(self) -> bool:
        """Whether the template tells of tools."""
        return "tools" in _variables(self.template)

    def save(self, run: Path) -> None:
        json_files.write(run / FILE, dataclasses.asdict(self))

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        reply: bool = True,
        tools: list[dict[str, Any]] | None = None,
        most: int = 0,
        today: datetime.datetime | None = None,
    ) -> list[tuple[str, int | None]]:
        """The conversation in pieces of text, special tokens with their ids, and ordinary text with None.

        messages: {"role", "content"} and whatever else the template knows. reply: end with the beginning of the model's next message.
        tools: functions that the model may call, for a template that says so. most: characters that the template may make of it; 0: any
        number. today: for templates that write it. UserError for what the template refuses.
        """
        if not self.specials:
            return [(_rendered(self.template, messages, reply, self.tokens, tools, most, today), None)]
        names = sorted(self.specials, key=len, reverse=True)
        special = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        taken = set(self.template).union(*_texts(list(messages)), *_texts(tools), *names)
        mark = next(chr(code) for code in PRIVATE if chr(code) not in taken)

        def guarded(value):
            """The value with its place in `names` instead of every special token that it spells."""
            if isinstance(value, str):
                return special.sub(lambda found: f"{mark}{names.index(found[0])}{mark}", value)
            if isinstance(value, dict):
                return {name: guarded(one) for name, one in value.items()}
            return [guarded(one) for one in value] if isinstance(value, list) else value

        def spelled(text: str) -> str:
            return re.sub(f"{mark}(\\d+){mark}", lambda found: names[int(found[1])], text)

        pieces = special.split(_rendered(self.template, guarded(list(messages)), reply, self.tokens, guarded(tools), most, today))
        return [
            (piece, self.specials[piece]) if place % 2 else (spelled(piece), None)  # every second one is what it was split at
            for place, piece in enumerate(pieces)
            if piece
        ]

    def encode(self, messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, *, reply: bool = True, **options) -> list[int]:
        """Ids of the conversation; options: see `render`."""
        ids: list[int] = []
        for piece, special in self.render(messages, reply=reply, **options):
            encode = tokenizer.encode_inside if ids else tokenizer.encode
            ids += encode(piece).tolist() if special is None else [special]
        return ids


def load_chat(run: Path) -> Chat:
    """A run's; one without anything where the run has none. UserError for a damaged file."""
    path = run / FILE
    if not path.is_file():
        return Chat()
    stored = json_files.read(path, "Import the model again.")
    try:
        return Chat(**stored | {name: tuple(stored[name]) for name in ("start_ids", "stop_ids")})
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged ({error})", "Import the model again.") from None


def _texts(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in _texts(one)]


def _rendered(
    template: str, messages: Sequence[dict[str, Any]], reply: bool, tokens: dict[str, str], tools: Any, most: int, today: Any
) -> str:
    """As Hugging Face's library does it."""
    try:
        import jinja2
    except ImportError:
        raise UserError("a conversation needs the package jinja2", "Install it: pip install 'omnia[hf]'.") from None
    given = {"messages": messages, "add_generation_prompt": reply, "tools": tools, "documents": None}
    given["strftime_now"] = (today or datetime.datetime.now()).strftime
    try:
        pieces, size = [], 0
        for piece in _compiled(template).generate(**given, **tokens):
            pieces.append(piece)
            size += len(piece)
            if most and size > most:
                raise jinja2.TemplateError(f"it would have more than {most} characters")
        return "".join(pieces)
    except jinja2.TemplateError as error:
        raise UserError(f"the model's chat template refuses this conversation: {error}", "Change the messages.") from None
    except Exception as error:  # of a stranger's template: anything at all
        raise UserError(f"the model's chat template fails: {type(error).__name__}: {error}", "Change the messages.") from None


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    return _environment().from_string(_plain(template))


@functools.lru_cache(maxsize=8)
def _variables(template: str) -> frozenset[str]:
    """What a template reads that it is given."""
    from jinja2 import TemplateError, meta

    try:
        return frozenset(meta.find_undeclared_variables(_environment().parse(_plain(template))))
    except TemplateError:  # said where it is rendered
        return frozenset()


def _plain(template: str) -> str:
    for tag, alike in GENERATION:
        template = tag.sub(alike, template)
    return template


def _environment() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    return environment


def _json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Without the escapes of HTML that Jinja's own filter makes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str):
    import jinja2

    raise jinja2.TemplateError(message)
