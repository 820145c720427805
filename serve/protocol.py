"""OpenAI's requests as dataclasses, with the parameter named in every mistake. No HTTP, no JAX."""

import dataclasses
import difflib
import json
import re
from collections.abc import Callable
from typing import Any

from data.files import json_files

MOST_STOPS, LONGEST_STOP = 16, 256
MOST_BIASES = 1024
MOST_FORBIDDEN = 16
DEEPEST = 64
"""Of values within values in a body, or in a schema."""
HALVES = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escapes that may spell half of a surrogate pair."""
MOST_TOP_LOGPROBS = 20


class Refused(Exception):
    """What a client did wrong, in OpenAI's form."""

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, status: int = 400, kind: str = "invalid_request_error"
    ):
        super().__init__(message)
        self.message, self.param, self.code, self.status, self.kind = message, param, code, status, kind
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def later(why: str, seconds: float) -> Refused:
    """Status 429, and when it is worth another try."""
    refused = Refused(f"{why}; try again in {seconds:.0f} s", status=429, code="rate_limit_exceeded", kind="rate_limit_error")
    refused.headers["retry-after"] = str(max(1, round(seconds)))
    return refused


def parsed(raw: bytes) -> Any:
    """JSON whose texts can be written in UTF-8 and whose values are not nested deeply; Refused for another."""
    try:
        found = json.loads(raw.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused("the body is no JSON", code="invalid_json") from None
    if json_files.depth(found, DEEPEST) > DEEPEST:
        raise Refused(f"the body has more than {DEEPEST} values within values", code="invalid_json")
    if HALVES.search(raw) and not json_files.is_unicode(found):
        raise Refused("a text of the body holds half of a surrogate pair", code="invalid_json")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How texts are drawn. None: as the model's authors say."""

    model: str = ""
    most: int | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    allowed: tuple[int, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = False
    include_usage: bool = False


@dataclasses.dataclass(frozen=True)
class ChatRequest(Drawing):
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] = "auto"
    parallel: bool = True
    """Whether a reply may call several tools."""
    format: dict[str, Any] = dataclasses.field(default_factory=lambda: {"type": "text"})


@dataclasses.dataclass(frozen=True)
class CompletionRequest(Drawing):
    prompts: tuple[str | tuple[int, ...], ...] = ()
    echo: bool = False
    format: dict[str, Any] = dataclasses.field(default_factory=lambda: {"type": "text"})


@dataclasses.dataclass(frozen=True)
class EmbeddingRequest:
    model: str = ""
    inputs: tuple[str | tuple[int, ...], ...] = ()
    base64: bool = False
    dimensions: int | None = None


# ------------------------------------------------------------------------------------------------ values

Check = Callable[[Any, str], Any]


def number(low: float, high: float, *, whole: bool = False) -> Check:
    def check(value: Any, param: str):
        good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not good or not low <= value <= high:  # which no NaN is
            what = "a whole number" if whole else "a number"
            raise Refused(f"{param} is {_short(value)}; it must be {what} from {low:g} to {high:g}", param)
        return value

    return check


def flag(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"{param} is {_short(value)}; it must be true or false", param)
    return value


def string(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"{param} is {_short(value)}; it must be a string", param)
    return value


def stops(value: Any, param: str) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Refused(f"{param} must be a string, or a list of strings", param)
    if len(found) > MOST_STOPS or any(not 0 < len(one) <= LONGEST_STOP for one in found):
        raise Refused(f"{param} may have {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters", param)
    return tuple(found)


def ids(most: int) -> Check:
    def check(value: Any, param: str) -> tuple[int, ...]:
        good = isinstance(value, list) and 0 < len(value) <= most
        if not good or any(not isinstance(one, int) or isinstance(one, bool) or one < 0 for one in value):
            raise Refused(f"{param} must be a list of 1 to {most} token ids", param)
        return tuple(dict.fromkeys(value))

    return check


def biases(value: Any, param: str) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or len(value) > MOST_BIASES:
        raise Refused(f"{param} must be an object of at most {MOST_BIASES} ids with numbers from -100 to 100", param)
    found = []
    for key, added in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise Refused(f"{param}: {_short(key)} is no id of a token", param)
        found.append((int(key), float(number(-100, 100)(added, f"{param}.{key}"))))
    return tuple(found)


def stream_options(value: Any, param: str) -> bool:
    if not isinstance(value, dict) or not {*value} <= {"include_usage", "include_obfuscation"}:
        raise Refused(f"{param} must be an object with include_usage", param)
    return flag(value.get("include_usage", False), f"{param}.include_usage")


def prompts(value: Any, param: str) -> tuple[str | tuple[int, ...], ...]:
    """A text, a list of texts, a list of ids, or a list of lists of ids."""

    def ids(one: Any) -> bool:
        return isinstance(one, list) and bool(one) and all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**31 for x in one)

    found = [value] if isinstance(value, str) or ids(value) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) or ids(one) for one in found):
        raise Refused(f"{param} must be a text, a list of texts, a list of token ids, or a list of such lists, and not empty", param)
    return tuple(tuple(one) if isinstance(one, list) else one for one in found)


