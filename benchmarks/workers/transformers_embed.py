"""Rounds of sentence embeddings by transformers: the mean of the hidden states, in batches of 32, in the order given or, as
sentence-transformers does it, sorted by length. Started by benchmarks/race.py."""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


def main():
    shape = json.loads(sys.argv[1])
    torch.set_num_threads(shape["threads"])
    texts = Path(shape["texts"]).read_text().splitlines()[: shape["most"]]
    tokenizer = AutoTokenizer.from_pretrained(shape["folder"])
    model = AutoModel.from_pretrained(shape["folder"], dtype=torch.float32).eval()

    def embed():
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]) if shape["sorted"] else 0)
        found = torch.zeros(len(texts), model.config.hidden_size)
        with torch.inference_mode():
            for first in range(0, len(order), 32):
                chosen = order[first : first + 32]
                batch = tokenizer([texts[number] for number in chosen], padding=True, truncation=True, max_length=256, return_tensors="pt")
                hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
                found[chosen] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return found

    embed()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        found = embed()
        seconds = time.perf_counter() - began
        print(json.dumps({"sentences_per_second": len(texts) / seconds, "first": found[0].tolist()}), flush=True)


if __name__ == "__main__":
    main()
