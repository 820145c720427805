"""A run as a server knows it: its tokenizer, its chat template, how its authors sample from it, and how long its texts may be."""

import hashlib
from collections.abc import Sequence
from typing import Any

from data.errors import UserError
from model.decoding.sampling import Sampling
from serve.gate import Gate
from serve.grammar import Grammars
from serve.jobs import Grammar, Job, Prompt, PromptReader
from serve.programs import STOPS
from serve.protocol import ChatRequest, CompletionRequest, Drawing, Refused
from serve.text import TextWriter
from train.generation.chat import Chat
from train.generation.text import TextGenerator

LARGEST_RENDERED = 4 << 20
"""Characters that a chat template may make of a conversation."""
CALL, CALLED = "<tool_call>\n", "\n</tool_call>"
"""What stands around a tool's call, as Hermes' and Qwen's models write it."""


class Served:
    """What turns requests into jobs, and their tokens into text."""

    def __init__(
        self,
        name: str,
        generator: TextGenerator,
        tokenizer: Any,
        chat: Chat,
        *,
        size: int,
        adapters: Sequence[str] = (),
        reader: PromptReader | None = None,
        gate: Gate | None = None,
    ):
        """reader: of a model that reads each prompt in one piece. gate: what requests and answers pass. Its `version` may be set: the
        checkpoint, and how it is run."""
        self._reader, self.gate, self.version = reader, gate, ""
        self.name, self.chat, self.size, self.adapters = name, chat, size, tuple(adapters)
        self._generator, self._tokenizer = generator, tokenizer
        self.stop_ids = generator.stop_ids
        if len(self.stop_ids) > STOPS:
            raise UserError(f"the model has {len(self.stop_ids)} stop ids; at most {STOPS} are served", "Use another model.")
        self.vocabulary = generator.vocabulary
        self.pieces = tokenizer.pieces
        spaced = next((id_ for id_, piece in enumerate(self.pieces) if piece.startswith(b" ") and piece[1:].isalpha()), None)
        # An answer stands behind nothing, and some tokenizers give each first word a space.
        self._without_space = generator.answers and spaced is not None and not tokenizer.decode([spaced]).startswith(" ")
        self._hidden = frozenset(self.stop_ids) | frozenset(range(tokenizer.base_size, self.vocabulary))
        self._end = self.stop_ids[0] if self.stop_ids else tokenizer.specials["document_end"]
        self._grammars = Grammars(self.pieces, self.vocabulary, self._end, self._encoded)

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode_inside(text).tolist()

    @property
    def reads(self) -> tuple[str, ...]:
        """The kinds of media that messages may hold."""
        return () if self._reader is None else self._reader.kinds

    @property
    def fingerprint(self) -> str:
        """Changes with what answers: with the same seed and the same fingerprint, a request has the same answer."""
        return f"omnia-{hashlib.sha256(f'{self.name} {self.version}'.encode()).hexdigest()[:10]}"

    # ------------------------------------------------------------------------------------------------ prompts

    def prompt(self, prompt: str | Sequence[int], param: str = "prompt") -> Prompt:
        """Of a text, or of ids."""
        try:
            if isinstance(prompt, str):
                text = {"type": "text", "text": prompt}
                return Prompt(self._generator.encode(prompt)) if self._reader is None else self._reader.prompt([text], param)
            if max(prompt) >= self.vocabulary:
                raise Refused(f"{param} holds token id {max(prompt)}; there are {self.vocabulary}", param)
            return self._of_ids(list(prompt), param)
        except UserError as error:
            raise Refused(str(error).replace("\n", " "), param) from None

    def conversation(self, request: ChatRequest) -> Prompt:
        """A conversation up to the reply, by the model's template; of a model that reads media, what its messages hold, one after another.

        Refused for a model of text without a template.
        """
        tools = list(request.tools) if request.tools and request.tool_choice != "none" else None
        if tools and not self.chat.reads_tools:
            raise Refused("this model's chat template does not tell it of tools", "tools", "unsupported_parameter")
        if self._reader is not None and not self._generator.answers:
            return self._reader.prompt(_parts(request.messages), "messages")
        if not self.chat.template:
            raise Refused("this model has no chat template: use /v1/completions", "messages")
        if any(not isinstance(turn["content"], str) for turn in request.messages):
            raise Refused("this model reads text alone, and a message holds other media", "messages", "unsupported_content")
        try:
            ids = self.chat.encode(request.messages, self._tokenizer, tools=tools, most=LARGEST_RENDERED)
        except UserError as error:
            raise Refused(str(error).splitlines()[0], "messages") from None
        return self._of_ids(ids, "messages")

    def _of_ids(self, ids: list[int], param: str) -> Prompt:
        if not ids:
            raise Refused(f"{param}: there is nothing to go on from", param)
        return Prompt(ids) if self._reader is None else self._reader.of_ids(ids, param)

    def room(self, ids: Sequence[int], most: int | None, default: int | None, param: str) -> int:
        """Tokens to draw at most behind a prompt; Refused where they do not fit the context."""
        room = self.size - len(ids)
        if room < (most != 0):
            raise Refused(
                f"the prompt is {len(ids)} tokens, and the context has {self.size}, one of them for an answer",
                param,
                "context_length_exceeded",
            )
        if most is None:
            return room if default is None else min(default, room)
        if most > room:
            raise Refused(
                f"{most} tokens do not fit behind {len(ids)} in the context of {self.size}",
                param,
                "context_length_exceeded",
            )
        return most

    # ------------------------------------------------------------------------------------------------ jobs

    def sampling(self, request: Drawing) -> Sampling:
        """As the request says, else as the model's authors do, else as OpenAI does."""
        names = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty")
        said = {name: value for name in names if (value := getattr(request, name)) is not None}
        defaults = self.chat.defaults if isinstance(request, ChatRequest) else {}
        chosen: dict[str, Any] = {name: value for name, value in defaults.items() if name in names} | said
        biased = [id_ for id_, _ in request.logit_bias]
        for param, ids in (("logit_bias", biased), ("allowed_token_ids", request.allowed), ("stop_token_ids", request.stop_ids)):
            if outside := [id_ for id_ in ids if id_ >= self.vocabulary]:
                raise Refused(f"{param} names token id {outside[0]}; there are {self.vocabulary}", param)
        # A format ends, even where texts do not.
        ends = () if request.ignore_eos else self.stop_ids or ((self._end,) if _guided(request) else ())
        stop_ids = tuple(dict.fromkeys((*ends, *request.stop_ids)))
        if special := [id_ for id_ in request.allowed if id_ >= self._tokenizer.base_size and id_ not in stop_ids]:
            raise Refused(f"allowed_token_ids names {special[0]}, which is a special token and is never drawn", "allowed_token_ids")
        if len(stop_ids) > STOPS:
            raise Refused(f"{len(stop_ids)} ids end a text, with the model's own; there may be {STOPS}", "stop_token_ids")
        try:
            return Sampling(
                **chosen | {"top_k": int(chosen.get("top_k", 0))},
                frequency_penalty=request.frequency_penalty,
                presence_penalty=request.presence_penalty,
                bias=request.logit_bias,
                stop_ids=stop_ids,
                allowed=request.allowed,
                among=(0, self._tokenizer.base_size),
            )
        except ValueError as error:
            raise Refused(str(error)) from None

    def grammar(self, request: ChatRequest | CompletionRequest) -> Grammar | None:
        """Of the wanted format, or of the tool that must be called. It remembers its place: texts need copies of their own."""
        if not _guided(request):
            return None
        if _calls(request):
            assert isinstance(request, ChatRequest)
            named = request.tool_choice["function"]["name"] if isinstance(request.tool_choice, dict) else None
            chosen = [tool for tool in request.tools if named in (None, tool["function"]["name"])]
            return self._grammars.of_tools(chosen, CALL, CALLED)
        return self._grammars.of_format(request.format)

    def job(
        self,
        prompt: Prompt,
        request: ChatRequest | CompletionRequest,
        sampling: Sampling,
        most: int,
        seed: int,
        choice: int,
        owner: str,
        grammar: Grammar | None = None,
    ) -> Job:
        """grammar: of the request, as `grammar` gives it."""
        scored = isinstance(request, CompletionRequest) and request.echo and request.logprobs
        if scored and prompt.whole is not None:
            raise Refused(
                "log-probabilities of a prompt are not there for a model that reads it in one piece", "logprobs", "unsupported_parameter"
            )
        return Job(
            ids=prompt.ids,
            whole=prompt.whole,
            source=prompt.source,
            sampling=sampling,
            seed=seed,
            choice=choice,
            most=most,
            owner=owner,
            adapter=self.adapters.index(request.model) if request.model in self.adapters else -1,
            likeliest=request.top_logprobs > 0,
            scored=scored,
            grammar=None if grammar is None else grammar.copy(),
        )

    def writer(self, stops: Sequence[str], tokens: bool) -> TextWriter:
        return TextWriter(self.pieces, stops, self._hidden, tokens, without_space=self._without_space)

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[id_] for id_ in ids if id_ < len(self.pieces)).decode("utf-8", "replace")


def _calls(request: Any) -> bool:
    """Whether the answer must be a call of a tool."""
    return isinstance(request, ChatRequest) and bool(request.tools) and request.tool_choice not in ("none", "auto")


def _guided(request: Any) -> bool:
    """Whether the answer must have a form."""
    return _calls(request) or request.format["type"] != "text"


def _parts(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What messages hold, with a line break between one and the next."""
    found: list[dict[str, Any]] = []
    for turn in messages:
        found += [{"type": "text", "text": "\n"}] if found else []
        content = turn["content"]
        found += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return found
