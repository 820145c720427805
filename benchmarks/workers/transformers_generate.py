"""Rounds of greedy generation by transformers. Started by benchmarks/race.py, which shares the weights through a folder."""

import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel


def main():
    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    if "make" in shape:
        torch.manual_seed(0)
        config = GPT2Config(bos_token_id=None, eos_token_id=None, **shape["make"])
        model = GPT2LMHeadModel(config)
        with torch.no_grad():  # as if trained a little: with the initial scale all tokens are nearly as likely
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * (0.05 if weight.ndim == 2 else 0.1))
        model.save_pretrained(shape["folder"], safe_serialization=True)
        print("ready", flush=True)
        return
    model = AutoModelForCausalLM.from_pretrained(shape["folder"], dtype=torch.float32).eval()
    ids = torch.tensor(shape["prompts"])
    mask = torch.ones_like(ids)

    def generate():
        with torch.inference_mode():
            length = {"min_new_tokens": shape["new"], "max_new_tokens": shape["new"]}
            return model.generate(ids, attention_mask=mask, do_sample=False, **length, use_cache=True, pad_token_id=0)

    generate()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        out = generate()
        seconds = time.perf_counter() - began
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "tokens_per_second": len(ids) * shape["new"] / seconds,
                    "tokens": out[:, ids.shape[1] :].tolist(),
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
