"""From requests to answers in OpenAI's form, whole or piece by piece. No HTTP, no JAX."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from data.errors import UserError
from serve.engine import Engine
from serve.gate import Passage, strings, through
from serve.jobs import Job
from serve.protocol import ChatRequest, CompletionRequest, EmbeddingRequest, Refused
from serve.served import CALL, CALLED, Served
from serve.text import Shown, TokenShown

COMPLETION_TOKENS = 16
"""Drawn where a plain completion does not say how many, as OpenAI has it."""


class Failed(Exception):
    """The engine ended a job before its end."""


class Answer:
    """One request under way: a job for each choice, and what of their texts is certain so far. before: the prompt of each, where both are
    one text."""

    def __init__(
        self,
        served: Served,
        engine: Engine,
        jobs: Sequence[Job],
        request: ChatRequest | CompletionRequest,
        passage: Passage,
        before: Sequence[str] = (),
    ):
        self._engine, self.jobs = engine, list(jobs)
        self._outgoing = [passage.outgoing_after(text) if text else passage.outgoing() for text in before or [""] * len(self.jobs)]
        self.writers = [served.writer(request.stop, bool(request.logprobs)) for _ in jobs]
        self._signal = asyncio.Event()
        for job in jobs:
            job.signal = self._signal

    def start(self) -> None:
        """Full where the queue has no room."""
        self._engine.submit(*self.jobs)

    def cancel(self) -> None:
        for job in self.jobs:
            self._engine.cancel(job)

    async def follow(self) -> AsyncIterator[tuple[int, Shown, str]]:
        """(choice, what is new of it, "" or why it ended), whenever something is. Failed where the engine gives up."""
        going = set(range(len(self.jobs)))
        while going:
            await self._signal.wait()
            self._signal.clear()
            for number in sorted(going):
                shown, finish = self._news(number)
                if finish:
                    going.discard(number)
                if finish or shown.text or shown.tokens:
                    yield number, shown, finish

    def _news(self, number: int) -> tuple[Shown, str]:
        """Everything of one choice that has come since it was last looked at."""
        job, writer = self.jobs[number], self.writers[number]
        text, tokens, finish = "", tuple[TokenShown, ...](), ""
        while job.pieces and not finish:
            piece = job.pieces.popleft()
            if piece.finish in ("error", "cancelled"):
                raise Failed(piece.finish)
            shown = writer.feed(piece.ids, piece.log_probs, piece.likeliest, piece.their_log_probs)
            text, tokens = text + shown.text, tokens + shown.tokens
            if shown.ended:
                self._engine.cancel(job, "stop")
                finish = "stop"
            elif piece.finish:
                rest = writer.finish()
                text, tokens, finish = text + rest.text, tokens + rest.tokens, "stop" if rest.ended else piece.finish
        outgoing = self._outgoing[number]
        text = outgoing.feed(text) + (outgoing.finish() if finish else "")
        if outgoing.stopped:
            self._engine.cancel(job, "content_filter")
            finish = "content_filter"
        return Shown(text, tokens), finish

    def passes(self, number: int, texts: Sequence[str]) -> bool:
        """Whether texts that were made of one choice may be shown."""
        return self._outgoing[number].passes(texts)

    def usage(self) -> dict[str, Any]:
        """Tokens of prompts, each counted once however many answers it has, and of answers."""
        prompts = {id(job.ids): job for job in self.jobs}.values()
        read, drawn = sum(job.prompt_tokens for job in prompts), sum(writer.count for writer in self.writers)
        cached = sum(job.cached for job in prompts)
        return {
            "prompt_tokens": read,
            "completion_tokens": drawn,
            "total_tokens": read + drawn,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def _let_through(served: Served, request: Any, owner: str) -> tuple[Any, Passage]:
    return (request, Passage([])) if served.gate is None else through(served.gate, request, owner)


def _seed(seed: int | None) -> int:
    return secrets.randbits(32) if seed is None else seed


# ------------------------------------------------------------------------------------------------ chat


class ChatAnswer:
    """A reply in a conversation."""

    def __init__(self, served: Served, engine: Engine, request: ChatRequest, owner: str):
        request, passage = _let_through(served, request, owner)
        self.request, self.served = request, served
        prompt = served.conversation(request)
        most = served.room(prompt.ids, request.most, None, "messages")
        sampling, seed = served.sampling(request), _seed(request.seed)
        grammar = served.grammar(request)
        jobs = [served.job(prompt, request, sampling, most, seed, choice, owner, grammar) for choice in range(request.n)]
        self.answer = Answer(served, engine, jobs, request, passage)
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.model or served.name,
            "system_fingerprint": served.fingerprint,
        }

    @property
    def _may_call(self) -> bool:
        return bool(self.request.tools) and self.request.tool_choice != "none"

    async def whole(self) -> dict[str, Any]:
        texts, finishes = [""] * self.request.n, [""] * self.request.n
        shown: list[list[TokenShown]] = [[] for _ in texts]
        async for number, news, finish in self.answer.follow():
            texts[number] += news.text
            shown[number] += news.tokens
            finishes[number] = finish or finishes[number]
        choices = []
        for number, (text, finish) in enumerate(zip(texts, finishes, strict=True)):
            content, calls, finish = self._ended(number, text, finish)
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            if calls:
                message["tool_calls"] = calls
            logprobs = self._logprobs(shown[number]) if self.request.logprobs else None
            choices.append({"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish})
        return self._head | {"object": "chat.completion", "choices": choices, "usage": self.answer.usage()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        for number in range(self.request.n):
            yield self._chunk(number, {"role": "assistant", "content": ""})
        held, said, tokens = [""] * self.request.n, [0] * self.request.n, [list[TokenShown]() for _ in range(self.request.n)]
        async for number, news, finish in self.answer.follow():
            logprobs = self._logprobs(news.tokens) if self.request.logprobs else None
            if self._may_call:  # a call is told from a text by its end alone, and not shown before
                held[number] += news.text
                tokens[number] += news.tokens
                content, calls, finish = self._ended(number, held[number], finish) if finish else (_before_a_call(held[number]), [], "")
                new, said[number] = (content or "")[said[number] :], max(said[number], len(content or ""))
                logprobs = self._logprobs(tokens[number]) if self.request.logprobs else None
                if new or (calls and logprobs):
                    yield self._chunk(number, {"content": new} if new else {}, logprobs)
                    tokens[number].clear()
                for place, call in enumerate(calls):
                    head = {"index": place, "id": call["id"], "type": "function"}
                    yield self._chunk(number, {"tool_calls": [head | {"function": call["function"] | {"arguments": ""}}]})
                    arguments = {"index": place, "function": {"arguments": call["function"]["arguments"]}}
                    yield self._chunk(number, {"tool_calls": [arguments]})
            elif news.text or news.tokens:
                yield self._chunk(number, {"content": news.text}, logprobs)
            if finish:
                yield self._chunk(number, {}, None, finish)
        if self.request.include_usage:
            yield self._head | {"object": "chat.completion.chunk", "choices": [], "usage": self.answer.usage()}

    def _chunk(self, number: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        more = {"usage": None} if self.request.include_usage else {}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]} | more

    def _ended(self, number: int, text: str, finish: str) -> tuple[str | None, list[dict[str, Any]], str]:
        """What is said at the end of a choice, the tools that are called, and why it ended. Texts that were decoded, or that a call stood
        between, are others than those that were looked at as they came."""
        content, calls = self._calls(text)
        if calls and self.served.gate is not None and not self._passes(number, content, calls):
            return _before_a_call(text), [], "content_filter"
        return content, calls, "tool_calls" if calls and finish == "stop" else finish

    def _passes(self, number: int, content: str | None, calls: Sequence[dict[str, Any]]) -> bool:
        functions = [call["function"] for call in calls]
        return self.answer.passes(number, strings([content or "", *functions, *(json.loads(one["arguments"]) for one in functions)]))

    def _calls(self, text: str) -> tuple[str | None, list[dict[str, Any]]]:
        """What is said, and the tools that are called; a call that is no whole JSON object stays text."""
        if not self._may_call:
            return text, []
        before, calls, rest = "", [], text
        while (begin := rest.find(CALL.strip())) >= 0 and (end := rest.find(CALLED.strip(), begin)) >= 0:
            try:
                call = json.loads(rest[begin + len(CALL.strip()) : end])
                name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            calls.append({"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": {"name": name, "arguments": arguments}})
            before, rest = before + rest[:begin], rest[end + len(CALLED.strip()) :]
        said = (before + rest).rstrip() if calls else text
        return said or (None if calls else ""), calls if self.request.parallel else calls[:1]

    def _logprobs(self, tokens: Sequence[TokenShown]) -> dict[str, Any]:
        pieces = self.answer.writers[0]

        def shown(id_: int, log_prob: float | None) -> dict[str, Any]:
            raw = pieces.bytes_of(id_)
            return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": log_prob}

        most = self.request.top_logprobs
        content = [
            shown(token.id, token.log_prob) | {"top_logprobs": [shown(*other) for other in token.likeliest[:most]]} for token in tokens
        ]
        return {"content": content, "refusal": None}


def _before_a_call(text: str) -> str:
    """What of a text that goes on is no call, whatever comes: without space at its end, which is left out before one."""
    mark = CALL.strip()
    place = text.find(mark)
    if place < 0:
        place = next((len(text) - size for size in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-size:])), len(text))
    return text[:place].rstrip()


# ------------------------------------------------------------------------------------------------ completions


class CompletionAnswer:
    """Continuations of texts."""

    def __init__(self, served: Served, engine: Engine, request: CompletionRequest, owner: str):
        request, passage = _let_through(served, request, owner)
        self.request, self.served = request, served
        rows = [served.prompt(prompt) for prompt in request.prompts]
        sampling, seed, jobs = served.sampling(request), _seed(request.seed), []
        grammar = served.grammar(request)
        self._echoes: list[str] = []
        before: list[str] = []
        for prompt, row in zip(request.prompts, rows, strict=True):
            one_text = prompt if isinstance(prompt, str) and (request.echo or not row.source) else ""  # sources end, answers begin anew
            most = served.room(row.ids, request.most, COMPLETION_TOKENS, "prompt")
            for _ in range(request.n):
                jobs.append(served.job(row, request, sampling, most, seed, len(jobs), owner, grammar))
                self._echoes.append((prompt if isinstance(prompt, str) else served.decode(prompt)) if request.echo else "")
                before.append(one_text)
        self.asks = request.most != 0 or request.logprobs
        """Whether the model has anything to do."""
        self.answer = Answer(served, engine, jobs, request, passage, before)
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model or served.name,
            "system_fingerprint": served.fingerprint,
        }

    async def whole(self) -> dict[str, Any]:
        texts, finishes = list(self._echoes), ["length"] * len(self._echoes)
        tokens: list[list[TokenShown]] = [[] for _ in texts]
        if self.asks:
            async for number, news, finish in self.answer.follow():
                texts[number] += news.text
                tokens[number] += news.tokens
                finishes[number] = finish or finishes[number]
        choices = [
            {
                "index": number,
                "text": text,
                "logprobs": self._logprobs([*self._prompt(number), *tokens[number]], 0) if self.request.logprobs else None,
                "finish_reason": finishes[number],
            }
            for number, text in enumerate(texts)
        ]
        return self._head | {"choices": choices, "usage": self.answer.usage()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        more = {"usage": None} if self.request.include_usage else {}
        offsets = [0] * len(self._echoes)

        def chunk(number: int, text: str, tokens: Sequence[TokenShown], finish: str | None) -> dict[str, Any]:
            logprobs = self._logprobs(tokens, offsets[number]) if self.request.logprobs else None
            offsets[number] += len(text)
            return self._head | {"choices": [{"index": number, "text": text, "logprobs": logprobs, "finish_reason": finish}]} | more

        echoed = set()
        for number, echo in enumerate(self._echoes):
            if not self.answer.jobs[number].scored and (echo or not self.asks):
                yield chunk(number, echo, (), None if self.asks else "length")
        if self.asks:
            async for number, news, finish in self.answer.follow():
                if self.answer.jobs[number].scored and number not in echoed:
                    echoed.add(number)
                    yield chunk(number, self._echoes[number], self._prompt(number), None)
                yield chunk(number, news.text, news.tokens, finish or None)
        if self.request.include_usage:
            yield self._head | {"choices": [], "usage": self.answer.usage()}

    def _prompt(self, number: int) -> list[TokenShown]:
        """A prompt's own tokens, where it is wanted what the model thinks of them."""
        job = self.answer.jobs[number]
        if not job.scored:
            return []
        found = [TokenShown(job.ids[0], None)]
        for scores in job.scores:
            for log_prob, likeliest, theirs in zip(*(part.tolist() for part in scores), strict=True):
                found.append(TokenShown(job.ids[len(found)], log_prob, tuple(zip(likeliest, theirs, strict=True))))
        return found

    def _logprobs(self, tokens: Sequence[TokenShown], offset: int) -> dict[str, Any]:
        pieces, most = self.answer.writers[0], self.request.top_logprobs

        def text(id_: int) -> str:
            return pieces.bytes_of(id_).decode("utf-8", "replace")

        def likeliest(token: TokenShown) -> dict[str, float | None]:
            """By the texts of tokens, each under a name of its own; the one that was drawn is there, however unlikely."""
            found: dict[str, float | None] = {}
            for id_, log_prob in (*token.likeliest[:most], (token.id, token.log_prob)):
                found.setdefault(named(id_, pieces.bytes_of(id_)), log_prob)
            return found

        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(text(token.id)) - token.begins
        return {
            "tokens": [text(token.id)[token.begins :] for token in tokens],
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": [None if token.log_prob is None else likeliest(token) for token in tokens] if most else None,
            "text_offset": offsets,
        }


