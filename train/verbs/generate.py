"""`omnia generate`: continues prompts, or writes and reads media."""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from data.errors import UserError
from data.files import json_files
from data.files.text_files import BYTE_ORDER_MARK, read_text, split_lines
from train.verbs.arguments import check_belongs, check_seed, parse, start_jax


@dataclasses.dataclass(frozen=True)
class Generate:
    """Continue a prompt, every line of a file, or what you type."""

    run_dir: tyro.conf.Positional[str]
    """Folder of the run."""
    prompt: str | None = None
    """Text to continue; "" starts a new document."""
    suffix: str | None = None
    """With --prompt: the text after the gap. Generates only the text between the two (for runs trained with data.fim_rate)."""
    prompts: str | None = None
    """File with a prompt on each line."""
    image: tuple[str, ...] = ()
    """With --prompt: images to put before it (for models with an image encoder)."""
    video: tuple[str, ...] = ()
    """The same for video clips, after the images."""
    audio: tuple[str, ...] = ()
    """The same for audio recordings, after the clips."""
    write: Literal["text", "image", "video", "audio"] = "text"
    """With --prompt and --output: the medium to generate (for models whose tokenizer has codes for it)."""
    output: str = ""
    """With --write: output file, .png, .gif or .wav. With --samples each file name gets a number."""
    interactive: bool = False
    """Read prompts from the terminal until the input ends."""
    chat: bool = False
    """Chat with an imported model, or one that started from it. /reset starts over, /exit quits. Sampling defaults to its authors'
    settings."""
    system: str = ""
    """With --chat: the system prompt."""
    max_new_tokens: int = 200
    """Maximum length of each continuation. With --suffix, the context must hold it and both sides of the gap."""
    temperature: float | None = None
    """Divides the logits; 0 is greedy. Default: 0.8. With --chat, this and the next seven options default to the authors' settings."""
    top_k: int | None = None
    """Sample from the k most likely tokens. 0, the default: all."""
    top_p: float | None = None
    """Sample from the smallest set of tokens with this total probability. 1, the default: all."""
    min_p: float | None = None
    """Sample from tokens with at least this fraction of the highest probability. Default: 0."""
    typical_p: float | None = None
    """Sample from the tokens about as surprising as expected, with this total probability. 1, the default: all."""
    repetition_penalty: float | None = None
    """Above 1: tokens already in the text become less likely. Default: 1."""
    frequency_penalty: float | None = None
    """Subtracted from a token's logit for each time that it follows the prompt. Default: 0."""
    presence_penalty: float | None = None
    """Subtracted from the logit of every token that follows the prompt. Default: 0."""
    stop: tuple[str, ...] = ()
    """End a text before any of these strings. In them, \\n is a line feed, \\t a tab, \\r a carriage return, and \\\\ a backslash."""
    seed: int = 0
    """Seed of sampling."""
    samples: int = 1
    """Continuations per prompt."""
    beams: int = 0
    """Search for the most likely continuations with this many beams, and show --samples of them. 0: sample."""
    length_penalty: float = 0.0
    """With --beams: above 0, longer texts are ranked higher (Wu et al. 2016, eq. 14)."""
    int8: bool = False
    """Round weights and activations to eight bits: faster, slightly less exact."""
    json: bool = False
    """Print each continuation as a line of JSON: prompt, text, ids, log_probs, finish."""
    step: int | None = None
    """Checkpoint to use. Default: the latest."""
    raw: bool = False
    """Use the trained parameters even if an average is kept."""