def response_format(value: Any, param: str) -> dict[str, Any]:
    kinds = ("text", "json_object", "json_schema", "regex")
    if not isinstance(value, dict) or value.get("type") not in kinds:
        raise Refused(f"{param}.type must be one of {', '.join(kinds)}", param)
    if value["type"] == "json_schema":
        inner = value.get("json_schema")
        if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
            raise Refused(f"{param}.json_schema.schema must be a JSON schema", f"{param}.json_schema")
        return {"type": "json_schema", "schema": inner["schema"]}
    if value["type"] == "regex":
        forbidden = value.get("forbidden", [])
        if not isinstance(forbidden, list) or len(forbidden) > MOST_FORBIDDEN or not all(isinstance(one, str) and one for one in forbidden):
            raise Refused(f"{param}.forbidden must be a list of at most {MOST_FORBIDDEN} expressions", f"{param}.forbidden")
        anything = {"regex": "(?s:.*)"} if forbidden else {}
        return {"type": "regex", "regex": string((anything | value).get("regex"), f"{param}.regex"), "forbidden": tuple(forbidden)}
    return {"type": value["type"]}


ROLES = ("system", "developer", "user", "assistant", "tool")


def messages(value: Any, param: str) -> tuple[dict[str, Any], ...]:
    """Turns with roles and contents; a content in parts keeps them."""
    if not isinstance(value, list) or not value:
        raise Refused(f"{param} must be a list with at least one message", param)
    found = []
    for place, turn in enumerate(value):
        where = f"{param}[{place}]"
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise Refused(f"{where}.role must be one of {', '.join(ROLES)}", where)
        content = turn.get("content")
        if content is None and turn["role"] == "assistant" and turn.get("tool_calls"):
            content = ""
        if isinstance(content, list):
            content = [_part(part, f"{where}.content[{number_}]") for number_, part in enumerate(content)]
            if all(part["type"] == "text" for part in content):
                content = "".join(part["text"] for part in content)
        elif not isinstance(content, str):
            raise Refused(f"{where}.content must be a string, or a list of parts", f"{where}.content")
        role = "system" if turn["role"] == "developer" else turn["role"]
        kept: dict[str, Any] = {
            name: string(turn[name], f"{where}.{name}") for name in ("name", "tool_call_id") if turn.get(name) is not None
        }
        if turn.get("tool_calls") is not None:
            kept["tool_calls"] = _tool_calls(turn["tool_calls"], f"{where}.tool_calls")
        found.append({"role": role, "content": content} | kept)
    return tuple(found)


