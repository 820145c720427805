# %% [markdown]
# # 10. Serve it
#
# A model answers over HTTP, in the form that OpenAI's clients speak: streams, answers that follow a schema, how sure it was of each
# token, and many who ask at once. Nothing is downloaded: the model reads Python's own standard library first.

# %%
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from data import PrepareText, prepare_text
from model import ModelConfig
from train import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule, TextData, new_run, train

work = Path(tempfile.mkdtemp(prefix="omnia-"))
library = sysconfig.get_paths()["stdlib"]
prepare_text(PrepareText(output=str(work / "corpus"), input=(f"{library}/*.py",), tokenizer="sentencepiece:1024"))
experiment = Experiment(
    steps=240,
    batch_size=16,
    model=ModelConfig(context_length=256, num_layers=3, embed_dim=96, num_heads=4, norm="rmsnorm", positions="rotary", bias=False),
    data=TextData(shards=(str(work / "corpus"),)),
    optimizer=Muon(learning_rate=0.03, adam_learning_rate=8e-3),
    schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
    evaluation=Evaluation(every=0, rows=64),
    samples=Samples(tokens=0),
    checkpoints=Checkpoints(every=0),
)
run = new_run(work / "writer", experiment)
train(run)

# %% [markdown]
# ## The server
#
# A process of its own: in a terminal it would be `omnia serve RUN`. It says its address once every program is compiled. With a model
# that was taught to converse, the same address opened in a browser is a page to chat with.

# %%
server = subprocess.Popen(
    [sys.executable, "-m", "omnia", "serve", str(run.path), "--port", "0", "--slots", "16"],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
for line in server.stdout:
    if "ready after" in line or "error" in line:
        print(line, end="")
        break
address = line.split(" at ")[1].split(",")[0]
threading.Thread(target=server.stdout.read, daemon=True).start()


def post(path: str, **body):
    """What the server answers: a stream of lines, of which each is an event, or one JSON object."""
    raw = json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(address + path, raw, {"content-type": "application/json"}))


def events(**body):
    """(the text of each event of a completion, seconds since it was asked for)"""
    began = time.perf_counter()
    for line in post("/v1/completions", stream=True, **body):
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])["choices"][0]["text"], time.perf_counter() - began


# %% [markdown]
# ## A stream
#
# Text comes as it is written. The same seed writes the same text again, whoever asks at the same time.

# %%
asked = {"prompt": "def read(self, ", "max_tokens": 60, "temperature": 0.7, "seed": 1}
for text, _ in events(**asked):
    print(text, end="", flush=True)
again = json.load(post("/v1/completions", **asked))
print("\n\nthe same once more:", again["choices"][0]["text"] == "".join(text for text, _ in events(**asked)), again["usage"])

# %% [markdown]
# ## How sure it was
#
# With `logprobs` each token comes with its probability and its rivals'; with `echo` the prompt's own tokens do too. Dark is sure.

# %%
scored = json.load(post("/v1/completions", **asked | {"prompt": "class Reader:\n    def __init__(self, ", "echo": True, "logprobs": 3}))
found = scored["choices"][0]["logprobs"]
likely = np.exp(np.array([np.nan if value is None else value for value in found["token_logprobs"]]))
figure, axes = plt.subplots(figsize=(9, 2.4), layout="constrained")
axes.bar(range(len(likely)), likely, color=plt.get_cmap("viridis")(np.nan_to_num(likely)))
axes.set_xticks(range(len(likely)), [repr(token)[1:-1] for token in found["tokens"]], rotation=90, fontsize=6)
axes.set(ylabel="probability", ylim=(0, 1))
plt.show()

# %% [markdown]
# ## An answer of a given form
#
# Tokens that would leave the form are never drawn, so even a model that knows no better answers in it.

# %%
schema = {
    "type": "object",
    "properties": {"size": {"type": "integer"}, "kind": {"enum": ["file", "folder"]}},
    "required": ["size", "kind"],
    "additionalProperties": False,
}
shape = {"type": "json_schema", "json_schema": {"name": "entry", "schema": schema}}
for seed in range(3):
    answer = json.load(post("/v1/completions", prompt="entry = ", max_tokens=80, seed=seed, response_format=shape))["choices"][0]
    print(answer["finish_reason"], answer["text"])

# %% [markdown]
# ## Many at once
#
# Requests share the steps of the model: each waits a little longer than it would alone, and all together are done much sooner than one
# after the other.


# %%
def rate(count: int) -> float:
    """Tokens a second of so many streams together."""
    threads = [
        threading.Thread(target=lambda seed=seed: list(events(**asked | {"seed": seed, "max_tokens": 100}))) for seed in range(count)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count * 100 / (time.perf_counter() - began)


counts = [1, 2, 4, 8, 16]
rates = [max(rate(count) for _ in range(3)) for count in counts]
figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
axes.plot(counts, rates, marker="o")
axes.set(xlabel="streams at once", ylabel="tokens a second, at most", xscale="log", xticks=counts, xticklabels=counts)
plt.show()

# %% [markdown]
# ## What it says of itself
#
# `/metrics` is for Prometheus. Nothing was compiled since the server was ready.

# %%
metrics = urllib.request.urlopen(address + "/metrics").read().decode()
print("\n".join(line for line in metrics.splitlines() if line.startswith(("omnia_generation_tokens_total ", "omnia_compilations_total "))))
server.send_signal(signal.SIGTERM)
print("it ended with exit code", server.wait(60) if os.name == "posix" else None)
