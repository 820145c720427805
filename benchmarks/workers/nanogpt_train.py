"""Rounds of training steps of a nanoGPT checkout (NANOGPT) in eager PyTorch, on random tokens. Started by benchmarks/race.py."""

import json
import os
import resource
import sys
import time

import torch

sys.path.insert(0, os.environ["NANOGPT"])
from model import GPT, GPTConfig


def main():
    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            block_size=shape["context"],
            vocab_size=shape["vocab"],
            n_layer=shape["layers"],
            n_head=shape["heads"],
            n_embd=shape["width"],
            dropout=0.0,
            bias=shape["bias"],
        )
    )
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    tokens = torch.randint(shape["vocab"], (shape["batch"], shape["context"] + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step():
        _, loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    for _ in range(shape["warm"]):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(shape["steps"]):
            loss = step()
        seconds = (time.perf_counter() - began) / shape["steps"]
        print(
            json.dumps(
                {
                    "ms": 1000 * seconds,
                    "tokens_per_second": shape["batch"] * shape["context"] / seconds,
                    "loss": loss,
                    "parameters": sum(parameter.numel() for parameter in model.parameters()),
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