USUAL = {
    "temperature": 0.8,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""How a text is drawn where neither the user nor, with --chat, the model's authors say."""
ROWS_AT_ONCE = 64
LARGEST_PENALTY = 5.0
"""A power of the length: beyond it, that of a long text is no number of float32 any more."""


def generate(arguments: list[str]) -> None:
    options = parse(Generate, "generate", arguments)
    _check(options)
    options = dataclasses.replace(options, stop=tuple(map(_without_escapes, options.stop)))
    from train.runs.directory import open_run

    run = open_run(options.run_dir)
    of_media = _check_with_run(options, run)
    said: dict[str, float] = {}
    if options.chat:
        from train.generation.chat import load_chat

        chat = load_chat(run.path)
        if not chat.template:
            raise UserError(f"{options.run_dir}: its model has no chat template", "Give --prompt, or a run that was imported with one.")
        said = chat.defaults
    filters = filters_of(options, said)
    start_jax()
    from model.decoding.sampling import Sampling

    try:
        whole: dict[str, Any] = filters | {"top_k": int(filters["top_k"])}
        sampling = Sampling(**whole)
    except ValueError as error:
        raise UserError(str(error)) from None
    if of_media:
        return _write_about_media(run, options, sampling)
    from train.generation.text import load_generator

    generator = load_generator(run, step=options.step, raw=options.raw, int8=options.int8)
    if options.chat:
        return _converse(generator, chat, run.tokenizer(), options, sampling)
    for prompts in _prompts(options):
        _continue(generator, prompts, options, sampling)


def filters_of(options: Generate, authors: dict[str, float]) -> dict[str, Any]:
    """How a text is drawn: as the user says, else as the model's authors do, else as usual."""
    return USUAL | authors | {name: value for name in USUAL if (value := getattr(options, name)) is not None}


def _check(options: Generate) -> None:
    """UserError for options that are out of range, or that mean nothing together."""
    if sum((options.prompt is not None, options.prompts is not None, options.interactive, options.chat)) != 1:
        raise UserError("omnia generate: what should be continued?", "Give one of --prompt TEXT, --prompts FILE, --interactive, --chat.")
    if options.max_new_tokens < 1 or options.samples < 1:
        raise UserError("omnia generate: --max-new-tokens and --samples must be positive")
    if options.suffix is not None and options.prompt is None:
        raise UserError("omnia generate: --suffix needs what stands before the gap", "Give it with --prompt.")
    check_seed("generate", options.seed)
    if options.beams < 0 or not 0 <= options.length_penalty <= LARGEST_PENALTY:
        raise UserError(f"omnia generate: --beams must be 0 or more, --length-penalty 0 to {LARGEST_PENALTY:g}", "Correct the option.")
    drawing = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "suffix", "stop")
    check_belongs(
        "generate",
        options,
        length_penalty=(bool(options.beams), "belongs to --beams"),
        system=(options.chat, "belongs to --chat"),
        **dict.fromkeys(("json", "samples", "beams"), (not options.chat, "does not go with --chat")),
        **dict.fromkeys(drawing, (not options.beams, "does not go with --beams, which draws nothing")),
    )
    if "" in options.stop:
        raise UserError("omnia generate: a --stop string is empty: every text would end at once", "Leave it out.")


def _check_with_run(options: Generate, run) -> bool:
    """UserError for what this run cannot do. Returns whether media are read or written, or the model is one that reads them."""
    from train.sources.text import text_data

    if options.suffix is not None and not text_data(run.experiment).fim_rate:
        raise UserError(
            f"{options.run_dir}: was not trained to fill in the middle (data.fim_rate is 0)", "Train one with --data.fim-rate 0.5."
        )
    if (options.write != "text") != bool(options.output):
        raise UserError("omnia generate: --write image|video|audio and --output FILE go together", "Give both, or neither.")
    if options.output:
        from data.media.output import check_output

        check_output(options.write, Path(options.output))
    of_media = bool(_media_of(options) or options.output or hasattr(run.experiment.model, "encoders"))
    of_text = dict.fromkeys(
        ("beams", "suffix", "stop", "int8", "interactive", "prompts", "chat"),
        (not of_media, "is not for media, nor for a model that reads them"),
    )
    written = (not options.output, "is of texts: a medium has the length of its codes")
    check_belongs("generate", options, max_new_tokens=written, **of_text)
    return of_media


def _media_of(options: Generate) -> list[tuple[str, str]]:
    """(kind, path) of each file that stands before the prompt."""
    return [(kind, path) for kind in ("image", "video", "audio") for path in getattr(options, kind)]


def _prompts(options: Generate) -> Iterator[list[str]]:
    """The prompts, in groups that are continued together."""
    if options.interactive:
        for line in _asked():
            yield [line]
    elif options.prompts is not None:
        lines = split_lines(read_text(options.prompts))
        if not lines:
            raise UserError(f"{options.prompts}: holds no prompt", "Write one on each line.")
        yield lines
    else:
        yield [options.prompt or ""]


def _continue(generator, prompts: list[str], options: Generate, sampling) -> None:
    """Print the continuations of the prompts; a single one grows as it is drawn."""
    alone = options.suffix is not None or generator.answers
    if options.beams:
        completions = _found(generator, prompts, options)
    else:
        prompts = [prompt for prompt in prompts for _ in range(options.samples)]
        request = {"tokens": options.max_new_tokens, "sampling": sampling, "seed": options.seed}
        request |= {"stop": options.stop, "suffix": options.suffix}
        if len(prompts) == 1 and not options.json:
            _stream(generator.stream(prompts, **request), options.stop, alone=alone)
            return
        completions = _drawn(generator, prompts, request)
    for completion in completions:
        text = f"{'' if alone else completion.prompt}{completion.text}\n{'-' * 8}"
        print(json_files.dumps(dataclasses.asdict(completion)) if options.json else text)


