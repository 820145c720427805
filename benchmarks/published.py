"""What the models of `omnia import` are worth, and whether they are the published ones: `python benchmarks/published.py NAME --data DIR`.

tokens       ids of 10,000 lines in six languages, of code, of emoji and of every character, beside transformers' tokenizer
perplexity   of WikiText-2's test part, token by token beside transformers with the same weights
greedy       continuations of 20 prompts beside transformers
openbookqa   accuracy of SmolLM2 by the likelihood of each answer
embeddings   vectors of 200 sentences beside transformers; similarity of sentence pairs beside the scores that people gave (STS-B)

Models are imported into a temporary folder. Prints one JSON object. float32, on the CPU. Data: gzip files under DIR,

    wikitext2/test.txt.gz   xquad/xquad.LANGUAGE.*.json.gz   multi30k/train.de.gz   zh_online_shopping/*.csv.gz   openbookqa/test.json.gz
    humaneval_python/*.jsonl.gz   mbpp/mbpp.jsonl.gz   applications/stsb_en_zh_de/test.jsonl.gz

    PEER         a Python with torch, transformers and gguf; `make parity` builds .venv-peers/bin/python
"""

import argparse
import csv
import dataclasses
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from model.decoding.sampling import Sampling
from model.heads import Head, score_tokens, vocabulary_table
from train.bridge.importing import import_model
from train.bridge.packages import fetch
from train.checkpoints.checkpointer import load_parameters
from train.generation.embeddings import load_embedder
from train.generation.text import load_generator
from train.kinds import realise
from train.runs.directory import Run

ROOT = Path(__file__).parent.parent
LANGUAGES = ("ar", "de", "en", "es", "ru", "zh")
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time there was a small dragon who",
    "def fibonacci(n):\n",
    "The three laws of thermodynamics say that",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 2, 3, 5, 8, 13,",
    "To bake bread, you need",
    "In 1969, two astronauts",
    "import numpy as np\n\n",
    "La ville de Paris est",
    "Photosynthesis is the process by which",
    "Question: What is the largest planet?\nAnswer:",
    "The best way to learn a language is",
    "SELECT name FROM",
    "She opened the door and saw",
    "Die Hauptstadt von Deutschland ist",
    "A list of five animals:\n1.",
    "The stock market fell today because",
    "for (int i = 0; i <",
)
QUESTION = re.compile(r".*?question: (.*)\n\nAnswer1: (.*) Answer2: (.*) Answer3: (.*) Answer4: (.*)\n\nAnswer format.*", re.DOTALL)
WIDTH = 32
"""Lengths of scored rows are multiples of it."""


# ----------------------------------------------------------------------------------------------------------------------- the two sides


def imported(model: Path, folder: Path) -> Run:
    """The run of a published model, in float32."""
    run = import_model(model, folder, said=lambda line: None)
    in_float32 = dataclasses.replace(run.experiment.model, dtype="float32")
    return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, model=in_float32))


def peer_python() -> str:
    python = os.environ.get("PEER") or str(ROOT / ".venv-peers" / "bin" / "python")
    if not Path(python).exists():
        raise SystemExit(f"PEER: no Python at {python}; `make parity` builds one with torch and transformers")
    return python


