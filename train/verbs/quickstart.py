"""The quickstart: a model of Python code, from raw files to pictures, in minutes, with nothing downloaded.

The corpus is the standard library of the Python that runs this. Every stage is the real one: `omnia prepare`, `omnia train` with
configs/quickstart.py, `omnia evaluate`, `omnia generate`.
"""

import dataclasses
import sysconfig
import time
from pathlib import Path

import numpy as np

from data.errors import UserError
from data.files import json_files
from data.text.prepare import PrepareText, prepare_text
from data.text.shards import Corpus
from train.evaluation.ngram import NGram
from train.evaluation.snippets import parse_share
from train.experiment import Experiment, TextData
from train.runs.directory import Run, create_run, is_run, open_corpora, open_run, write_run
from train.runs.resolve import resolve
from train.verbs.arguments import parse, start_jax
from train.verbs.config_files import load_config

VOCABULARY = 2048
SNIPPETS = 64
SNIPPET_TOKENS = 128
SNIPPET_PROMPT = "def "
SNIPPET_TEMPERATURE = 0.7


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Train a small model of Python code on this machine, and show what it learned."""

    run_dir: str = "runs/quickstart"
    """Folder of the run; the corpus goes beside it, in the same name with -corpus. The same command again goes on where it stopped."""
    steps: int = 0
    """Updates. 0: as the config says, about two minutes on two cores."""


def quickstart(arguments: list[str]) -> int:
    options = parse(Quickstart, "quickstart", arguments)
    if options.steps < 0:
        raise UserError("omnia quickstart: --steps must be 0 or more", "0 takes as many as the config says.")
    configs = Path(__file__).parent.parent.parent / "configs"
    experiment, policy = load_config(str(configs / "quickstart.py")), load_config(str(configs / "rl" / "code.py"))
    if options.steps:
        experiment, policy = (
            dataclasses.replace(experiment, steps=options.steps),
            dataclasses.replace(policy, steps=min(options.steps, policy.steps)),
        )
    start_jax(devices=False)
    return run_stages(Path(options.run_dir), experiment, policy)["exit"]


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

    began = time.monotonic()
    corpus_dir = str(run_dir) + "-corpus"
    print(f"1. Preparing the standard library's source with a SentencePiece tokenizer of {VOCABULARY} pieces", flush=True)
    prepare_text(
        PrepareText(output=corpus_dir, input=standard_library(), tokenizer=f"sentencepiece:{VOCABULARY}", validation=0.05, max_damaged=50)
    )
    run = _open(run_dir, corpus_dir, experiment)

    print("2. The baseline to beat: an n-gram model of the same tokens", flush=True)
    baseline = _baseline(Corpus(corpus_dir))
    print(f"   5-gram, interpolated Kneser-Ney: {baseline['loss']:.3f} nats per token; {_say(baseline)}", flush=True)

    print(f"3. Training for {run.experiment.steps} steps", flush=True)
    snippets = _Snippets(run)
    summary = train(run, on_samples=snippets)
    if summary["stopped"]:
        return summary
    validation = summary["validation"]
    print(f"4. Validation: {validation['loss']:.3f} nats per token, {validation['bits_per_byte']:.3f} bits per byte")
    final = snippets.shares.get(summary["step"])
    if final is not None:  # else the run was complete already: nothing was trained, so no samples were drawn
        print(f"   {_say(final)}; of the n-gram model's, {baseline['share']:.0%}")
        summary |= {"snippets": {str(step): share for step, share in snippets.shares.items()}, "ngram": baseline}

    print(
        f"5. Learning from reward: {policy.steps} steps of PPO, 1 for a function that parses, is not trivial and is no repeat", flush=True
    )
    answers = _open_policy(Path(str(run_dir) + "-ppo"), run, policy)
    learned = train(answers)
    if learned["stopped"]:
        return learned
    found = learned["validation"]
    print(f"   reward {found['score_start']:.3f} before, {found['score']:.3f} after ({found['prompts']} prompts that were not trained on)")
    print("   what pays is not always what was meant: look at its samples")
    summary |= {"policy": found, "quickstart_seconds": time.monotonic() - began}
    json_files.write(run.path / "summary.json", summary)
    print(f"\nDone in {summary['quickstart_seconds'] / 60:.1f} minutes. Next:")
    print(f"   open {run.path / 'report.html'} and {answers.path / 'report.html'}")
    print(f"   omnia generate {run.path} --prompt 'def main(' --max-new-tokens 200")
    print(f"   omnia inspect {corpus_dir}")
    return summary


class _Snippets:
    """The share of generated functions that parse, as the model learns: drawn whenever the loop draws samples."""

    def __init__(self, run: Run):
        self._run = run
        self.shares: dict[int, dict] = {}

    def __call__(self, step: int, params) -> str:
        from model.decoding.generate import Sampling
        from train.generation.text import make_generator

        generator = make_generator(self._run, params)
        sampling = Sampling(temperature=SNIPPET_TEMPERATURE)
        prompts = [SNIPPET_PROMPT] * SNIPPETS
        completions = generator.generate(prompts, tokens=SNIPPET_TOKENS, sampling=sampling, seed=self._run.experiment.seed)
        self.shares[step] = parse_share([completion.prompt + completion.text for completion in completions])
        return _say(self.shares[step])


def _open(run_dir: Path, corpus_dir: str, experiment: Experiment) -> Run:
    """The run to go on with, or a new one."""
    if is_run(run_dir):
        run = open_run(run_dir)
        if run.experiment.steps != experiment.steps:
            run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, steps=experiment.steps))
            write_run(run)
        return run
    experiment = dataclasses.replace(experiment, data=TextData(shards=(corpus_dir,)))
    corpora = open_corpora(experiment)
    return create_run(run_dir, resolve(experiment, corpora), corpora)


def _open_policy(run_dir: Path, start: Run, experiment: Experiment) -> Run:
    """The run that goes on from `start`, or a new one."""
    if is_run(run_dir):
        return open_run(run_dir)
    experiment = dataclasses.replace(experiment, start=str(start.path))
    sources = open_corpora(experiment)
    return create_run(run_dir, resolve(experiment, sources), sources)


def _baseline(corpus: Corpus) -> dict:
    """An n-gram model trained on all of the corpus: its loss on all of the validation split, and its snippets that parse.

    Snippets are drawn as the Transformer's are: the same prompt, length and temperature.
    """
    train, validation, tokenizer = corpus.split("train"), corpus.split("validation"), corpus.tokenizer()
    ngram = NGram.fit((train.read(document) for document in range(train.documents)), tokenizer.size)
    loss = ngram.nats_per_token(validation.read(document) for document in range(validation.documents))
    start = [corpus.document_end, *tokenizer.encode(SNIPPET_PROMPT).tolist()]
    rng = np.random.default_rng(0)
    new = [ngram.sample(rng, start, SNIPPET_TOKENS, corpus.document_end, temperature=SNIPPET_TEMPERATURE) for _ in range(SNIPPETS)]
    return {"loss": loss} | parse_share([SNIPPET_PROMPT + tokenizer.decode(ids) for ids in new])


def _say(share: dict) -> str:
    return (
        f"{share['share']:.0%} of {share['total']} generated functions are Python that parses ({share['trivial']} trivial ones not counted)"
    )
