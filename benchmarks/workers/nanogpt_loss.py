"""nanoGPT's model trained at its README's CPU setting until the validation loss is reached. Started by benchmarks/race.py.

The model and its optimizer are the checkout's (NANOGPT); the settings are those of its README: 2,000 steps of 12 rows of 64
characters, rate 1e-3 with 100 steps of warm-up and a cosine to 1e-4, no dropout. Validation is over the whole last tenth, as on our
side, and is not counted.
"""

import json
import math
import os
import sys
import time

BEGAN = time.time()

import torch  # noqa: E402

sys.path.insert(0, os.environ["NANOGPT"])
from model import GPT, GPTConfig  # noqa: E402

CONTEXT, BATCH, STEPS, WARMUP = 64, 12, 2000, 100


def main():
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(1337 + options["seed"])
    with open(options["text"], encoding="utf-8") as file:
        text = file.read()
    vocabulary = {character: number for number, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([vocabulary[character] for character in text])
    cut = int(len(ids) * 0.9)
    train, held_out = ids[:cut], ids[cut:]
    model = GPT(GPTConfig(block_size=CONTEXT, vocab_size=len(vocabulary), n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False))
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

    def validate():
        rows = (len(held_out) - 1) // CONTEXT
        inputs, targets = held_out[: rows * CONTEXT].view(rows, CONTEXT), held_out[1 : rows * CONTEXT + 1].view(rows, CONTEXT)
        with torch.inference_mode():
            parts = [(model(x, y)[1].item(), len(x)) for x, y in zip(inputs.split(64), targets.split(64), strict=True)]
        return sum(loss * count for loss, count in parts) / rows

    print("ready", flush=True)
    sys.stdin.readline()
    excluded, losses = 0.0, {}
    for step in range(STEPS + 1):
        if step % 40 == 0 and step:
            paused = time.time()
            losses[step] = validate()
            excluded += time.time() - paused
            if losses[step] <= options["goal"]:
                break
        share = (step - WARMUP) / (STEPS - WARMUP)
        rate = 1e-3 * (step + 1) / (WARMUP + 1) if step < WARMUP else 1e-4 + 0.5 * (1 + math.cos(math.pi * share)) * 9e-4
        for group in optimizer.param_groups:
            group["lr"] = rate
        first = torch.randint(len(train) - CONTEXT, (BATCH,))
        inputs = torch.stack([train[i : i + CONTEXT] for i in first])
        targets = torch.stack([train[i + 1 : i + 1 + CONTEXT] for i in first])
        _, loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.time() - BEGAN - excluded
    reached = losses[step] <= options["goal"]
    print(json.dumps({"seconds": seconds, "reached": reached, "step": step, "loss": losses[step], "losses": losses}), flush=True)


if __name__ == "__main__":
    main()