def _tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Calls of earlier replies. Their arguments come as a JSON text; templates write them as the object that it is."""
    if not isinstance(value, list):
        raise Refused(f"{where} must be a list", where)
    found = []
    for place, call in enumerate(value):
        here, function = f"{where}[{place}].function", call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Refused(f"{here} must have a name and arguments", here)
        arguments = function.get("arguments") or "{}"
        try:
            arguments = json_files.parse(arguments) if isinstance(arguments, str) else arguments
            json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:  # of numbers that are none, and of half characters too
            raise Refused(f"{here}.arguments are no JSON object: {error}", f"{here}.arguments") from None
        if not isinstance(arguments, dict) or json_files.depth(arguments, DEEPEST) > DEEPEST:
            raise Refused(f"{here}.arguments must be a JSON object, at most {DEEPEST} levels deep", f"{here}.arguments")
        found.append(call | {"function": function | {"arguments": arguments}})
    return found


def _part(part: Any, where: str) -> dict[str, Any]:
    kinds = ("text", "image_url", "video_url", "input_audio")
    if not isinstance(part, dict) or part.get("type") not in kinds:
        raise Refused(f"{where}.type must be one of {', '.join(kinds)}", where)
    if part["type"] == "text":
        return {"type": "text", "text": string(part.get("text"), f"{where}.text")}
    inner = part.get(part["type"])
    if not isinstance(inner, dict):
        raise Refused(f"{where}.{part['type']} must be an object", where)
    return {"type": part["type"], part["type"]: inner}


def tools(value: Any, param: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise Refused(f"{param} must be a list", param)
    for place, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not isinstance(function.get("parameters") or {}, dict)
        ):
            raise Refused(f"{param}[{place}] must be a function with a name and, as a JSON schema, its parameters", f"{param}[{place}]")
    return tuple(value)


def tool_choice(value: Any, param: str) -> str | dict[str, Any]:
    named = isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("function"), dict)
    if value not in ("none", "auto", "required") and not (named and isinstance(value["function"].get("name"), str)):
        raise Refused(f"{param} must be none, auto, required, or a function by its name", param)
    return value


# ------------------------------------------------------------------------------------------------ requests

DRAWING: dict[str, tuple[str, Check]] = {
    "model": ("model", string),
    "max_tokens": ("most", number(0, 2**31 - 1, whole=True)),
    "n": ("n", number(1, 128, whole=True)),
    "temperature": ("temperature", number(0, 2)),
    "top_p": ("top_p", number(0, 1)),
    "top_k": ("top_k", number(-1, 2**31 - 1, whole=True)),
    "min_p": ("min_p", number(0, 1)),
    "typical_p": ("typical_p", number(0, 1)),
    "repetition_penalty": ("repetition_penalty", number(1e-2, 100)),
    "frequency_penalty": ("frequency_penalty", number(-2, 2)),
    "presence_penalty": ("presence_penalty", number(-2, 2)),
    "logit_bias": ("logit_bias", biases),
    "stop": ("stop", stops),
    "allowed_token_ids": ("allowed", ids(2**20)),
    "stop_token_ids": ("stop_ids", ids(MOST_STOPS)),
    "ignore_eos": ("ignore_eos", flag),
    "seed": ("seed", number(-(2**63), 2**64 - 1, whole=True)),
    "stream": ("stream", flag),
    "stream_options": ("include_usage", stream_options),
    "response_format": ("format", response_format),
}
CHAT = DRAWING | {
    "messages": ("messages", messages),
    "max_completion_tokens": ("most", number(1, 2**31 - 1, whole=True)),
    "logprobs": ("logprobs", flag),
    "top_logprobs": ("top_logprobs", number(0, MOST_TOP_LOGPROBS, whole=True)),
    "tools": ("tools", tools),
    "tool_choice": ("tool_choice", tool_choice),
    "parallel_tool_calls": ("parallel", flag),
}
COMPLETION = DRAWING | {
    "prompt": ("prompts", prompts),
    "echo": ("echo", flag),
    "logprobs": ("top_logprobs", number(0, MOST_TOP_LOGPROBS, whole=True)),
    "best_of": ("best_of", number(1, 128, whole=True)),
}
IGNORED = frozenset("user metadata store service_tier safety_identifier prompt_cache_key verbosity".split())
"""What has no effect on the answer here."""
UNAVAILABLE = frozenset("functions function_call modalities audio prediction web_search_options reasoning_effort suffix".split())
"""What would change the answer, and is not there."""


def _fields(body: Any, known: dict[str, tuple[str, Check]], needed: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    found: dict[str, Any] = {}
    for name, value in body.items():
        if name in IGNORED or value is None or name == "modalities" and value == ["text"]:
            continue
        if name in UNAVAILABLE:
            raise Refused(f"{name} is not available here; leave it out", name, "unsupported_parameter")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise Refused(
                f"there is no parameter {_short(name)}" + (f"; did you mean {near[0]}?" if near else ""), name[:64], "unknown_parameter"
            )
        field, check = known[name]
        if field in found:
            raise Refused(f"{name} says what another parameter says: give one of max_tokens and max_completion_tokens", name)
        found[field] = check(value, name)
    if known[needed][0] not in found:
        raise Refused(f"{needed} is missing", needed, "missing_required_parameter")
    if "include_usage" in found and not found.get("stream"):
        raise Refused("stream_options need stream", "stream_options")
    for name in ("top_p", "typical_p"):
        if found.get(name) == 0:
            raise Refused(f"{name} must be above 0", name)
    if found.get("top_k") == -1:  # vLLM's word for all
        found["top_k"] = 0
    return found


def chat_request(body: Any) -> ChatRequest:
    """Refused for whatever is wrong with it."""
    found = _fields(body, CHAT, "messages")
    if found.get("top_logprobs") and not found.get("logprobs"):
        raise Refused("top_logprobs needs logprobs", "top_logprobs")
    if found.get("most") == 0:
        raise Refused("max_tokens is 0; it must be at least 1", "max_tokens")
    choice = found.get("tool_choice", "auto")
    names = [tool["function"]["name"] for tool in found.get("tools", ())]
    if isinstance(choice, dict) and choice["function"]["name"] not in names:
        raise Refused(f"tool_choice names {_short(choice['function']['name'])}, which is none of the tools", "tool_choice")
    if choice == "required" and not names:
        raise Refused("tool_choice is required, and there are no tools", "tool_choice")
    if choice not in ("none", "auto") and found.get("format", {"type": "text"})["type"] != "text":
        raise Refused("response_format says what an answer is, and tool_choice that it is a call", "response_format")
    return ChatRequest(**found)


def completion_request(body: Any) -> CompletionRequest:
    found = _fields(body, COMPLETION, "prompt")
    if "top_logprobs" in found:
        found["logprobs"] = True
    if found.pop("best_of", found.get("n", 1)) != found.get("n", 1):
        raise Refused("best_of other than n is not available here", "best_of", "unsupported_parameter")
    if found.get("most") == 0 and not found.get("echo"):
        raise Refused("max_tokens is 0, which needs echo", "max_tokens")
    return CompletionRequest(**found)


def embedding_request(body: Any) -> EmbeddingRequest:
    def encoding(value: Any, param: str) -> bool:
        if value not in ("float", "base64"):
            raise Refused(f"{param} must be float or base64", param)
        return value == "base64"

    known: dict[str, tuple[str, Check]] = {
        "model": ("model", string),
        "input": ("inputs", prompts),
        "encoding_format": ("base64", encoding),
        "dimensions": ("dimensions", number(1, 2**31 - 1, whole=True)),
    }
    return EmbeddingRequest(**_fields(body, known, "input"))


def applying_request(body: Any) -> tuple[str, list[dict[str, Any]]]:
    """(model, rows)"""
    body = _only(body, "model", "rows") if isinstance(body, dict) else {}
    rows = body.get("rows")
    if not isinstance(rows, list) or not rows or any(not isinstance(row, dict) for row in rows):
        raise Refused("rows must be a list of objects, at least one", "rows")
    return string(body.get("model") or "", "model"), rows


def counting_request(body: Any) -> tuple[str, str, ChatRequest | None]:
    """(model, prompt, conversation), one of the last two."""
    if not isinstance(body, dict) or not {"prompt", "messages"} & {*body}:
        raise Refused("give a prompt, or messages", "prompt")
    model = string(body.get("model") or "", "model")
    if "messages" in body:
        return model, "", chat_request(_only(body, "model", "messages", "tools"))
    return model, string(_only(body, "model", "prompt")["prompt"], "prompt"), None


def decoding_request(body: Any) -> tuple[str, tuple[int, ...]]:
    """(model, the ids to decode)"""
    body = _only(body, "model", "tokens") if isinstance(body, dict) else {}
    found = prompts(body.get("tokens"), "tokens")
    if len(found) != 1 or isinstance(found[0], str):
        raise Refused("tokens must be a list of token ids", "tokens")
    return string(body.get("model") or "", "model"), found[0]


def _only(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """Refused for other fields."""
    if other := next((name for name in body if name not in names), ""):
        raise Refused(f"there is no parameter {_short(other)} here", other[:64], "unknown_parameter")
    return body


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
