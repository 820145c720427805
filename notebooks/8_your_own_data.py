# %% [markdown]
# # 8. Your own data, end to end
#
# From a folder of text files to a model in another library's format, by the commands that you would type in a terminal. Put the
# path of your own texts into `folder`, and everything below works on them.

# %%
import importlib
import inspect
import shlex
import tempfile
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt

from omnia import main

work = Path(tempfile.mkdtemp(prefix="omnia-"))
example = work / "texts"
folder = example  # or Path("the folder of yours")
corpus, config, run = work / "corpus", work / "config.py", work / "run"


def omnia(*arguments) -> None:
    """Show the command as a terminal takes it, and run it in this process."""
    command = [str(argument) for argument in arguments]
    print("$", shlex.join(["omnia", *command]))
    if main(command):
        raise RuntimeError("the command failed")


# %% [markdown]
# ## Files
#
# Text, code, JSON lines, Parquet, archives and more are read. Standing in for yours: the documentation of some of Python's own
# modules, a file each.

# %%
modules = "argparse ast asyncio collections configparser csv dataclasses datetime decimal difflib email.message enum fractions functools"
modules += " heapq html http.client inspect itertools json logging math os pathlib pickle random re shutil socket sqlite3 statistics string"
modules += " subprocess tarfile tempfile textwrap threading time traceback types typing unittest.mock urllib.request uuid zipfile"
for name in modules.split() if folder == example else []:
    module = importlib.import_module(name)
    texts = [inspect.getdoc(module)]
    for member, value in inspect.getmembers(module, callable):
        texts += [f"{name}.{member}: {doc}"] if (doc := inspect.getdoc(value)) else []
        methods = vars(value).items() if inspect.isclass(value) else ()
        texts += [f"{member}.{method}: {doc}" for method, one in methods if method[0] != "_" and (doc := inspect.getdoc(one))]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_text("\n\n".join(filter(None, texts)))
files = [path for path in folder.rglob("*") if path.is_file()]
print(f"{sum(path.stat().st_size for path in files):,} bytes in {len(files)} files")

# %% [markdown]
# ## Prepare
#
# The files become shards of tokens, with a tokenizer trained on them. A tenth is held out, whole files at a time.

# %%
omnia("prepare", "text", "--input", folder, "--output", corpus, "--tokenizer", "sentencepiece:1024", "--validation", 0.1)

# %% [markdown]
# ## Inspect
#
# Look at what the model will be fed, before anything is trained.

# %%
omnia("inspect", corpus, "--samples", 1, "--context-length", 64, "--step", 0, "--batch-size", 2)

# %% [markdown]
# ## A config
#
# An experiment is a Python file whose `get_config` returns it. The command line can change each of its fields.

# %%
text = """\
from model import ModelConfig
from train import Checkpoints, Evaluation, Experiment, Logging, Muon, Samples, Schedule


def get_config():
    return Experiment(
        steps=300,
        batch_size=16,
        model=ModelConfig(context_length=64, num_layers=3, embed_dim=96, num_heads=4, norm="rmsnorm", positions="rotary",
                          bias=False, activation="silu", gated=True),
        optimizer=Muon(learning_rate=0.03, adam_learning_rate=8e-3),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=100, rows=128),
        checkpoints=Checkpoints(every=150),
        samples=Samples(tokens=0),
        logging=Logging(every=10),
    )
"""
config.write_text(text)
print(text)

# %% [markdown]
# ## Doctor
#
# Checks the devices, the data, the mesh, memory and disk for this very experiment.

# %%
omnia("doctor", config, "--data.shards", corpus)

# %% [markdown]
# ## Train
#
# Interrupt it, and the same cell goes on where it stopped.

# %%
omnia("train", config, "--run-dir", run, "--data.shards", corpus)

# %% [markdown]
# `report.html` in the run's folder is one page with all curves, samples and settings. Two of its pictures:

# %%
for axes, name in zip(plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")[1], ("loss", "learning_rate"), strict=True):
    axes.imshow(matplotlib.image.imread(f"{run}/plots/{name}.png"))
    axes.axis("off")
plt.show()

# %% [markdown]
# ## Evaluate
#
# On the files that were held out: as a whole, and by how much of a text the model has seen.

# %%
omnia("evaluate", run)
omnia("evaluate", run, "--by-position")

# %% [markdown]
# ## Generate

# %%
omnia("generate", run, "--prompt", "Return ", "--max-new-tokens", 120, "--temperature", 0.7)

# %% [markdown]
# ## Export
#
# The weights as Hugging Face's library reads them, and as a GGUF file. The tokenizer is Omnia's own, and stays behind.

# %%
omnia("export", run, "--format", "hf", "--output", work / "hf")
omnia("export", run, "--format", "gguf", "--output", work / "model.gguf")
for path in [*sorted((work / "hf").iterdir()), work / "model.gguf"]:
    print(f"{path.name:24} {path.stat().st_size:12,} bytes")
