"""The server's face: routes, keys, limits and streams, as a plain ASGI application. It knows requests and answers, and no JAX."""

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from data.files.text_files import is_whole
from serve.answers import ChatAnswer, CompletionAnswer, Failed, embeddings, rows_of
from serve.applications import Working, events
from serve.engine import Engine
from serve.jobs import Full, Job
from serve.keys import Key, Keys
from serve.observe import AuditLog, Observed
from serve.pages import Page
from serve.protocol import (
    EmbeddingRequest,
    Refused,
    applying_request,
    chat_request,
    completion_request,
    counting_request,
    decoding_request,
    embedding_request,
    later,
    parsed,
)
from serve.served import Served

MOST_BYTES = 32 << 20
"""Of a body."""
LARGE_BYTES = 64 << 10
"""Of a body, from which on it is looked at beside the streams of others."""
MOST_CHOICES = 64
"""Texts that one request may ask for."""
MOST_INPUTS = 2048
"""Texts that one request may ask the vectors of."""
MOST_EMBEDDING = 64
"""Requests for vectors that may wait, one after another, for the model."""
IDLE_SECONDS = 30.0
"""For which a client may send no more of a body."""
STUCK_SECONDS = 30.0
"""Without a round of the engine's loop, /ready is red."""
RETRY_SECONDS = 2.0
LOADING = "The run is being loaded. This page looks again by itself."
VECTORS = "This run makes vectors of texts: POST them to /v1/embeddings."
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Disconnected(Exception):
    """The client has gone."""


@dataclasses.dataclass
class Asked:
    """One request."""

    scope: Scope
    receive: Receive
    send: Send
    id: str
    """Ours, as the audit log has it."""
    shown: str = ""
    """The client's own for it, which is answered with."""
    named: str = ""
    """A digest of that, for the log."""
    left: bool = False
    """Whether the client had gone before the answer's end."""
    key: Key | None = None
    status: int = 0
    size: int = 0
    """Bytes of its body."""
    tokens: tuple[int, int] = (0, 0)
    """Of prompts and of answers, for the audit log."""
    seed: int | None = None
    """That texts were drawn with, given or not."""

    @property
    def owner(self) -> str:
        return self.key.name if self.key else ""

    def header(self, name: str) -> str:
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key.lower() == wanted), "")


