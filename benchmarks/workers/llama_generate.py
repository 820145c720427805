"""Rounds of greedy generation by llama.cpp, through llama-cpp-python. Started by benchmarks/race.py."""

import json
import resource
import sys
import time

from llama_cpp import Llama


def main():
    shape = json.loads(sys.argv[1])
    [prompt] = shape["prompts"]
    room = len(prompt) + shape["new"] + 8
    model = Llama(shape["gguf"], n_ctx=room, n_threads=shape["threads"], n_threads_batch=shape["threads"], verbose=False)

    def generate():
        model.reset()
        tokens = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            tokens.append(token)
            if len(tokens) == shape["new"]:
                return tokens

    generate()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        tokens = generate()
        seconds = time.perf_counter() - began
        found = {"seconds": seconds, "tokens_per_second": shape["new"] / seconds, "tokens": [tokens]}
        print(json.dumps(found | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


if __name__ == "__main__":
    main()
