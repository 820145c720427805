# %% [markdown]
# # 1. A first model
#
# From text files to a language model that writes Python, in a minute or two on a laptop. The text is the source code of
# Python's own standard library, so nothing is downloaded.

# %%
import sysconfig
import tempfile
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from data import Batches, Corpus, PrepareText, prepare_text
from model import ModelConfig, Sampling, count_parameters
from train import Checkpoints, Evaluation, Experiment, Logging, Muon, Samples, Schedule, TextData
from train import evaluate_run, load_generator, new_run, read_metrics, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))

# %% [markdown]
# ## Text becomes tokens
#
# `prepare_text` trains a tokenizer on the files, cuts every file into tokens and writes them to disk. One file in ten is held
# out for validation.

# %%
library = sysconfig.get_paths()["stdlib"]
prepare_text(PrepareText(output=str(work / "corpus"), input=(f"{library}/*.py",), tokenizer="sentencepiece:1024"))

corpus = Corpus(str(work / "corpus"))
tokenizer, files = corpus.tokenizer(), corpus.split("train")
line = "    return [int(number) for number in values]"
print("|".join(tokenizer.decode([token]) for token in tokenizer.encode(line).tolist()))
print(f"{files.documents} files, {files.tokens:,} tokens, {files.raw_bytes / files.tokens:.2f} bytes per token")

# %% [markdown]
# ## Tokens become rows
#
# A model is trained on rows of one length. Long files are cut, and what is left over of several shares a row; the model never
# looks from one file into another. The picture has the rows where most files meet, each file in a colour of its own.

# %%
batches = Batches([corpus], context_length=64, seed=0)
batch = batches.batch(0, batches.rows_per_epoch)
fullest = np.argsort(-batch.segments.max(1), kind="stable")[:16]
shown = np.ma.masked_equal(batch.segments[fullest], 0)
plt.figure(figsize=(8, 2.6), layout="constrained")
plt.imshow(shown, aspect="auto", cmap=plt.get_cmap("tab10").with_extremes(bad="black"), interpolation="nearest", vmin=1, vmax=10)
plt.gca().set(xlabel="position", ylabel="row", title=f"of all {len(batch.segments):,} rows, {1 - batch.weights.mean():.2%} is padding")
plt.show()

# %% [markdown]
# ## Train
#
# An experiment is one value: the model, the data, the optimizer and how long. `new_run` writes it into a folder of its own,
# `train` takes the steps. Interrupt the cell and run it again: it goes on where it stopped.

# %%
experiment = Experiment(
    steps=480,
    batch_size=16,
    model=ModelConfig(context_length=64, num_layers=3, embed_dim=96, num_heads=4, norm="rmsnorm", positions="rotary", bias=False),
    data=TextData(shards=(str(work / "corpus"),)),
    optimizer=Muon(learning_rate=0.03, adam_learning_rate=8e-3),
    schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
    evaluation=Evaluation(every=120, rows=256),
    samples=Samples(every=120, prompts=("def ",), tokens=48, temperature=0.7),
    checkpoints=Checkpoints(every=240),
    logging=Logging(every=10),
)
run = new_run(work / "run", experiment)
print(f"{count_parameters(run.experiment.model):,} parameters")
summary = train(run)

# %% [markdown]
# ## Watch it learn

# %%
rows = read_metrics(run.path)
training, validation, samples = ([row for row in rows if row["kind"] == kind] for kind in ("train", "evaluation", "sample"))
plt.figure(figsize=(7, 3), layout="constrained")
plt.plot([row["step"] for row in training], [row["loss"] for row in training], label="training")
plt.plot([row["step"] for row in validation], [row["loss"] for row in validation], "o-", label="validation")
plt.axhline(np.log(tokenizer.size), color="grey", linestyle=":", label="guessing")
plt.gca().set(xlabel="step", ylabel="nats per token")
plt.legend()
plt.show()
for sample in samples:
    print(f"after {sample['step']} steps: {sample['prompt'] + sample['text']!r}\n")

# %% [markdown]
# ## How good is it?
#
# Bits per byte do not depend on the tokenizer, so they can be compared with anything that predicts text. A compressor is such a
# thing: what it can predict, it need not store. Both are measured on the files that were held out.

# %%
found = evaluate_run(run)
held_out = corpus.split("validation")
texts = [tokenizer.decode(held_out.read(document)).encode() for document in range(held_out.documents)]
zipped = 8 * sum(len(zlib.compress(text, 9)) for text in texts) / sum(map(len, texts))
names, bits = ["zip", "this model"], [zipped, found["bits_per_byte"]]
plt.figure(figsize=(5, 1.6), layout="constrained")
plt.bar_label(plt.barh(names, bits, color=["grey", "tab:blue"]), fmt=" %.2f")
plt.gca().set(xlabel="bits per byte of unseen code, less is better", xlim=(0, 1.15 * max(bits)))
plt.show()

# %% [markdown]
# ## Let it write

# %%
generator = load_generator(run)
for completion in generator.generate(["def main(", "class Queue", "import "], tokens=60, sampling=Sampling(temperature=0.7), seed=0):
    print(completion.prompt + completion.text, "\n" + "-" * 60)

# %% [markdown]
# The run's folder has everything, curves and samples in `report.html` too. More steps and more text give a better model:
# `make quickstart` in the repository trains on all of the library. Next: [look inside](2_look_inside.ipynb).