def theirs(job: str, model: Path, **request) -> dict:
    """The answer of transformers, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(request | {"job": job, "model": str(model), "answer": str(answer)}))
        subprocess.run([peer_python(), str(ROOT / "benchmarks" / "workers" / "transformers_published.py"), str(question)], check=True)
        return json.loads(answer.read_text())


def scorer(run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """A function that maps rows of ids [B, T] to the nats of each but the first, [B, T - 1]. Causal: ids behind a place change nothing."""
    model = realise(run.experiment.model)
    params, _ = load_parameters(run)

    @jax.jit
    def nll(params, tokens_BT):
        hidden_BTD = model.apply({"params": params}, tokens_BT[:, :-1]).hidden_BTD
        return score_tokens(Head(hidden_BTD, vocabulary_table(params)), tokens_BT[:, 1:]).nll

    return lambda tokens_BT: np.asarray(nll(params, jnp.asarray(tokens_BT, jnp.int32)))


# ------------------------------------------------------------------------------------------------------------------------------- texts


def opened(data: Path, pattern: str) -> str:
    found = sorted(data.glob(pattern))
    if not found:
        raise SystemExit(f"{data / pattern}: not there")
    return gzip.decompress(found[0].read_bytes()).decode()


def lines(data: Path, pattern: str, most: int) -> list[str]:
    return [line for line in opened(data, pattern).split("\n") if line.strip()][:most]


def rows(data: Path, pattern: str) -> list[dict]:
    return [json.loads(line) for line in opened(data, pattern).splitlines()]


def languages(data: Path) -> list[str]:
    """10,000: all contexts and questions of XQuAD in six languages, and English, German and Chinese of other kinds."""
    found = []
    for language in LANGUAGES:
        for article in json.loads(opened(data, f"xquad/xquad.{language}.*.json.gz"))["data"]:
            for paragraph in article["paragraphs"]:
                found += [paragraph["context"], *(one["question"] for one in paragraph["qas"])]
    found += lines(data, "wikitext2/test.txt.gz", 1040) + lines(data, "multi30k/train.de.gz", 1000)
    return found + [row[2] for row in csv.reader(opened(data, "zh_online_shopping/*.csv.gz").splitlines()[1:1001])]


def programs(data: Path) -> list[str]:
    """Whole programs, and their lines."""
    whole = [row["prompt"] + row["canonical_solution"] for row in rows(data, "humaneval_python/*.jsonl.gz")]
    whole += [row["code"] for row in rows(data, "mbpp/mbpp.jsonl.gz")]
    return whole + [line for program in whole for line in program.split("\n") if line]


def emoji() -> list[str]:
    """Every pictograph in a sentence, alone and twice; with a skin tone, as text and as a picture; joined, as a flag, on a key."""
    pictures = [chr(i) for i in (*range(0x2600, 0x27C0), *range(0x1F300, 0x1FB00)) if unicodedata.category(chr(i)) == "So"]
    found = [text for one in pictures for text in (one, f"I like {one}{one} and {one}!", f"{one}\ufe0f{one}\ufe0e", f"{one}\U0001f3fd ok")]
    found += ["".join(chr(0x1F1E6 + ord(letter) - ord("A")) for letter in pair) for pair in ("DE", "FR", "CN", "US", "JP", "BR")]
    found += [f"press {key}\ufe0f\u20e3" for key in "0123456789#*"]
    return found + [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
        "a \u2764\ufe0f\u200d\U0001f525",
    ]


def characters() -> list[str]:
    """Every assigned character, sixteen a line, apart and together with letters, spaces and digits."""
    every = [chr(i) for i in range(1, 0x110000) if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co")]
    chunks = [every[i : i + 16] for i in range(0, len(every), 16)]
    return [text for chunk in chunks for text in ("".join(chunk), "".join(f" {c}1 a{c}  {c}" for c in chunk))]


# ------------------------------------------------------------------------------------------------------------------------ measurements


def compare_tokens(run: Run, model: Path, texts: Sequence[str]) -> dict:
    """Lines whose ids differ from transformers'. For a GGUF file also from transformers' with numbers cut as llama.cpp cuts them."""
    tokenizer = run.tokenizer()
    ours = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    other = theirs("tokens", model, texts=list(texts), cut=model.suffix == ".gguf")
    found = {"lines": len(texts), "tokens": sum(map(len, ours))}
    for name, ids in other.items():
        apart = [i for i, (a, b) in enumerate(zip(ours, ids, strict=True)) if a != b]
        found[f"differ_from_{name}"] = len(apart)
        found[f"examples_{name}"] = [_difference(texts[i], ours[i], ids[i], tokenizer) for i in apart[:5]]
    if model.suffix == ".gguf":
        found["not_restored"] = sum(tokenizer.decode(ids) != text for ids, text in zip(ours, texts, strict=True))
    return found


def _difference(text: str, ours: list[int], other: list[int], tokenizer) -> dict:
    """Where the ids of a text part."""
    same = next((i for i, (a, b) in enumerate(zip(ours, other, strict=False)) if a != b), min(len(ours), len(other)))
    spelled = {"ours": ours[same : same + 4], "theirs": other[same : same + 4]}
    pieces = {side: [tokenizer.decode_bytes([i]).decode("utf-8", "backslashreplace") for i in ids] for side, ids in spelled.items()}
    return {"after": tokenizer.decode(ours[:same])[-20:], **pieces, "of": text[:60]}


def windows_of(run: Run, text: str, context: int, tokens: int) -> np.ndarray:
    """[windows, context], one after the other, without overlap; what is left over is left out."""
    ids = run.tokenizer().encode(text)[:tokens]
    return ids[: len(ids) // context * context].reshape(-1, context)


def compare_perplexity(run: Run, model: Path, windows_NT: np.ndarray) -> dict:
    nll = scorer(run)
    ours_NT = np.concatenate([nll(windows_NT[i : i + 1]) for i in range(len(windows_NT))])
    other_NT = np.array(theirs("perplexity", model, windows=windows_NT.tolist())["nll"])
    size = sum(len(run.tokenizer().decode_bytes(row[1:])) for row in windows_NT)
    return {
        "windows": list(windows_NT.shape),
        "predicted": ours_NT.size,
        "bytes": size,
        "ours": float(np.exp(ours_NT.mean(dtype=np.float64))),
        "theirs": float(np.exp(other_NT.mean())),
        "bits_per_byte": float(ours_NT.sum(dtype=np.float64) / size / np.log(2)),
        "largest_difference_nats": float(np.abs(ours_NT - other_NT).max()),
    }


def compare_greedy(run: Run, model: Path, prompts: Sequence[str], new: int) -> dict:
    generator = load_generator(run)
    ids = [run.tokenizer().encode(prompt).tolist() for prompt in prompts]
    made = [generator.generate([row], tokens=new, sampling=Sampling(temperature=0.0), seed=0)[0] for row in ids]
    stop = sorted({run.document_end, *json.loads((run.path / "chat.json").read_text())["stop_ids"]})
    other = theirs("greedy", model, prompts=ids, new=new, stop=stop)["ids"]
    apart = [
        {"prompt": prompt, "after": next((i for i, (a, b) in enumerate(zip(one.ids, row, strict=False)) if a != b), -1)}
        for prompt, one, row in zip(prompts, made, other, strict=True)
        if list(one.ids) != row
    ]
    ended = sum(one.finish == "stop" for one in made)
    return {"prompts": len(prompts), "tokens": sum(map(len, other)), "ended": ended, "differ": apart, "first": made[0].text[:80]}


def answer_by_likelihood(run: Run, questions: Sequence[dict]) -> dict:
    """The question and a space before each answer, and nothing else; the answers are not listed. Log-probabilities of the answer's
    tokens: summed, and divided by the answer's bytes."""
    nll, tokenizer = scorer(run), run.tokenizer()
    items, right = [], []
    for row in questions:
        stem, *answers = QUESTION.fullmatch(row["instruction"]).groups()
        right.append(int(row["answer"].removeprefix("answer")) - 1)
        before = [tokenizer.document_start, *tokenizer.encode(stem).tolist()]
        items += [(before, tokenizer.encode(f" {answer}").tolist(), len(answer.encode())) for answer in answers]
    scores = np.zeros((len(items), 2))
    by_width: dict[int, list[int]] = {}
    for i, (before, answer, _) in enumerate(items):
        by_width.setdefault(-(-(len(before) + len(answer)) // WIDTH) * WIDTH, []).append(i)
    for width, numbers in by_width.items():
        for first in range(0, len(numbers), 16):
            chosen = numbers[first : first + 16]
            tokens_BT = np.zeros((16, width), np.int32)
            for row_T, i in zip(tokens_BT, chosen, strict=False):
                row_T[: len(items[i][0]) + len(items[i][1])] = items[i][0] + items[i][1]
            for nll_T, i in zip(nll(tokens_BT), chosen, strict=False):
                before, answer, size = items[i]
                total = -nll_T[len(before) - 1 : len(before) + len(answer) - 1].sum()
                scores[i] = total, total / size
    picked = scores.reshape(-1, 4, 2).argmax(1)
    summed, by_bytes = (picked == np.array(right)[:, None]).mean(0)
    return {"questions": len(questions), "chance": 0.25, "accuracy_summed": float(summed), "accuracy_by_bytes": float(by_bytes)}


def compare_embeddings(run: Run, model: Path, texts: Sequence[str], most: int = 256) -> dict:
    """most: tokens of a text, as sentence-transformers cuts them for this model."""
    ours_ND = load_embedder(run, most=most)(texts)
    other_ND = np.array(theirs("embeddings", model, texts=list(texts), most=most)["vectors"])
    return {"texts": len(texts), "largest_difference": float(np.abs(ours_ND - other_ND).max())}


def similarity(run: Run, pairs: Sequence[dict]) -> dict:
    """Spearman's correlation of the cosine of a pair with the score, 0 to 5, that people gave it."""
    embed = load_embedder(run, most=256)
    cosines = (embed([row["en"][0] for row in pairs]) * embed([row["en"][1] for row in pairs])).sum(1)
    return {"pairs": len(pairs), "spearman": float(spearmanr(cosines, [row["score"] for row in pairs]).statistic)}


# -------------------------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("tokens", "perplexity", "greedy", "openbookqa", "embeddings"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=60_000, help="of perplexity: how many of the text are read")
    parser.add_argument("--context", type=int, default=512, help="of perplexity: the length of a window")
    parser.add_argument("--new", type=int, default=64, help="of greedy: tokens of a continuation")
    options = parser.parse_args()
    if options.name != "openbookqa":
        peer_python()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(options, Path(folder)), indent=1, ensure_ascii=False))


