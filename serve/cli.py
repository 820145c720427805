"""`omnia serve RUN`: load, compile, listen, and end in order."""

import contextlib
import dataclasses
import functools
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import tyro

from data.errors import UserError
from train.verbs.arguments import parse, start_jax

LOCAL = ("127.0.0.1", "localhost", "::1")
MOST_CONNECTIONS = 4096
"""Of clients; whoever comes then is told to come again."""
STUCK_EXIT = 70
"""Exit code of a process whose engine is stuck, for whoever starts it again."""
STUCK_SECONDS = 120.0
MOST_GUESSES = 16
LOOK_SECONDS = 2.0
"""Between two looks at the engine, and for newer checkpoints."""
WRITING = ("adapters", "watch", "int8", "guesses", "draft", "forbidden", "classifier")
"""Options for texts that are continued."""
WATCHES = (
    "This run watches a stream, and has no line for a row by itself: `omnia apply {name} --input STREAM --output LINES --follow --report` "
    "writes what it finds, and report.html in the run's folder shows it."
)


@dataclasses.dataclass(frozen=True)
class Serve:
    """Answer requests in OpenAI's form: chat and completions from a model that writes, embeddings from an encoder, answers of an
    application; and at / a page to talk, or to have rows answered."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs --keys."""
    port: int = 8000
    """Port to listen on. 0: any that is free."""
    slots: int = 16
    """Texts that are continued at once."""
    context: int = 0
    """Tokens of a text with its prompt, at most. 0: the model's context."""
    keys: str = ""
    """File of the keys that may ask. Without it anybody on this machine may."""
    new_key: str = ""
    """With --keys: add a key of this name to the file, print it, and exit."""
    hosts: tuple[str, ...] = ()
    """Names by which requests may call this server. Default: those of this machine itself; with --keys any."""
    name: str = ""
    """Name of the model for clients. Default: that of the run's folder."""
    queue: int = 1024
    """Requests that may wait."""
    queue_tokens: int = 4_000_000
    """Tokens of prompts and answers that may wait."""
    chunk: int = 0
    """Tokens of a prompt that are read at once, while all texts wait. 0: 64 on a CPU, 256 otherwise."""
    guesses: int = 0
    """Tokens that each pass tries beside the next, where a text repeats itself: the same texts, sooner if they do, later if not."""
    draft: str = ""
    """A smaller run of the same tokens, which guesses instead, where that is faster: the same texts. --guesses is then 4 unless given."""
    prefix_bytes: int = 1 << 30
    """Memory for what was read before: prompts that begin alike are read once. 0: none."""
    exact: bool = False
    """The same bits whatever else runs, at the cost of speed for few and short texts."""
    adapters: tuple[str, ...] = ()
    """Runs with LoRA that started from this one, as NAME=RUN: a request chooses one by its name as the model's."""
    embeddings: bool = False
    """Make embeddings with a decoder too."""
    int8: bool = False
    """Round weights and activations to eight bits: faster, slightly less exact."""
    watch: bool = False
    """Change to newer checkpoints of the run as they appear."""
    audit: str = ""
    """File for a line about each request: who, when, how many tokens; never what."""
    forbidden: str = ""
    """File with a phrase on each line: requests that have one are refused, and answers end before one, however it is written."""
    classifier: str = ""
    """File of `omnia prepare classifier`: what it takes for harmful is refused, and each sentence is judged before it is shown."""
    review: str = ""
    """With --forbidden or --classifier: file that keeps what was stopped, texts included, for `omnia review`."""
    tls_cert: str = ""
    """With --tls-key: certificate file, for HTTPS."""
    tls_key: str = ""
    """Key file of the certificate."""
    drain: float = 30.0
    """Seconds that running texts have to end after SIGTERM."""
    step: int | None = None
    """Checkpoint to serve. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""


def serve(arguments: list[str]) -> int:
    options = parse(Serve, "serve", arguments)
    _check(options)
    if options.new_key:
        from serve.keys import new_key

        print(f"{options.new_key}: {new_key(options.keys, options.new_key)}\nThis is shown once; the file holds a digest of it.")
        return 0
    try:
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"omnia serve needs the package {error.name}", "Install it: pip install 'omnia[serve]'.") from None
    from serve.keys import read_keys
    from train.devices import hosts
    from train.runs.directory import open_run

    hosts.join()
    keys = read_keys(options.keys) if options.keys and hosts.index() == 0 else None
    run = open_run(options.run_dir)
    start_jax()
    if hosts.index():
        return _follow(options, run)
    return _listen(options, run, keys)


def chat(arguments: list[str]) -> None:
    """A conversation in the terminal."""
    from train.verbs.generate import generate

    generate([*arguments, "--chat"])


def _check(options: Serve) -> None:
    if options.new_key and not options.keys:
        raise UserError("--new-key adds to a file of keys", "Give it: --keys FILE.")
    if options.review and not options.forbidden and not options.classifier:
        raise UserError("--review keeps what is stopped, and nothing stops anything", "Give --forbidden FILE or --classifier FILE.")
    if options.host not in LOCAL and not options.keys:
        raise UserError(f"--host {options.host} lets other machines ask, and there are no keys", "Give --keys FILE, or leave --host out.")
    if bool(options.tls_cert) != bool(options.tls_key):
        raise UserError("--tls-cert and --tls-key belong together", "Give both, or neither.")
    for name, path in (("--tls-cert", options.tls_cert), ("--tls-key", options.tls_key)):
        if path and not os.access(path, os.R_OK):
            raise UserError(f"{name} {path}: cannot be read", "Give a file that is there, and that the server's user may read.")
    if options.watch and options.step is not None:
        raise UserError("--watch changes to newer checkpoints, and --step says which one", "Leave one of them out.")
    if options.watch and options.adapters:
        raise UserError("--watch changes the parameters that --adapters were trained beside", "Leave one of them out.")
    if options.embeddings and options.watch:
        raise UserError("--watch with --embeddings: vectors of two checkpoints cannot be compared", "Leave one of them out.")
    for name in ("slots", "queue", "queue_tokens", "chunk", "guesses", "context", "prefix_bytes", "drain"):
        least = int(name in ("slots", "queue", "queue_tokens"))
        if getattr(options, name) < least:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least {least}")
    if options.guesses > MOST_GUESSES:
        raise UserError(f"--guesses is {options.guesses}; it may be {MOST_GUESSES}", "A few are enough.")
    if not 0 <= options.port < 65536:
        raise UserError(f"--port is {options.port}; it must be from 0 to 65535")


# ------------------------------------------------------------------------------------------------ loading


@dataclasses.dataclass
class Loaded:
    """What answers: one for texts, one for vectors, or both."""

    served: Any = None
    engine: Any = None
    embedder: Any = None
    working: Any = None
    notice: str = ""
    """How to use a run that answers neither people nor rows."""
    programs: Any = None
    line: Any = None
    """To the other hosts."""
    step: int | None = None
    """Checkpoint of what continues texts."""


def load(options: Serve, run: Any, observed: Any, wake: Any = lambda jobs: None) -> Loaded:
    """The model of a run, with every program that it will run compiled. UserError for a run that answers nothing."""
    import jax

    from model.encoder_decoder import Conditioned
    from model.media.multimodal_config import MultimodalConfig
    from serve.adapters import load_adapters, parse_names
    from serve.drafts import GUESSES, with_draft
    from serve.engine import Engine
    from serve.hosts import Leader, Store
    from serve.media import MediaPrompts
    from serve.prefix import PrefixStore
    from serve.programs import programs_for
    from serve.scheduler import Scheduler
    from serve.served import Served
    from serve.sources import SourcePrompts
    from train.checkpoints.checkpointer import in_eight_bits, load_parameters
    from train.generation.chat import load_chat
    from train.generation.embeddings import load_embedder
    from train.generation.text import TextGenerator, decoder_of
    from train.sources.dataset import dataset_of

    found, several = Loaded(), jax.process_count() > 1
    dataset = dataset_of(run.experiment)
    writes = run.experiment.objective.generates and run.experiment.model.generates
    continues = writes and not dataset.talks
    useless = [f"--{name}" for name in WRITING if getattr(options, name)]
    if not continues and useless:
        raise UserError(f"{run.path}: {', '.join(useless)}: for a run that continues texts, and this one does not", "Leave that out.")
    if options.embeddings or (not writes and run.experiment.objective.of_texts):
        found.embedder = load_embedder(run, step=options.step, raw=options.raw)
        found.embedder.compile()
    if several and (found.embedder is not None or not continues):
        raise UserError("several hosts together continue texts, and do nothing else", "Serve embeddings and applications on one host.")
    if not continues:
        found.working = _working(options, run, dataset)
        found.notice = WATCHES.format(name=options.run_dir) if dataset.watches else ""
        if found.working is None and found.embedder is None and not found.notice:
            raise UserError(f"{run.path}: answers neither texts nor rows", "Give a run of texts, or of a task.")
        return found
    reads = isinstance(run.experiment.model, MultimodalConfig)
    model, folders = decoder_of(run, reads=True), parse_names(options.adapters, _name(options, run))
    params, found.step = load_parameters(run, step=options.step, raw=options.raw)
    tokenizer, template = run.tokenizer(), load_chat(run.path)
    generator = TextGenerator(model, in_eight_bits(params) if options.int8 else params, tokenizer, run.document_end, template)
    if options.context > generator.context:
        raise UserError(f"--context is {options.context}, and the model reads {generator.context} tokens", "Give that, or less.")
    context = options.context or generator.context
    if reads and context < generator.context:
        raise UserError(f"--context {context}: a model that reads media reads rows of {generator.context}", "Leave --context out.")
    reader: Any = None
    line = Store() if several else None
    if reads:
        reader = MediaPrompts(run.experiment, tokenizer)
        model = reader.model(model, generator.params)
    elif generator.answers:
        reader, model = SourcePrompts(generator, context), Conditioned(model)
    draft = None
    if options.draft:
        model, draft = with_draft(model, options.draft, tokenizer, context)
    programs = programs_for(
        model,
        generator.params,
        slots=options.slots,
        context=context,
        chunk=options.chunk,
        exact=options.exact,
        adapters=load_adapters(folders, params) if folders else None,
        guesses=options.guesses or (GUESSES if options.draft else 0),
        draft=draft,
        reader=reader,
        newer=functools.partial(_newer, options, run, line=line),
    )
    programs.compile()
    found.programs = Leader(programs, line) if line is not None and jax.process_index() == 0 else programs
    found.line = line
    scheduler = Scheduler(most_jobs=options.queue, most_tokens=options.queue_tokens)
    prefixes = PrefixStore(chunk=programs.chunk, most_bytes=options.prefix_bytes)
    found.engine = Engine(found.programs, scheduler, prefixes, observed, wake)
    found.served = Served(_name(options, run), generator, tokenizer, template, size=context, adapters=[*folders], reader=reader)
    found.served.version = _version(options, found.step)
    return found


def _working(options: Serve, run: Any, dataset: Any) -> Any:
    """What a run of a task does with rows; None for a run of none, or one that watches a stream."""
    from serve.applications import Working
    from train.kinds import Dataset

    if dataset.watches or type(dataset).application is Dataset.application:
        return None
    dataset.place = run.path
    working = Working(dataset.application(run, step=options.step, raw=options.raw), _name(options, run))
    working.compile()
    return working


# ------------------------------------------------------------------------------------------------ listening


def _follow(options: Serve, run: Any) -> int:
    """On the other hosts: no port, and the work of process 0, which ends it."""
    from serve.hosts import follow
    from serve.observe import Observed

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    loaded = load(options, run, Observed())
    follow(loaded.programs, loaded.line)
    return 0


def _listen(options: Serve, run: Any, keys: Any) -> int:
    import jax
    import uvicorn

    from serve.connections import Connection
    from serve.http import LOCAL_NAMES, Application
    from serve.observe import AuditLog, Observed

    observed, audit = Observed(), AuditLog(Path(options.audit) if options.audit else None)
    hosts = tuple(host.lower() for host in options.hosts) or (() if options.keys else LOCAL_NAMES)
    application = Application(observed, name=_name(options, run), keys=keys, audit=audit, hosts=hosts)
    gate, stopped = _gate(options)
    failure: list[str] = []
    leaders: list[Any] = []

    def count(event: str, seconds: float, **_: Any) -> None:
        if application.ready and event.endswith("backend_compile_duration"):
            observed.compiled()

    jax.monitoring.register_event_duration_secs_listener(count)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            """Refuse what is new, let run what runs, and end what then still does with an error that its client sees. Whoever asks
            meanwhile is answered that the server ends; asked twice, it ends at once."""
            if application.draining:
                self.should_exit = self.force_exit = True
                return
            application.draining = True
            print(f"omnia serve: ending; texts have {options.drain:g} s", flush=True)
            threading.Thread(target=self.end, daemon=True).start()

        def end(self) -> None:
            application.stop(options.drain)
            self.should_exit = True

    server = Server(
        uvicorn.Config(
            application,
            host=options.host,
            port=options.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            http=Connection,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=75,
            h11_max_incomplete_event_size=64 << 10,
            ssl_certfile=options.tls_cert or None,
            ssl_keyfile=options.tls_key or None,
        )
    )

    allow_files(2 * MOST_CONNECTIONS)
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"cannot listen on {options.host}:{options.port}: {error.strerror}", "Choose another --host or --port.") from None

    def prepare() -> None:
        try:
            began = time.monotonic()
            loaded = load(options, run, observed, application.woken)
            if jax.process_count() > 1:
                leaders.append(loaded.programs)
            if loaded.engine is not None:
                loaded.engine.start()
            if loaded.served is not None:
                loaded.served.gate = gate
            application.serve(loaded.served, loaded.engine, loaded.embedder, loaded.working, loaded.notice)
            while not server.started and not server.should_exit:
                time.sleep(0.01)
            if server.started:
                print(
                    f"omnia serve: {application.name} at {_address(options, listener)}, ready after {time.monotonic() - began:.1f} s",
                    flush=True,
                )
            _look_after(options, run, application, loaded, server)
        except UserError as error:
            failure.append(str(error))
            server.should_exit = True
        except BaseException:
            traceback.print_exc()
            failure.append("the model could not be loaded")
            server.should_exit = True

    loading = threading.Thread(target=prepare, name="loading", daemon=True)
    loading.start()
    try:
        server.run(sockets=[listener])
    finally:
        application.stop(1.0)
        audit.close()
        if stopped is not None:
            stopped.close()
        for leader in leaders:
            leader.end()
    if failure:
        raise UserError(failure[0])
    sys.stdout.flush()
    if loading.is_alive() and not application.ready:
        # It compiles and cannot be interrupted: an interpreter that ends in the usual way aborts.
        os._exit(0)
    return 0


def allow_files(count: int) -> None:
    """So many open files, connections counted, or as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _gate(options: Serve) -> tuple[Any, Any]:
    """What requests and answers pass, and the log of what it stops; None for none."""
    if not options.forbidden and not options.classifier:
        return None, None
    from data.clean.classifier import load_classifier
    from data.files.chain import ChainLog
    from data.records.review import stopped_of
    from serve.forbidden import Phrases
    from serve.guard import Guard

    phrases = Phrases.read(options.forbidden) if options.forbidden else None
    classifier = load_classifier(options.classifier) if options.classifier else None
    judge = None if classifier is None else lambda texts: [bool(one >= classifier.threshold) for one in classifier(texts)]
    log = ChainLog(options.review, mode=0o600) if options.review else None
    if log is None:
        return Guard(phrases, judge), None
    return Guard(phrases, judge, lambda *what: log.add(stopped_of(str(Path(options.run_dir).resolve()), *what))), log


