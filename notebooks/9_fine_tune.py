# %% [markdown]
# # 9. Fine-tune a real checkpoint on your own CSV
#
# MiniLM, a small encoder of sentences, learns to sort messages of customers, by LoRA: under one per cent of its parameters. Put the
# path of your own file, with the columns `text` and `label`, into `table`, and everything below works on it.

# %%
import csv
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from data import UserError
from omnia import main
from train import Evaluation, LoRA, Schedule
from train import fetch, import_model, load_config, load_parameters, make_mesh, new_run, open_run, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))
try:
    base = import_model(fetch("minilm"), work / "minilm")
except UserError as error:
    raise SystemExit(f"This notebook needs a published model. {error}") from None

# %% [markdown]
# ## A table
#
# Standing in for yours: messages put together from pieces, three kinds of them. Openings are shared, so only what is asked for tells
# the kinds apart. The test asks in words that are not in the training part.

# %%
table, test = work / "messages.csv", work / "new_messages.csv"
openings = ["Hello,", "Hi there,", "Good morning.", "Quick question:", "Sorry to bother you,", "As I wrote last week,"]
pieces = {
    "delivery": ["where is my parcel?", "the courier never came.", "when will my order arrive?", "tracking has not moved for days."],
    "refund": ["I want my money back.", "please refund the second charge.", "you billed me twice.", "how do I get reimbursed?"],
    "account": ["I cannot log in.", "please reset my password.", "my e-mail address has changed.", "close my profile."],
}
unseen = {
    "delivery": ["the package is late.", "has it been shipped yet?"],
    "refund": ["return the payment to my card.", "the amount was taken two times."],
    "account": ["the site does not accept my credentials.", "delete my user data."],
}
for path, ends in ((table, pieces), (test, unseen)):
    rows = [(f"{opening} {end}", label) for label, choices in ends.items() for opening, end in itertools.product(openings, choices)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    print(path.name, len(rows), "rows, such as", rows[0])

# %% [markdown]
# ## Train
#
# The config is a file of the repository; the command line would be `omnia train configs/tasks/classification.py --start RUN
# --data.files messages.csv --adapters lora`. Each change is a field.

# %%
config = load_config("configs/tasks/classification.py")
experiment = replace(
    config,
    steps=40,
    batch_size=16,
    start=str(base.path),
    adapters=LoRA(rank=4),
    data=replace(config.data, files=(str(table),), validation_files=(str(test),), length=48),
    optimizer=replace(config.optimizer, learning_rate=1e-3),
    schedule=Schedule(warmup_steps=4, decay="linear", final_fraction=0.0),
    evaluation=Evaluation(every=10),
)
run = new_run(work / "messages", experiment)
summary = train(run)
print({name: round(value, 3) for name, value in summary["validation"].items() if name in ("accuracy", "macro_f1", "ece_15")})

# %% [markdown]
# ## What was saved
#
# The checkpoint holds the adapters and the new head alone; the frozen model lies beside it once, with its digest.

# %%
mesh = make_mesh(run.experiment.mesh)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


print(f"a checkpoint: {size(run.path / 'checkpoints' / str(experiment.steps)) / 1e6:.1f} MB, with what the optimizer keeps")
print(f"the frozen model: {size(run.path / 'start') / 1e6:.1f} MB")

# %% [markdown]
# ## Which messages are mistaken for which

# %%
if main(["evaluate", str(run.path), "--files", str(test), "--predictions", str(work / "answers.jsonl")]):
    raise RuntimeError("the command failed")
answers = [json.loads(line) for line in (work / "answers.jsonl").read_text().splitlines()]
names = sorted({answer["label"] for answer in answers})
counts = np.zeros((len(names), len(names)), int)
for answer in answers:
    counts[names.index(answer["label"]), names.index(answer["answer"])] += 1
figure, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
axes.imshow(counts, cmap="Blues")
for (row, column), count in np.ndenumerate(counts):
    axes.text(column, row, count, ha="center", va="center", color="white" if count > counts.max() / 2 else "black")
axes.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names, xlabel="answered", ylabel="true")
plt.show()

# %% [markdown]
# ## One model again
#
# For export, or as the start of another run, the adapters are merged into the weights. Everything that reads a run's parameters
# gets the merged ones.

# %%
merged, _ = load_parameters(open_run(run.path), mesh)
plain, _ = load_parameters(base, mesh)
change = merged["layers"]["attention"]["query"]["kernel"] - plain["layers"]["attention"]["query"]["kernel"]
ranks = [int(np.linalg.matrix_rank(np.asarray(layer).reshape(layer.shape[0], -1), tol=1e-5)) for layer in change]
print("rank of what was added to the queries of each layer:", ranks)
