"""EleutherAI's lm-eval on a run: all three kinds of its requests, by our own engines. Extra: eval."""

import difflib
import itertools
import logging
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.errors import UserError
from model.decoding.sampling import Sampling
from model.encoder_decoder import EncoderDecoder
from train.checkpoints.checkpointer import in_eight_bits, load_parameters
from train.devices.mesh import inference_mesh
from train.evaluation.harness_sets import FOLDER
from train.evaluation.likelihood import Likelihoods, Request
from train.generation.chat import load_chat
from train.generation.text import beginning, decoder_of, make_generator
from train.runs.directory import Run, open_run

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")

try:
    for name in OFFLINE:  # both are read when the packages are imported; "0" asks for the network
        os.environ.setdefault(name, "1")
    import lm_eval
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
except ImportError:
    raise UserError("tasks need the package lm-eval", "Install it: pip install 'omnia[eval]'.") from None

TASKS = Path(__file__).parents[2] / "configs" / "harness"
"""The folder of our own task files."""
GENERATED = 16
"""Texts that are written together."""
NEW_TOKENS = 256
"""Tokens of a text whose task does not say how many; as lm-eval has it."""


@register_model("omnia")
class HarnessModel(TemplateLM):
    """A checkpoint of a run as lm-eval sees a model, under the name "omnia" with `run=DIR`.

    A text begins as the run's tokenizer says: with the start token of an imported model, if it has one, else with a document's start where
    the corpus had those; once, also where the text brings it. An encoder-decoder reads a document's end behind the context.
    What a text spells is text: only the chat template makes special tokens.
    """

    def __init__(
        self,
        run: Run | str,
        *,
        step: int | None = None,
        raw: bool = False,
        int8: bool = False,
        context_length: int = 0,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
    ):
        """context_length: tokens that the model is given at most; 0: its context. batch_size, max_batch_size, device: lm-eval gives them to
        every model; the engines choose their own."""
        super().__init__()
        self.run = open_run(run) if isinstance(run, str) else run
        mesh = inference_mesh(self.run.experiment.mesh)
        params, self.step = load_parameters(self.run, mesh, step=step, raw=raw)
        params = in_eight_bits(params) if int8 else params
        model = decoder_of(self.run, reads=True)
        self._reads = isinstance(model, EncoderDecoder)
        self.backend = "seq2seq" if self._reads else "causal"
        self._tokenizer, self._chat = self.run.tokenizer(), load_chat(self.run.path)
        self._likelihoods = Likelihoods(model, params, mesh, context_length=context_length)
        self._generator = make_generator(self.run, params)
        self._start = self._start_ids()
        # Around the numbers of special tokens in what a template renders: text of a task cannot know it.
        self._mark = f"\ue000{secrets.token_hex(8)}:"
        self._special = re.compile(re.escape(self._mark) + "(\\d+)\ue000")

    def _start_ids(self) -> list[int]:
        imported = bool(self._chat.specials) and not self.run.experiment.start  # what started from it was trained in our way
        if self._chat.start_ids or imported or self._reads or self.run.document_end is None:
            return list(self._chat.start_ids)
        return [self._tokenizer.document_start]

    @property
    def eot_token_id(self) -> int:
        return self._chat.specials.get(self._chat.tokens.get("eos_token", ""), self._tokenizer.specials["document_end"])

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        if self._start:
            return self._start[0]
        return self._chat.specials.get(self._chat.tokens.get("bos_token", ""), self.eot_token_id)

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.digest

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        ids: list[int] = []
        for place, piece in enumerate(self._special.split(string)):
            if place % 2:
                ids.append(int(piece))
            elif piece:
                ids += (self._tokenizer.encode_inside if ids else self._tokenizer.encode)(piece).tolist()
        if add_special_tokens is False:
            return ids
        if self._reads:
            return ids + ([] if self.run.document_end is None else [self.run.document_end])
        return ids if ids[: len(self._start)] == self._start else self._start + ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the run's template writes it; without add_generation_prompt it ends where the last message does, to go on."""
        pieces = self._chat.render(chat_history, reply=add_generation_prompt)
        if not add_generation_prompt:
            last = chat_history[-1]["content"].strip()
            place = max(place for place, (piece, special) in enumerate(pieces) if special is None and last in piece)
            pieces = [*pieces[:place], (pieces[place][0][: pieces[place][0].rindex(last) + len(last)], None)]
        return "".join(piece if special is None else f"{self._mark}{special}\ue000" for piece, special in pieces)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._chat.template if chat_template else None

    def loglikelihood(self, requests, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests, **_: Any) -> list[tuple[float, bool]]:
        found = self._likelihoods([Request(context, continuation) for _, context, continuation in requests])
        return [(one.log_prob, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = True) -> list[float]:
        texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
        return self._likelihoods.rolling(texts, self.prefix_token_id)

    def generate_until(self, requests, disable_tqdm: bool = True) -> list[str]:
        """Greedy, unless the task samples: then a request's randomness comes from its number. Those that begin alike are written together,
        because the generator reads what they share once; the others with those that are as long."""
        found = [""] * len(requests)
        asked = [(number, request.args[0], normalize_gen_kwargs(request.args[1], NEW_TOKENS)) for number, request in enumerate(requests)]
        asked = [(number, self._ids_to_continue(context, how), how) for number, context, how in asked]
        asked.sort(key=lambda one: (str(one[2]), one[1]))
        for _, group in itertools.groupby(asked, key=lambda one: str(one[2])):
            for together in _together(list(group)):
                numbers, prompts, hows = zip(*together, strict=True)
                for number, text in zip(numbers, self._written(prompts, hows[0], numbers[0]), strict=True):
                    found[number] = text
        return found

    def _ids_to_continue(self, context: str, how: dict[str, Any]) -> list[int]:
        """The end of the context, if it leaves no room for the new tokens."""
        if self._reads:  # it reads the context whole, and the generator ends it
            return self.tok_encode(context, add_special_tokens=False)[-self._likelihoods.context_length :]
        room = self._likelihoods.context_length - how["max_gen_toks"]
        if room < 1:
            raise UserError(
                f"a task asks for {how['max_gen_toks']} new tokens; the model's context is {self._likelihoods.context_length}",
                "Choose a task that asks for fewer.",
            )
        return (self.tok_encode(context) or [self.prefix_token_id])[-room:]

    def _written(self, prompts, how: dict[str, Any], first_row: int) -> list[str]:
        sampled = {
            name: how[name] for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty") if how.get(name) is not None
        }
        sampling = Sampling(**sampled) if how.get("do_sample") else Sampling(temperature=0.0)
        stop, tokens = tuple(text for text in how["until"] if text), how["max_gen_toks"]
        draws = [(0, first_row + place) for place in range(len(prompts))]
        made = self._generator.generate(list(prompts), tokens=tokens, sampling=sampling, draws=draws, stop=stop)
        return [completion.text for completion in made]


def _together(asked: list[tuple[int, list[int], Any]]) -> Iterator[list[tuple[int, list[int], Any]]]:
    """Requests, in the order of their prompts' ids, in groups of at most GENERATED: neighbours that share most of their prompts, and of
    those that share it with no neighbour, such as are about as long."""
    alone, begun = [], 0
    for place in range(1, len(asked) + 1):
        shares = place < len(asked) and 2 * beginning([asked[begun][1], asked[place][1]]) > len(asked[begun][1])
        if shares and place - begun < GENERATED:
            continue
        if place - begun > 1:
            yield asked[begun:place]
        else:
            alone.append(asked[begun])
        begun = place
    alone.sort(key=lambda one: -len(one[1]))
    for first in range(0, len(alone), GENERATED):
        yield alone[first : first + GENERATED]


def evaluate_tasks(
    run: Run,
    tasks: Sequence[str],
    *,
    shots: int | None = None,
    task_files: str = "",
    data: str = "",
    limit: int = 0,
    chat: bool = False,
    step: int | None = None,
    raw: bool = False,
    int8: bool = False,
    context_length: int = 0,
) -> dict[str, Any]:
    """Measure lm-eval's tasks on a checkpoint of the run (default: the latest), with the averaged parameters where kept, unless `raw`.

    tasks: names of lm-eval's own tasks, of ours (configs/harness) or of the YAML files in `task_files`. shots: solved examples in a prompt;
    None: as the task says. data: folder of the public data sets that our own tasks read. limit: examples of each task; 0: all.
    Returns {"step", "tasks": {name: {"samples", "shots", "version", metric: value, "<metric>_stderr": value}}}; metrics behind a filter of
    the task are "<metric>,<filter>". UserError for an unknown task, and for data that is not there.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # what it warns of is chosen here
    os.environ["DISABLE_MULTIPROC"] = "1"  # of its bootstrap, which forks: with JAX's threads that may hang
    if data:
        os.environ[FOLDER] = data
    manager, loaded = load_tasks(tasks, task_files)
    if chat and not load_chat(run.path).template:
        raise UserError(f"{run.path}: has no chat template", "Leave --chat-template out, or give a run of a chat model.")
    model = HarnessModel(run, step=step, raw=raw, int8=int8, context_length=context_length)
    options: dict[str, Any] = {"num_fewshot": shots, "limit": limit or None, "apply_chat_template": chat}
    found = lm_eval.simple_evaluate(model=model, tasks=loaded, task_manager=manager, log_samples=False, bootstrap_iters=1000, **options)
    assert found is not None
    results = {}
    for name, result in found["results"].items():
        scores = {key.removesuffix(",none"): float(value) for key, value in result.items() if isinstance(value, int | float) and "," in key}
        scores = {key.replace("_stderr,none", "_stderr"): value for key, value in scores.items()}
        known = {"samples": found["n-samples"].get(name, {}).get("effective"), "shots": found["n-shot"].get(name)}
        results[name] = known | {"version": found["versions"].get(name)} | scores
    return {"step": model.step, "tasks": results}


def load_tasks(tasks: Sequence[str], task_files: str = "") -> tuple[TaskManager, list]:
    """lm-eval's tasks and groups of tasks of these names, and what knows them; see `evaluate_tasks`."""
    if task_files and not Path(task_files).is_dir():
        raise UserError(f"{task_files}: no such folder", "Give a folder of lm-eval's YAML files.")
    paths = [str(TASKS), *([task_files] if task_files else [])]
    manager = TaskManager(include_path=paths, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):  # thousands of files, which take seconds
        manager = TaskManager(include_path=paths)
    for task in tasks:
        if task not in manager.all_tasks:
            close = difflib.get_close_matches(task, manager.all_tasks, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(manager.all_tasks[:20])}, ..."
            raise UserError(f"no task {task!r}: {hint}", "See configs/harness, or `lm-eval ls tasks`.")
    found = []
    for task in tasks:
        try:
            loaded = manager.load([task])
            found += [loaded["groups"][task]] if task in loaded["groups"] else loaded["tasks"].values()
        except UserError:
            raise
        except Exception as error:  # of foreign packages: of many classes, none of them theirs to promise
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            offline = os.environ.get("HF_DATASETS_OFFLINE") == "1"
            mend = (
                "Give --download to fetch its data, or task files whose data is here." if offline else "Mend that, or leave the task out."
            )
            raise UserError(f"task {task!r} cannot be loaded: {first}", mend) from None
    return manager, found