def named(id_: int, raw: bytes) -> str:
    """A token as a text that no other has: part of a character, or a token without a text, is written as what it is."""
    try:
        return raw.decode() if raw else f"token_id:{id_}"
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


# ------------------------------------------------------------------------------------------------ embeddings


def rows_of(embedder: Any, request: EmbeddingRequest) -> list[np.ndarray]:
    """The ids of each text, or those given, as the model reads them; Refused for what is longer than it reads, or no id of it."""
    for place, text in enumerate(request.inputs):
        if not isinstance(text, str) and max(text) >= embedder.vocabulary:
            raise Refused(f"input[{place}] holds token id {max(text)}; there are {embedder.vocabulary}", "input")
    try:
        rows = embedder.rows(request.inputs, whole=True)
    except UserError as error:
        raise Refused(str(error).replace("\n", " "), "input") from None
    for place, row in enumerate(rows):
        if len(row) > embedder.most:
            raise Refused(f"input[{place}] takes {len(row)} tokens; the model reads {embedder.most}", "input", "context_length_exceeded")
    return rows


def embeddings(embedder: Any, rows: Sequence[np.ndarray], request: EmbeddingRequest, name: str) -> dict[str, Any]:
    """Vectors of texts, computed at once: call it on a thread of its own."""
    vectors = embedder.vectors(rows)
    if request.dimensions is not None:
        if request.dimensions > vectors.shape[1]:
            raise Refused(f"dimensions is {request.dimensions}; the model has {vectors.shape[1]}", "dimensions")
        vectors = vectors[:, : request.dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if request.base64 else vector.tolist(),
        }
        for place, vector in enumerate(vectors)
    ]
    total = sum(map(len, rows))
    return {"object": "list", "data": data, "model": request.model or name, "usage": {"prompt_tokens": total, "total_tokens": total}}