def measured(options: argparse.Namespace, folder: Path) -> dict:
    data = options.data

    def both(name: str) -> tuple[Run, Path]:
        model = fetch(name, said=lambda line: print(line, file=sys.stderr))
        return imported(model, folder / name), model

    if options.name == "tokens":
        texts = {"languages": languages(data), "code": programs(data), "emoji": emoji(), "characters": characters()}
        models = {name: both(name) for name in ("smollm2", "minilm")}
        return {name: {kind: compare_tokens(*one, those) for kind, those in texts.items()} for name, one in models.items()}
    if options.name == "perplexity":
        run, model = both("smollm2")
        return compare_perplexity(run, model, windows_of(run, opened(data, "wikitext2/test.txt.gz"), options.context, options.tokens))
    if options.name == "greedy":
        return compare_greedy(*both("smollm2"), PROMPTS, options.new)
    if options.name == "openbookqa":
        return answer_by_likelihood(both("smollm2")[0], json.loads(opened(data, "openbookqa/test.json.gz")))
    run, model = both("minilm")
    pairs = rows(data, "applications/stsb_en_zh_de/test.jsonl.gz")
    texts = [text for row in pairs[:100] for text in row["en"]]
    return {"vectors": compare_embeddings(run, model, texts), "stsb_english_test": similarity(run, pairs)}


if __name__ == "__main__":
    main()
