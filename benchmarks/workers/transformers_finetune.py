"""Fine-tunes a published encoder with transformers, as its users do: texts padded to the longest of the batch.

    python benchmarks/workers/transformers_finetune.py '{"model": FOLDER, "kind": "classification", "train": FILE, "test": FILE, ...}'

kind: classification (CSV with text and label, perhaps pair) or tagging (CoNLL, two columns). Prints one JSON object: score (accuracy, or F1
of entities), seconds of the training loop, examples a second.
"""

import csv
import json
import sys
import time

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)


def read_table(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["text"], row.get("pair"), row["label"]) for row in rows]


def read_sentences(path):
    found, words, tags = [], [], []
    for line in [*open(path), "\n"]:  # noqa: SIM115
        parts = line.rstrip("\n").split("\t")
        if len(parts) > 1:
            words.append(parts[0])
            tags.append(parts[-1])
        elif words:
            found.append((words, tags))
            words, tags = [], []
    return found


def main(o):
    torch.manual_seed(o["seed"])
    torch.set_num_threads(o["threads"])
    tokenizer = AutoTokenizer.from_pretrained(o["model"])
    if o["kind"] == "classification":
        train, test = read_table(o["train"]), read_table(o["test"])
        labels = sorted({row[2] for row in train})
        model = AutoModelForSequenceClassification.from_pretrained(o["model"], num_labels=len(labels))

        def encode(row):
            return tokenizer(row[0], row[1], truncation=True, max_length=o["length"]) | {"label": labels.index(row[2])}

        collate = DataCollatorWithPadding(tokenizer)
    else:
        train, test = read_sentences(o["train"]), read_sentences(o["test"])
        labels = sorted({tag for _, tags in train for tag in tags})
        model = AutoModelForTokenClassification.from_pretrained(o["model"], num_labels=len(labels))

        def encode(row):
            found = tokenizer(row[0], is_split_into_words=True, truncation=True, max_length=o["length"])
            words, before = found.word_ids(), None
            own = []
            for word in words:
                own.append(-100 if word is None or word == before else labels.index(row[1][word]))
                before = word
            return dict(found) | {"labels": own}

        collate = DataCollatorForTokenClassification(tokenizer)
    train_set, test_set = [dict(encode(row)) for row in train], [dict(encode(row)) for row in test]
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=o["rate"], betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, o["warmup"], o["steps"])
    order = np.random.default_rng(o["seed"])
    queue: list[int] = []
    model.train()
    began = time.monotonic()
    for _ in range(o["steps"]):
        while len(queue) < o["batch"]:
            queue += order.permutation(len(train_set)).tolist()
        batch, queue = collate([train_set[number] for number in queue[: o["batch"]]]), queue[o["batch"] :]
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = time.monotonic() - began
    model.eval()
    given, true = [], []
    with torch.no_grad():
        for first in range(0, len(test_set), 64):
            batch = collate(test_set[first : first + 64])
            wanted = batch.pop("labels")
            predicted = model(**batch).logits.argmax(-1)
            for row in range(len(wanted)):
                if o["kind"] == "classification":
                    given.append(int(predicted[row]))
                    true.append(int(wanted[row]))
                else:
                    there = wanted[row] >= 0
                    given.append([labels[int(tag)] for tag in predicted[row][there]])
                    true.append([labels[int(tag)] for tag in wanted[row][there]])
    if o["kind"] == "classification":
        score = float(np.mean(np.array(given) == np.array(true)))
    else:
        from seqeval.metrics import f1_score
        from seqeval.scheme import IOB2

        score = float(f1_score(true, given, mode="strict", scheme=IOB2))
    print(json.dumps({"score": score, "seconds": seconds, "examples_per_second": o["steps"] * o["batch"] / seconds}))


if __name__ == "__main__":
    main({"length": 128, "batch": 32, "steps": 500, "warmup": 50, "rate": 5e-5, "seed": 0, "threads": 2} | json.loads(sys.argv[1]))
