# %% [markdown]
# # 11. Trust
#
# What a model learned from people should not be found in it, their rows may have to stay with them, and an answer should say what it
# rests on. Nothing is downloaded: the rows are lines of Python's own standard library, each is code or prose, and every module is
# somebody who owns its lines.

# %%
import csv
import json
import random
import sysconfig
import tempfile
import tokenize
from pathlib import Path

import matplotlib.pyplot as plt

import omnia
from data import Anonymizer, Key, PrepareText, prepare_text
from model import TextEncoderConfig
from train import SGD, AdamW, Classification, Evaluation, Experiment, Federated, Private, Schedule, Supervised, evaluate_run, new_run, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))
modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def lines_of(path: Path):
    """Lines of a module that say something: comments and docstrings are prose, all others code."""
    with tokenize.open(path) as file:
        prose = {}
        for token in tokenize.generate_tokens(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING):
                prose |= dict.fromkeys(
                    range(token.start[0], token.end[0] + 1), token.start[0] < token.end[0] or token.type == tokenize.COMMENT
                )
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        text = line.strip(" #'\"")
        if len(text) > 20:
            yield {"text": text[:60], "label": "prose" if prose.get(number) else "code", "module": path.stem}


rows = []
for path in modules[:40]:  # as much prose as code of each
    kinds = [[row for row in lines_of(path) if row["label"] == label][:30] for label in ("prose", "code")]
    rows += [row for kind in kinds for row in kind[: min(map(len, kinds))]]
random.Random(0).shuffle(rows)
for name, part in {"train": rows[len(rows) // 5 :], "test": rows[: len(rows) // 5]}.items():
    with open(work / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "module"])
        writer.writeheader()
        writer.writerows(part)
prepare_text(PrepareText(output=str(work / "corpus"), input=(str(work / "train.csv"),), tokenizer="sentencepiece:1024"))
print(len(rows), "lines;", rows[0])

# %% [markdown]
# ## Three ways to learn from the same rows
#
# In one place; with noise, so that nobody can tell whether a single line was there; and by clients, of which each trains on its own module
# and sends only how the parameters changed.

# %%
base = {
    "model": TextEncoderConfig(context_length=32, num_layers=1, embed_dim=64, num_heads=2, prediction_head=False),
    "data": Classification(
        files=(str(work / "train.csv"),),
        validation_files=(str(work / "test.csv"),),
        tokenizer=str(work / "corpus" / "tokenizer"),
        length=32,
    ),
    "objective": Supervised(),
    "evaluation": Evaluation(every=0),
}
constant = Schedule(warmup_steps=0, decay="constant")
plain = Experiment(steps=200, batch_size=32, optimizer=AdamW(learning_rate=4e-3), **base)
private = Experiment(
    steps=40,
    batch_size=256,
    optimizer=AdamW(learning_rate=4e-3, weight_decay=0.0, clip_norm=0.0),
    schedule=constant,
    gradient=Private(epsilon=8.0, delta=1e-4),
    **base,
)
federated = Experiment(
    steps=30,
    batch_size=8,
    optimizer=SGD(learning_rate=1.0, clip_norm=0.0),
    schedule=constant,
    gradient=Federated(user="module", user_rows=32, local_learning_rate=0.3, local_epochs=1),
    **base,
)
runs, scores = {}, {}
for name, experiment in {"one place": plain, "private": private, "federated": federated}.items():
    runs[name] = new_run(work / name.replace(" ", "_"), experiment)
    train(runs[name])
    scores[name] = evaluate_run(runs[name])["accuracy"]

# %%
print(scores)
figure, axes = plt.subplots(figsize=(5, 2.6), layout="constrained")
axes.barh(list(scores), list(scores.values()), color=["#4c72b0", "#dd8452", "#55a868"])
axes.set(xlim=(0.4, 1), xlabel="accuracy on lines that were not learned from")
plt.show()

# %% [markdown]
# ## What the promise cost
#
# Two accountants say what the noise is worth, and an audit tries to break the promise with rows whose gradients are known.

# %%
facts = json.loads((runs["private"].path / "privacy.json").read_text())
for name in ("epsilon_pld", "epsilon_rdp", "delta", "noise_multiplier", "unit", "units", "steps"):
    print(f"{name:18}", facts[name])
omnia.main(["privacy", "audit", str(runs["private"].path), "--canaries", "100"])

# %% [markdown]
# ## Texts without names
#
# What has a form is replaced, by surrogates that stay the same as long as the key does; full width and invisible characters do not hide it.

# %%
anonymizer = Anonymizer(Key(b"a key of at least sixteen bytes"))
for text in ("Call Mr Smith at 415-555-0137 or ann@example.org.", "王先生的手机是１３８\u200b00138000，卡号4111111111111111。"):
    print(anonymizer(text))

# %% [markdown]
# ## What an answer rests on
#
# Shapley values share the answer out among the tokens; on the page each is coloured by its part.

# %%
line = "return the number of bytes"
omnia.main(["explain", str(runs["one place"].path), "--prompt", line, "--method", "partition", "--output", str(work / "why.html")])
print((work / "why.html").stat().st_size, "bytes of a page that needs nothing but itself")