def _drawn(generator, prompts: list[str], request: dict) -> Iterator:
    """By groups of rows: a long file of prompts needs no more memory than a short one."""
    draws = [(request["seed"], row) for row in range(len(prompts))]
    for first in range(0, len(prompts), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        yield from generator.generate(prompts[part], **request | {"draws": draws[part]})


def _found(generator, prompts: list[str], options: Generate) -> Iterator:
    """The likeliest continuations of each prompt, by groups of rows."""
    request = {"tokens": options.max_new_tokens, "beams": options.beams, "length_penalty": options.length_penalty}
    at_once = max(1, ROWS_AT_ONCE // options.beams)
    for first in range(0, len(prompts), at_once):
        for completions in generator.search(prompts[first : first + at_once], samples=options.samples, **request):
            yield from completions


def _write_about_media(run, options: Generate, sampling) -> None:
    """What a model that reads or writes media writes after files and a prompt."""
    from train.generation.about_media import load_writer

    media = _media_of(options)
    if options.output and options.write not in (codes := run.tokenizer().codes):
        raise UserError(f"{options.run_dir}: its model writes no {options.write}", f"It writes {', '.join(['text', *codes])}.")
    if media and not hasattr(run.experiment.model, "encoders"):
        raise UserError(f"{options.run_dir}: its model has no encoders for {', '.join(kind for kind, _ in media)}", "Use a run that has.")
    parts: list = []
    for kind, path in media:
        try:
            parts.append((kind, Path(path).read_bytes()))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}", "Give the path of a file.") from None
    writer = load_writer(run, step=options.step, raw=options.raw)
    prompt = writer.read([*parts, ("text", options.prompt or "")])
    if options.write != "text":
        made = writer.media([prompt] * options.samples, options.write, sampling=sampling, seed=options.seed)
        return _save_media(options, codes[options.write].shape, made)
    if options.max_new_tokens >= (context := run.experiment.model.context_length):
        print(f"the context of {context} tokens ends a text before --max-new-tokens {options.max_new_tokens}", file=sys.stderr)
    texts = writer.write([prompt] * options.samples, tokens=options.max_new_tokens, sampling=sampling, seed=options.seed)
    for text in texts:
        print(json_files.dumps({"prompt": options.prompt, "media": [path for _, path in media], "text": text}) if options.json else text)


def _save_media(options: Generate, shape, written: list) -> None:
    """Each as a file of its own; of one that the model ended before it began, a word."""
    from data.media.output import save_medium

    output = Path(options.output)
    for number, cut in enumerate(written):
        path = output if len(written) == 1 else output.with_stem(f"{output.stem}-{number}")
        if cut is None:
            print(f"{path}: nothing was written: the model ended it at once", file=sys.stderr)
            continue
        save_medium(shape, cut, path)
        print(json_files.dumps({"prompt": options.prompt, "file": str(path)}) if options.json else path)


def _without_escapes(text: str) -> str:
    """The text with `\\n`, `\\t`, `\\r` and `\\\\` as what they stand for; other backslashes stay."""
    return re.sub(r"\\([ntr\\])", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], "\\"), text)


def _asked() -> Iterator[str]:
    """What is typed or comes through a pipe, line by line until its end; a line that is no UTF-8 is said, and passed over."""
    typed, number = sys.stdin.isatty(), 0
    if hasattr(sys.stdin, "reconfigure"):  # so that the lines after a wrong one are read too
        sys.stdin.reconfigure(encoding=sys.stdin.encoding if typed else "utf-8", errors="surrogateescape", newline="\n")
    while True:
        try:
            line = input("> " if typed else "").removesuffix("\r")
        except EOFError:
            return
        number += 1
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        try:
            line.encode()
        except UnicodeEncodeError:
            print(f"omnia generate: line {number} is no UTF-8, and is left out", file=sys.stderr)
            continue
        yield line


def _converse(generator, chat, tokenizer, options: Generate, sampling) -> None:
    """A conversation on the terminal, with all of its history, until /exit or the end of the input."""
    beginning = [{"role": "system", "content": options.system}] if options.system else []
    messages, turn = list(beginning), 0
    for line in _asked():
        if line.strip() == "/exit":
            return
        if line.strip() == "/reset":
            messages = list(beginning)
            continue
        if not line.strip():
            continue
        ids = chat.encode([*messages, {"role": "user", "content": line}], tokenizer)
        room = generator.context - len(ids)
        if room < 1:
            print(f"this would be {len(ids):,} tokens, and the model sees {generator.context:,}: /reset begins anew", file=sys.stderr)
            continue
        tokens = min(options.max_new_tokens, room)
        parts = generator.stream([ids], tokens=tokens, sampling=sampling, draws=[(options.seed, turn)], stop=options.stop)
        reply = _stream(parts, options.stop, alone=True)
        if reply.finish == "length":
            full = f"the context of {generator.context:,} tokens is full: /reset begins anew"
            print(full if tokens == room else f"(cut after --max-new-tokens {tokens})", file=sys.stderr)
        messages += [{"role": "user", "content": line}, {"role": "assistant", "content": reply.text}]
        turn += 1


def _stream(parts, stop: tuple[str, ...], alone: bool = False):
    """Print a text while it grows, `alone` or after its prompt; returns it.

    What may still change is held back: half a character, the beginning of a stop string.
    """
    shown = 0
    completion = None
    for (completion,) in parts:
        text = completion.text if alone else completion.prompt + completion.text
        if not completion.finish:
            text = text.rstrip("\ufffd")
            held = max((n for string in stop for n in range(1, len(string)) if text.endswith(string[:n])), default=0)
            text = text[: len(text) - held]
        print(text[shown:], end="", flush=True)
        shown = max(shown, len(text))
    print()
    return completion
