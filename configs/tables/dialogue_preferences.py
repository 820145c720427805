"""A chat model's replies before and after it learned by preference from a judge of coherence, and what that does to how varied they are.

omnia reproduce dialogue_preferences --data DIR
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data.files import json_files
from model.config import OfStart
from train.apps.dialogue.coherence import Turn, load_judge, turns_of
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule
from train.reproduce.files import DIALOGUES
from train.reproduce.labelled import ENCODER
from train.reproduce.replies import replies
from train.reproduce.table import SMOLLM2, Better, Metric, Row, Shared, Table, training
from train.rl.options import PreferenceLearning, Preferences

TESTS, LEARNED_FROM, SAMPLES = 100, 100, 4
"""Conversations that are gone on with to test, as many behind them that are learned from, and replies to each of those."""
READ, LONGEST, WRITTEN = 4, 500, 32
"""Turns of a conversation that are given, their characters at most, and tokens of a reply."""
ASKED = "Go on with the conversation. Say one or two short sentences, as a person would."
NUCLEUS = 0.7
"""Top-p, where it is not 0.95."""
JUDGED = 400
"""Steps of the judge's training."""
COPIED = 4
"""Words in a row that stood in the conversation: from so many on they are copied."""


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="dialogue preferences",
        steps=50,
        batch_size=4,
        model=OfStart(context_length=192),
        data=Preferences(validation=8),
        objective=PreferenceLearning(beta=0.1),
        optimizer=AdamW(learning_rate=3e-4, weight_decay=0.0),
        schedule=Schedule(warmup_steps=5, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    judged = "python {table} judge {run} {judge} {encoder}/whole {other_dialogues}"

    def asked(name: str, what: str, model: str, temperature: float = 1.0, more: str = "") -> Row:
        talk = f"python {{table}} talk {{run}} {model} {{other_dialogues}} {temperature} {{seed}}{more}"
        return Row(name, what, (talk, judged), series="before" if model == "{smollm2}" else "after DPO")

    return Table(
        title="Replies of a chat model, before and after preferences",
        paper="Rafailov et al. 2023 (DPO); Bai et al. 2022b (a model's judgement in place of people's); Kirk et al. 2024 (what preferences "
        "cost in diversity)",
        claim="A hundred comparisons that a judge of coherence makes of a chat model's own replies make its replies more coherent, at "
        "less cost in variety than a lower temperature.",
        metrics=(
            Metric("coherence", "coherence, by the judge", "share", lower_is_better=False),
            Metric("nearness", "nearness to the two turns before", lower_is_better=False),
            Metric("contradicting", "contradicting", "share"),
            Metric("copied", f"copies {COPIED} words of the conversation", "share"),
            Metric("distinct", "different pairs of words", "share", lower_is_better=False),
            Metric("self_bleu", "self-BLEU", digits=1),
            Metric("mauve", "likeness to people's (MAUVE)", lower_is_better=False),
        ),
        files=DIALOGUES,
        shared=(
            ENCODER,
            SMOLLM2,
            Shared(
                "judge",
                (
                    f"omnia train configs/apps/coherence.py --run-dir {{run}} --steps {JUDGED} --start {{encoder}}/whole "
                    "--data.turns dialogue --data.files {dialogues}",
                ),
            ),
            Shared("pairs", ("python {table} pairs {run} {smollm2} {judge} {other_dialogues} {seed}",)),
            Shared("policy", (training("{table}", "--start {smollm2} --adapters lora --data.files {pairs}/pairs.jsonl"),)),
        ),
        rows=(
            Row("people", "what people said", ("python {table} people {run} {other_dialogues}", judged), series="people"),
            asked("before", "SmolLM2-135M-Instruct as published", "{smollm2}"),
            asked("cold", "the same at a temperature of 0.5", "{smollm2}", 0.5),
            asked("nucleus", f"the same at 1, with top-p {NUCLEUS}", "{smollm2}", more=f" {NUCLEUS}"),
            Row(
                "best",
                f"the best of {SAMPLES} replies, by the judge",
                ("python {table} best {run} {smollm2} {judge} {other_dialogues} {seed}", judged),
                series="best",
            ),
            asked("taught", "after DPO with LoRA", "{policy}"),
            asked("taught_cold", "the same at a temperature of 0.5", "{policy}", 0.5),
            asked("taught_nucleus", f"the same at 1, with top-p {NUCLEUS}", "{policy}", more=f" {NUCLEUS}"),
        ),
        claims=(
            Better("taught", "before"),
            Better("taught", "before", metric="nearness to the two turns before"),
            Better("taught", "cold", metric="different pairs of words"),
        ),
        across="different pairs of words",
        note=f"The first {READ} turns of {TESTS} dialogues are gone on with by a reply of at most {WRITTEN} tokens, at a temperature of 1 "
        "and with top-p 0.95. "
        f"Of {LEARNED_FROM} others, {SAMPLES} replies each are drawn, and the one that follows best is better than the one that follows "
        f"least. 50 steps of 4 comparisons. The judge is MiniLM, {JUDGED} steps of 32 on 500 more dialogues, and sees nothing of these; "
        "but it is the judge that was learned from: what it does not see stands beside it.",
    )


# ------------------------------------------------------------------------------------------------------------- conversations


def conversations(path: str) -> list[list[Turn]]:
    """Of each dialogue that is long enough, its first turns and the one that people said then."""
    from data.records.rows import iter_records

    found = [turns_of(record, "dialogue")[: READ + 1] for record in iter_records(path)]
    return [turns for turns in found if len(turns) > READ and sum(len(turn.text) for turn in turns) <= LONGEST]


def tests(path: str) -> list[list[Turn]]:
    return conversations(path)[:TESTS]


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """What a chat model is given: the turns before the last, of which the last is the user's."""
    said = [{"role": "user" if turn.speaker != turns[-1].speaker else "assistant", "content": turn.text} for turn in turns[:-1]]
    return [{"role": "system", "content": ASKED}, *said]


def replied(model: str, prompts: list[list[dict[str, str]]], *, temperature: float, seed: int, top_p: float = 0.95) -> list[str]:
    """On one line each; dots for a reply that says nothing."""
    found = replies(model, prompts, tokens=WRITTEN, temperature=temperature, top_p=top_p, seed=seed)
    return [" ".join(text.split()) or "..." for text in found]


def sampled(model: str, judge: str, talks: list[list[Turn]], seed: int) -> tuple[list[list[str]], np.ndarray]:
    """Several replies to each conversation, and how well each follows by the judge, [N, SAMPLES]."""
    texts = replied(model, [messages(turns) for turns in talks for _ in range(SAMPLES)], temperature=1.0, seed=seed)
    whole = [
        [*turns[:-1], turns[-1]._replace(text=text)]
        for turns, text in zip([turns for turns in talks for _ in range(SAMPLES)], texts, strict=True)
    ]
    follows = load_judge(judge).last(whole)[:, 0].reshape(len(talks), SAMPLES)
    return [texts[place : place + SAMPLES] for place in range(0, len(texts), SAMPLES)], follows


def pairs(folder: str, model: str, judge: str, path: str, seed: str) -> None:
    talks = conversations(path)[TESTS : TESTS + LEARNED_FROM]
    rows = []
    for turns, texts, follows in zip(talks, *sampled(model, judge, talks, int(seed)), strict=True):
        best, worst = texts[follows.argmax()], texts[follows.argmin()]
        if best != worst:
            rows.append({"prompt": messages(turns), "chosen": best, "rejected": worst})
    write(folder, "pairs.jsonl", rows)


def write(folder: str, name: str, rows: list[Any]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    json_files.write_lines(Path(folder, name), rows)


def measured(folder: str, judge: str, encoder: str, path: str) -> dict[str, float]:
    """Of the replies in a folder."""
    from data.records.record import Record
    from train.generation.embeddings import load_embedder
    from train.runs.directory import open_run
    from train.tasks.metrics.diversity import distinct, longest_copy, mauve, self_bleu

    talks = tests(path)
    texts = [json.loads(line) for line in Path(folder, "replies.jsonl").read_text(encoding="utf-8").splitlines()]
    judging = load_judge(judge)
    rows = [
        Record({judging.text: [f"{turn.speaker}: {turn.text}" for turn in [*turns[:-1], turns[-1]._replace(text=text)]]}, "row")
        for turns, text in zip(talks, texts, strict=True)
    ]
    last = [line["turns"][-1] for line in judging.answers(rows)]
    embed = load_embedder(open_run(encoder))
    vectors_ND, before_ND = embed(texts), embed([" ".join(turn.text for turn in turns[-3:-1]) for turns in talks])
    words = [text.lower().split() for text in texts]
    copied = [
        longest_copy(own, [turn.text.lower().split() for turn in turns[:-1]]) >= COPIED for own, turns in zip(words, talks, strict=True)
    ]
    return {
        "coherence": float(np.mean([one["follows"] for one in last])),
        "nearness": float((vectors_ND * before_ND).sum(-1).mean()),
        "contradicting": float(np.mean([one["contradicts"] > 0.5 for one in last])),
        "copied": float(np.mean(copied)),
        "distinct": distinct(words, 2),
        "self_bleu": self_bleu(words),
        "mauve": mauve(vectors_ND, embed([turns[-1].text for turns in talks])),
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pairs", *rest]:
            pairs(*rest)
        case ["people", folder, path]:
            write(folder, "replies.jsonl", [turns[-1].text for turns in tests(path)])
        case ["talk", folder, model, path, temperature, seed, *rest]:
            asked = [messages(turns) for turns in tests(path)]
            how = {"top_p": float(rest[0])} if rest else {}
            write(folder, "replies.jsonl", replied(model, asked, temperature=float(temperature), seed=int(seed), **how))
        case ["best", folder, model, judge, path, seed]:
            found, follows_NS = sampled(model, judge, tests(path), int(seed))
            write(folder, "replies.jsonl", [own[place] for own, place in zip(found, follows_NS.argmax(1), strict=True)])
        case ["judge", *rest]:
            print(json.dumps(measured(*rest)))
