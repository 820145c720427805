"""Training steps of a nanoGPT checkout (NANOGPT) as its train.py makes them on a GPU: torch.compile, bfloat16 autocast, fused AdamW and
PyTorch's choice of fused attention. Random tokens; every step's loss is read one step late. Started by benchmarks/gpu.py.
"""

import json
import os
import statistics
import sys
import time

import torch

sys.path.insert(0, os.environ["NANOGPT"])
from model import GPT, GPTConfig


def main():
    shape = json.loads(sys.argv[1])
    device, rows = shape["device"], shape["rows"]
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} of {sys.executable} sees no GPU: PEER must have a build of torch for CUDA")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    config = GPTConfig(**shape["model"], dropout=0.0, bias=True)
    model = GPT(config).to(device)
    if not model.transformer.h[0].attn.flash:
        sys.exit(f"torch {torch.__version__} has no fused attention")
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), device)
    compiled = torch.compile(model)
    tokens = torch.randint(config.vocab_size, (rows, config.block_size + 1), device=device)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step():
        with torch.autocast(device, torch.bfloat16):
            _, loss = compiled(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def steps(count):
        """Seconds a step."""
        began, before = time.perf_counter(), None
        for _ in range(count):
            loss = step()
            if before is not None:
                before.item()
            before = loss
        before.item()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    first = steps(1)
    steps(2)
    count = max(2, round(shape["round_seconds"] / steps(2)))
    seconds = [steps(count) for _ in range(shape["rounds"])]
    tokens_a_step = rows * config.block_size
    print(
        json.dumps(
            {
                "tokens_per_second": tokens_a_step / statistics.median(seconds),
                "slowest_and_fastest": [tokens_a_step / max(seconds), tokens_a_step / min(seconds)],
                "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
                "compile_seconds": first,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