def _name(options: Serve, run: Any) -> str:
    return options.name or run.path.resolve().name


def _version(options: Serve, step: int | None) -> str:
    return f"{step} {options.int8} {options.exact} {options.raw} {options.adapters}"


def _address(options: Serve, listener: socket.socket) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{'https' if options.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


def _look_after(options: Serve, run: Any, application: Any, loaded: Loaded, server: Any) -> None:
    """Take newer checkpoints, and end the process if its engine is stuck."""
    import jax

    engine, seen, said = loaded.engine, loaded.step, ""
    while not server.should_exit:
        time.sleep(LOOK_SECONDS)
        stuck = engine is not None and (not engine.alive or time.monotonic() - engine.advanced > STUCK_SECONDS)
        if stuck and not application.draining:
            why = engine.failed or "no sign of life"
            print(f"omnia serve: the engine is stuck or has failed ({why}); ending", file=sys.stderr, flush=True)
            time.sleep(1)  # what was told to clients reaches them
            os._exit(STUCK_EXIT)
        if options.watch and engine is not None:
            newest, trouble = _newest(run)
            if trouble and trouble != said:  # of a disk or a folder: what runs goes on, and the next look may find it well
                print(f"omnia serve: no newer checkpoint can be looked for: {trouble}", file=sys.stderr, flush=True)
            said = trouble
            if newest is not None and newest != seen:
                seen = newest
                done = functools.partial(setattr, loaded.served, "version", _version(options, newest))
                if jax.process_count() > 1:
                    engine.swap_to(newest, done)
                elif (params := _newer(options, run, newest)) is not None:  # read beside the texts, which need not wait for it
                    engine.swap(params, done)


def _newest(run: Any) -> tuple[int | None, str]:
    """(the step that would be loaded now, what kept one from looking)"""
    from train.checkpoints.checkpointer import Checkpointer

    try:
        with contextlib.closing(Checkpointer(run.path, run.experiment.checkpoints, identity=run.identity)) as checkpointer:
            best = checkpointer.best_step() if run.experiment.checkpoints.use_best else None
            return (checkpointer.latest_step(good=True) if best is None else best), ""
    except Exception as error:  # whatever a store can do
        return None, str(error).partition("\n")[0] or type(error).__name__


def _newer(options: Serve, run: Any, step: int, line: Any = None) -> Any:
    """The parameters of another checkpoint; None for one that cannot be read, on this host or another: those in hand go on."""
    from model.stack import unstack_layers
    from train.checkpoints.checkpointer import in_eight_bits, load_parameters

    params = None
    try:
        params, _ = load_parameters(run, step=step, raw=options.raw)
        params = in_eight_bits(params) if options.int8 else params
    except UserError as error:
        print(f"omnia serve: step {step} is left out: {error}", file=sys.stderr, flush=True)
    everywhere = line is None or line.agree(params is not None)
    if params is None or not everywhere:
        return None
    print(f"omnia serve: now step {step}", flush=True)
    return unstack_layers(params) if "layers" in params else params
