"""What a text may be: JSON, a schema, a regular expression or a tool's call, as a set of tokens that may come next (llguidance)."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.files import json_files
from serve.jobs import Grammar
from serve.protocol import DEEPEST, Refused

LARGEST = 64 << 10
"""Bytes of a schema or an expression, or of those of all tools."""
LIMITS: dict[str, Any] = {"initial_lexer_fuel": 200_000, "step_lexer_fuel": 20_000, "max_lexer_states": 50_000}
"""Of what a token may cost: a tenth of a second at most, for which all texts wait. An expression of a few bytes can ask for minutes."""
SPACES: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Between the parts of JSON: one space, or none. A small model that may put as many as it likes puts nothing else."""


class Grammars:
    """Grammars over one vocabulary. pieces: bytes of each id that a text is made of; end: an id that ends one."""

    def __init__(self, pieces: Sequence[bytes], vocabulary: int, end: int, encode: Any):
        self._pieces, self._vocabulary, self._end, self._encode = pieces, vocabulary, end, encode
        self._tokenizer: Any = None

    def _loaded(self) -> Any:
        if self._tokenizer is None:
            import llguidance

            tokens = [self._pieces[id_] if id_ < len(self._pieces) else b"" for id_ in range(self._vocabulary)]
            # What has no bytes of its own is told apart by a mark that no text has.
            tokens = [piece or b"\xff<%d>" % id_ for id_, piece in enumerate(tokens)]
            self._tokenizer = llguidance.LLTokenizer(
                llguidance.TokenizerWrapper(_Tokens(tokens, self._end, self._encode)), eos_token=self._end
            )
        return self._tokenizer

    def of_format(self, form: dict[str, Any], param: str = "response_format") -> Grammar | None:
        """None for plain text; Refused for a schema or an expression that cannot be obeyed."""
        from llguidance import LLMatcher

        if form["type"] == "text":
            return None
        if form["type"] == "regex":
            if not form.get("forbidden"):
                return self._made(LLMatcher.grammar_from_regex(_checked(form["regex"], param)), param)
            nowhere = "|".join(f"({one})" for one in form["forbidden"])
            lark = f"start: TEXT\nTEXT: {_in_lark(form['regex'])} & ~{_in_lark(f'(?s:.*)({nowhere})(?s:.*)')}\n"
            return self._made(LLMatcher.grammar_from_lark(_checked(lark, param)), param)
        schema = form.get("schema", {"type": "object"})
        text = json.dumps(schema)
        _checked(text, param)
        if json_files.depth(schema, DEEPEST) > DEEPEST:
            raise Refused(f"{param} is more than {DEEPEST} levels deep", param)
        return self._made(LLMatcher.grammar_from_json_schema(text, overrides=SPACES), param)

    def of_tools(self, tools: Sequence[dict[str, Any]], before: str, behind: str) -> Grammar:
        """A call of one of the tools, {"name", "arguments"}, between two marks."""
        from llguidance import LLMatcher

        lines = []
        for number, tool in enumerate(tools):
            schema = tool["function"].get("parameters") or {"type": "object"}
            if json_files.depth(schema, DEEPEST) > DEEPEST:
                raise Refused(f"tools[{number}].function.parameters are more than {DEEPEST} levels deep", "tools")
            head = f'{{"name": {json.dumps(tool["function"]["name"], ensure_ascii=False)}, "arguments": '
            # A schema stays whole: what it refers to stands at its own root.
            lines += [f'call_{number}: {json.dumps(head, ensure_ascii=False)} arguments_{number} "}}"']
            lines += [f"arguments_{number}: %json {json.dumps(schema | {'x-guidance': SPACES})}"]
        any_call = " | ".join(f"call_{number}" for number in range(len(tools)))
        lark = "\n".join([f"start: {json.dumps(before)} call {json.dumps(behind)}", f"call: {any_call}", *lines, ""])
        return self._made(LLMatcher.grammar_from_lark(_checked(lark, "tools")), "tools")

    def _made(self, grammar: str, param: str) -> Grammar:
        from llguidance import LLMatcher, LLParserLimits

        matcher = LLMatcher(self._loaded(), grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        made = _Matched(matcher, self._vocabulary, self._end)
        if matcher.is_error() or made.allowed() is None:
            why = matcher.get_error() or "allows no text"
            raise Refused(f"{param}: {_line(why)}", param)
        return made


class _Matched(Grammar):
    def __init__(self, matcher: Any, vocabulary: int, end: int, next_: np.ndarray | None = None):
        """next_: what `allowed` gives, where that is known."""
        self._matcher, self._vocabulary, self._end, self._next = matcher, vocabulary, end, next_

    def allowed(self) -> np.ndarray | None:
        if self._next is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            self._next = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        # Behind an error the matcher allows the end alone, of a text that is none of those that were asked for.
        return None if self._matcher.is_error() or not self._next.any() else self._next

    def take(self, token: int) -> bool:
        self._next = None
        if token == self._end:
            return True
        self._matcher.consume_token(token)
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def copy(self) -> Grammar:
        return _Matched(self._matcher.deep_copy(), self._vocabulary, self._end, self._next)


class _Tokens:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokens: list[bytes], end: int, encode: Any):
        self.eos_token_id, self.bos_token_id, self.tokens, self.special_token_ids, self._encode = end, None, tokens, [end], encode

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("a text, not bytes")
        return list(self._encode(text))


def _in_lark(expression: str) -> str:
    """A regular expression as a terminal of a grammar: between slashes, so those in it are escaped, and ends of lines too."""
    inner = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], expression, flags=re.DOTALL)
    return "/" + inner.replace("\n", "\\n").replace("\r", "\\r") + "/"


def _checked(text: str, param: str) -> str:
    if len(text.encode()) > LARGEST:
        raise Refused(f"{param} is {len(text.encode())} bytes, and may have {LARGEST}", param)
    return text


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:200]