class Application:
    """Answers requests for one model. Call `woken` with the jobs that the engine wakes, on any thread."""

    def __init__(
        self,
        observed: Observed,
        *,
        name: str,
        keys: Keys | None = None,
        audit: AuditLog | None = None,
        hosts: tuple[str, ...] = LOCAL_NAMES,
    ):
        self._observed, self.name, self._keys, self._audit, self._hosts = observed, name, keys, audit or AuditLog(None), hosts
        self._served: Served | None = None
        self._engine: Engine | None = None
        self._embedder: Any = None
        self._working: Working | None = None
        self._created = int(time.time())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._embedding, self._embeddings = asyncio.Lock(), 0
        self.ready = False
        self.draining = False
        self._routes: dict[str, tuple[str, str, Callable[[Asked], Awaitable[None]]]] = {
            "/": ("GET", "ask", self._page),
            "/ready": ("GET", "observe", self._ready),
            "/metrics": ("GET", "observe", self._metrics),
            "/v1/models": ("GET", "ask", self._models),
            "/v1/chat/completions": ("POST", "ask", self._chat),
            "/v1/completions": ("POST", "ask", self._complete),
            "/v1/embeddings": ("POST", "ask", self._embed),
            "/v1/apply": ("POST", "ask", self._apply),
            "/tokenize": ("POST", "ask", self._tokenize),
            "/detokenize": ("POST", "ask", self._detokenize),
        }
        self._talk, self._rows = Page("page.html"), Page("rows.html")
        self._notice = ""

    def serve(
        self, served: Served | None, engine: Engine | None, embedder: Any = None, working: Working | None = None, notice: str = ""
    ) -> None:
        """Ready: what answers is loaded. notice: how to use a run that answers neither people nor rows."""
        self._served, self._engine, self._embedder, self._working, self._notice = served, engine, embedder, working, notice
        self.ready = True

    def stop(self, seconds: float) -> None:
        """Take nothing new, and end what runs within so many seconds; vectors may take as long."""
        self.draining = True
        ends = time.monotonic() + seconds
        if self._engine is not None:
            self._engine.stop(seconds)
        while self._embeddings and time.monotonic() < ends:
            time.sleep(0.05)

    def woken(self, jobs: list[Job]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop is ending
                self._loop.call_soon_threadsafe(_set, jobs)

    @property
    def routes(self) -> tuple[str, ...]:
        return tuple(self._routes)

    # ------------------------------------------------------------------------------------------------ ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return
        self._loop = asyncio.get_running_loop()
        given, began = next((v.decode("latin-1") for k, v in scope["headers"] if k.lower() == b"x-request-id"), ""), time.monotonic()
        asked = Asked(scope, receive, send, f"req_{secrets.token_hex(12)}")
        if re.fullmatch(r"[\x21-\x7e]{1,128}", given):  # which may be anything, a key or a text too: the log has a digest of it
            asked.shown, asked.named = given, hashlib.sha256(given.encode()).hexdigest()[:16]
        try:
            await self._answer(asked)
        except Refused as refused:
            await self._say(asked, refused.status, refused.body(), refused.headers)
        except Disconnected:
            asked.status, asked.left = asked.status or 499, True
        except Failed:
            await self._say(asked, 503, Refused("the engine stopped before the answer's end", kind="server_error").body())
        except Exception as error:  # ours: said without what it was about
            self._report(error)
            await self._say(asked, 500, Refused("an error of the server; it was reported", kind="server_error").body())
        finally:
            if scope["path"] != "/health":
                read, drawn = asked.tokens
                self._audit.write(
                    request=asked.id,
                    client_request=asked.named,
                    key=asked.owner,
                    route=scope["path"] if scope["path"] in self._routes else "other",
                    status=asked.status,
                    left=asked.left,
                    prompt_tokens=read,
                    completion_tokens=drawn,
                    seed=asked.seed,
                    seconds=round(time.monotonic() - began, 3),
                )

    async def _answer(self, asked: Asked) -> None:
        path, method = asked.scope["path"].rstrip("/") or "/", asked.scope["method"]
        if path == "/health":
            return await self._say(asked, 200, {"status": "alive"})
        self._check_host(asked)
        named = path.removeprefix("/v1/models/") if path.startswith("/v1/models/") else None
        expected, what, handler = self._routes.get("/v1/models" if named is not None else path, ("", "ask", self._page))
        asked.key = self._authorised(asked)
        if not expected:
            raise Refused(f"there is no {path[:80]}", status=404, code="not_found")
        if asked.key is not None and not asked.key.may(what):
            raise Refused("this key may not do that", status=403, code="permission_denied", kind="permission_error")
        if method != expected and not (method == "HEAD" and expected == "GET"):
            refused = Refused(f"{path} takes {expected}", status=405, code="method_not_allowed")
            refused.headers["allow"] = expected
            raise refused
        if named is not None:
            self._check_model(named)
            return await self._say(asked, 200, self._model(named))
        if method != "POST":
            return await handler(asked)
        self._check_origin(asked)
        if not self.ready or self.draining:
            raise _unavailable()
        if asked.key is not None and self._keys is not None and (seconds := self._keys.begin(asked.key)):
            raise later("this key's limit is reached", seconds)
        try:
            await handler(asked)
        finally:
            if asked.key is not None and self._keys is not None:
                self._keys.end(asked.key)

    def _check_host(self, asked: Asked) -> None:
        """A web page elsewhere may have its name resolved to this machine; its requests then name another host."""
        host = asked.header("host").lower()
        name = re.sub(r":\d+$", "", host)
        if self._hosts and name not in self._hosts:
            raise Refused("this host name is not served here", status=421, code="wrong_host")

    def _check_origin(self, asked: Asked) -> None:
        """A web page elsewhere may have its reader's browser ask, and cannot read the answer; it must not make us work either."""
        site, origin = asked.header("sec-fetch-site"), asked.header("origin")
        try:
            elsewhere = bool(origin and not site) and urlsplit(origin).netloc.lower() != asked.header("host").lower()
        except ValueError:  # no address
            elsewhere = True
        if elsewhere or site in ("cross-site", "same-site"):
            raise Refused("a page of another site may not ask", status=403, code="cross_site", kind="permission_error")

    def _authorised(self, asked: Asked) -> Key | None:
        if self._keys is None:
            return None
        kind, _, value = asked.header("authorization").partition(" ")
        secret = value.strip() if kind.lower() == "bearer" else ""
        if kind.lower() == "basic":  # a browser that opens the page asks for it: the key is the password
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        key = self._keys.find(secret) if secret else None
        if key is None:
            refused = Refused(
                "a valid key is needed: Authorization: Bearer KEY", status=401, code="invalid_api_key", kind="authentication_error"
            )
            refused.headers["www-authenticate"] = 'Basic realm="omnia", charset="UTF-8"' if asked.scope["path"] == "/" else "Bearer"
            raise refused
        return key

    def _report(self, error: Exception) -> None:
        """Where it was raised, without its message, which may quote what somebody wrote."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
        print(f"omnia serve: {type(error).__name__} at {where}", flush=True)

    # ------------------------------------------------------------------------------------------------ in and out

    async def _body(self, asked: Asked, check: Callable[[Any], Any]) -> Any:
        """What `check` makes of the request's JSON; Refused for what is none, or too large."""
        kind = asked.header("content-type").partition(";")[0].strip().lower()
        if kind not in ("application/json", ""):
            raise Refused(f"content-type is {kind[:60]!r}; it must be application/json", status=415, code="unsupported_media_type")
        if asked.header("content-encoding") not in ("", "identity"):
            raise Refused("bodies are taken as they are, without a content-encoding", status=415, code="unsupported_media_type")
        length = asked.header("content-length")
        if is_whole(length) and int(length) > MOST_BYTES:
            raise Refused(f"the body may have {MOST_BYTES} bytes", status=413, code="body_too_large")
        pieces, size, more = [], 0, True
        while more:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    message = await asked.receive()
            except TimeoutError:
                refused = Refused(f"no more of the body came for {IDLE_SECONDS:g} s", status=408, code="timeout")
                refused.headers["connection"] = "close"
                raise refused from None
            if message["type"] == "http.disconnect":
                raise Disconnected
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > MOST_BYTES:
                raise Refused(f"the body may have {MOST_BYTES} bytes", status=413, code="body_too_large")
            more = message.get("more_body", False)
        raw, asked.size = b"".join(pieces), size
        if size < LARGE_BYTES:
            return check(parsed(raw))
        return await asyncio.to_thread(lambda: check(parsed(raw)))

    async def _say(self, asked: Asked, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        if asked.status:  # begun already: a stream tells by an event
            with contextlib.suppress(Disconnected):
                await self._write(asked, b"data: " + raw + b"\n\ndata: [DONE]\n\n", last=True)
            return
        await self._begin(asked, status, {"content-type": "application/json", "content-length": str(len(raw))} | (headers or {}))
        await self._write(asked, b"" if asked.scope["method"] == "HEAD" else raw, last=True)

    async def _begin(self, asked: Asked, status: int, headers: dict[str, str]) -> None:
        asked.status = status
        whole = {"x-request-id": asked.shown or asked.id, "cache-control": "no-store", "x-content-type-options": "nosniff"} | headers
        raw = [(name.encode(), value.encode("latin-1")) for name, value in whole.items()]
        await asked.send({"type": "http.response.start", "status": status, "headers": raw})

    async def _write(self, asked: Asked, raw: bytes, *, last: bool = False) -> None:
        try:
            await asked.send({"type": "http.response.body", "body": raw, "more_body": not last})
        except OSError:
            raise Disconnected from None

    # ------------------------------------------------------------------------------------------------ routes

    async def _page(self, asked: Asked) -> None:
        """To talk with what talks; for rows where there are some, with ?rows if it talks too; else what can be done with the run."""
        served, working = self._served, self._working
        talks, wanted = served is not None or (working is not None and working.talks), asked.scope.get("query_string") == b"rows"
        more = {}
        if talks and not (wanted and working is not None):
            page, media = self._talk, " ".join(served.reads) if served is not None else ""
            body = page.filled(model=self.name, media=media, rows="rows" if working is not None else "")
        else:
            page, found = self._rows, working.page if working is not None else {"notice": self._notice or VECTORS}
            if not self.ready:
                found, more = {"notice": LOADING}, {"refresh": f"{RETRY_SECONDS:g}"}
            body = page.filled(model=self.name, rows=json.dumps(found, ensure_ascii=False))
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": page.policy, "referrer-policy": "no-referrer"}
        await self._say(asked, 200, body, headers | more)

    async def _ready(self, asked: Asked) -> None:
        engine = self._engine
        stuck = engine is not None and (not engine.alive or time.monotonic() - engine.advanced > STUCK_SECONDS)
        state = "draining" if self.draining else "loading" if not self.ready else "stuck" if stuck else "ready"
        await self._say(asked, 200 if state == "ready" else 503, {"status": state})

    async def _metrics(self, asked: Asked) -> None:
        await self._say(asked, 200, self._observed.text(), {"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    @property
    def _names(self) -> tuple[str, ...]:
        """The model's, and those of its adapters."""
        return self.name, *(self._served.adapters if self._served else ())

    def _model(self, name: str) -> dict[str, Any]:
        more: dict[str, Any] = {"max_model_len": self._served.size} if self._served else {}
        more |= {"parent": self.name} if name != self.name else {}
        return {"id": name, "object": "model", "created": self._created, "owned_by": "omnia"} | more

    async def _models(self, asked: Asked) -> None:
        await self._say(asked, 200, {"object": "list", "data": [self._model(name) for name in self._names]})

    async def _tokenize(self, asked: Asked) -> None:
        model, prompt, request = await self._body(asked, counting_request)
        self._check_model(model)
        served = self._writer()
        made = await asyncio.to_thread(served.prompt, prompt) if request is None else await asyncio.to_thread(served.conversation, request)
        await self._say(asked, 200, {"tokens": made.tokens, "count": len(made.tokens), "max_model_len": served.size})

    async def _detokenize(self, asked: Asked) -> None:
        model, ids = await self._body(asked, decoding_request)
        self._check_model(model)
        served = self._writer()
        if max(ids) >= served.vocabulary:
            raise Refused(f"tokens hold id {max(ids)}; there are {served.vocabulary}", "tokens")
        await self._say(asked, 200, {"prompt": served.decode(ids)})

    async def _chat(self, asked: Asked) -> None:
        if self._working is not None:
            await self._reply(asked, self._working)
            return
        await self._draw(asked, chat_request, ChatAnswer, lambda request: request.n)

    async def _complete(self, asked: Asked) -> None:
        await self._draw(asked, completion_request, CompletionAnswer, lambda request: request.n * len(request.prompts))

    async def _draw(self, asked: Asked, check: Any, answer: Any, choices: Callable[[Any], int]) -> None:
        request = await self._body(asked, check)
        self._check_model(request.model)
        if (count := choices(request)) > MOST_CHOICES:
            raise Refused(f"a request may ask for {MOST_CHOICES} texts, and this one asks for {count}", "n")
        served, engine = self._writer(), self._running()
        await self._run(asked, await asyncio.to_thread(answer, served, engine, request, asked.owner), request.stream)

    async def _embed(self, asked: Asked) -> None:
        request = await self._body(asked, embedding_request)
        self._check_model(request.model)
        if self._embedder is None:
            raise Refused("this server makes no embeddings: serve it an encoder, or with --embeddings", "model", "unsupported_model")
        if len(request.inputs) > MOST_INPUTS:
            raise Refused(f"input has {len(request.inputs)} texts; a request may have {MOST_INPUTS}", "input")
        if self._embeddings >= MOST_EMBEDDING:
            self._observed.rejected()
            raise later("too many requests wait", RETRY_SECONDS)
        self._embeddings += 1
        try:
            found = await self._while_there(asked, self._vectors(asked, request))
        finally:
            self._embeddings -= 1
        await self._say(asked, 200, found)

    async def _apply(self, asked: Asked) -> None:
        model, rows = await self._body(asked, applying_request)
        self._check_model(model)
        if self._working is None:
            raise Refused(self._notice or "this run answers no rows", "model", "unsupported_model")
        if len(rows) > self._working.most_rows:
            raise Refused(f"rows has {len(rows)} rows; a request may have {self._working.most_rows}", "rows")
        found = await self._at_work(asked, self._working.lines, rows)
        await self._say(asked, 200, {"object": "list", "data": found, "model": model or self.name})

    async def _reply(self, asked: Asked, working: Working) -> None:
        request = await self._body(asked, chat_request)
        self._check_model(request.model)
        found = await self._at_work(asked, working.reply, request)
        if not request.stream:
            await self._say(asked, 200, found)
            return
        await self._begin(asked, 200, {"content-type": "text/event-stream"})
        await self._write(asked, events(found, request.include_usage), last=True)

    async def _at_work(self, asked: Asked, what: Callable[..., Any], given: Any) -> Any:
        """An application's answer, for as many at once as embeddings are made for."""
        if self._embeddings >= MOST_EMBEDDING:
            self._observed.rejected()
            raise later("too many requests wait", RETRY_SECONDS)
        self._embeddings += 1
        try:
            self._charge(asked.key, asked.size // 4)  # about as many tokens as are read
            return await self._while_there(asked, self._in_turn(what, given))
        finally:
            self._embeddings -= 1

    async def _in_turn(self, what: Callable[..., Any], given: Any) -> Any:
        async with self._embedding:
            return await _to_its_end(what, given)

    async def _vectors(self, asked: Asked, request: EmbeddingRequest) -> dict[str, Any]:
        rows = await _to_its_end(rows_of, self._embedder, request)
        self._charge(asked.key, sum(map(len, rows)))
        async with self._embedding:
            found = await _to_its_end(embeddings, self._embedder, rows, request, self.name)
        asked.tokens = (found["usage"]["prompt_tokens"], 0)
        return found

    # ------------------------------------------------------------------------------------------------ answering

    def _writer(self) -> Served:
        if self._served is None:
            there = {"/v1/embeddings": self._embedder, "/v1/apply": self._working}
            ways = " or ".join(route for route, what in there.items() if what is not None)
            raise Refused(f"this run continues no text: use {ways}" if ways else self._notice, "model", "unsupported_model")
        return self._served

    def _running(self) -> Engine:
        """503 once the engine has ended."""
        if self._engine is None or not self._engine.alive:
            raise _unavailable()
        return self._engine

    def _check_model(self, name: str) -> None:
        if name and name not in self._names:
            known = ", ".join(map(repr, self._names))
            raise Refused(f"there is no model {name[:80]!r}; this server has {known}", "model", "model_not_found", 404)

    async def _run(self, asked: Asked, answer: ChatAnswer | CompletionAnswer, stream: bool) -> None:
        """Hand the jobs in, and the answer out; whoever leaves takes his jobs along."""
        jobs, key = answer.answer.jobs, asked.key
        wanted, asked.seed = sum(job.cost for job in jobs), jobs[0].seed
        if key is not None and key.context and max(job.cost for job in jobs) > key.context:
            raise Refused(f"this key may use {key.context} tokens of context", "max_tokens", "context_length_exceeded")
        self._charge(key, wanted)
        submitted = False
        try:
            if not isinstance(answer, CompletionAnswer) or answer.asks:
                self._submit(answer)
            submitted = True
            await self._while_there(asked, self._stream(asked, answer) if stream else self._whole(asked, answer))
        finally:
            answer.answer.cancel()  # those that have ended stay as they are
            used = answer.answer.usage()
            asked.tokens = (used["prompt_tokens"], used["completion_tokens"])
            if key is not None and self._keys is not None:
                self._keys.give_back(key, max(0, wanted - used["total_tokens"]) if submitted else wanted)

    async def _while_there(self, asked: Asked, work: Coroutine[Any, Any, Any]) -> Any:
        """What some work comes to, which is given up once the client has gone."""
        leaving, doing = asyncio.ensure_future(_left(asked.receive)), asyncio.ensure_future(work)
        try:
            await asyncio.wait({leaving, doing}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                doing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await doing
                raise Disconnected
            return await doing
        finally:
            leaving.cancel()
            doing.cancel()

    def _charge(self, key: Key | None, tokens: int) -> None:
        if key is not None and self._keys is not None and (seconds := self._keys.take(key, tokens)):
            raise later("this key's limit is reached", seconds)

    def _submit(self, answer: ChatAnswer | CompletionAnswer) -> None:
        try:
            answer.answer.start()
        except Full as full:
            self._observed.rejected()
            raise later("too many requests wait", full.seconds) from None
        except ValueError as error:
            raise Refused(str(error), "n") from None
        except RuntimeError:
            raise Failed("the engine has ended") from None

    async def _whole(self, asked: Asked, answer: ChatAnswer | CompletionAnswer) -> None:
        await self._say(asked, 200, await answer.whole())

    async def _stream(self, asked: Asked, answer: ChatAnswer | CompletionAnswer) -> None:
        await self._begin(asked, 200, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"})
        async for chunk in _closing(answer.chunks()):
            await self._write(asked, b"data: " + json.dumps(chunk, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n")
        await self._write(asked, b"data: [DONE]\n\n", last=True)


async def _to_its_end(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a thread computes, which cannot be given up: whoever is cancelled meanwhile waits for it, and keeps what he holds."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise


def _unavailable() -> Refused:
    """While the server loads or ends."""
    refused = Refused("the server is not ready", status=503, code="unavailable", kind="server_error")
    refused.headers["retry-after"] = str(int(RETRY_SECONDS))
    return refused


async def _closing(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    async with contextlib.aclosing(chunks) as open_chunks:  # type: ignore[type-var]
        async for chunk in open_chunks:
            yield chunk


async def _left(receive: Receive) -> None:
    """Returns once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _set(jobs: list[Job]) -> None:
    for job in jobs:
        if job.signal is not None:
            job.signal.set()
