"""Many who ask a model at once: one after the other, in batches that end together, and in slots that are free as soon as a text ends.

omnia reproduce serving
"""

import statistics
import sys
import time

from data.files import json_files
from train.reproduce.table import Better, Metric, Row, Table

WAYS = {
    "one": "one after the other",
    "batches": "batches of 16, each until its longest text ends",
    "slots": "16 slots, the next text as soon as one ends",
    "filtered": "the same, top-p of 0.9",
}
REQUESTS, SLOTS, PROMPT, CONTEXT = 96, 16, 64, 256
LENGTHS = (8, 16, 24, 160)
"""Of answers in tokens, the longest as often as each other: few long ones among many short."""


def get_table() -> Table:
    return Table(
        title="Serving: texts that end at different times",
        paper="Yu et al. 2022 (Orca), figures 10 and 11; Kwon et al. 2023 (PagedAttention), figure 12",
        claim="Scheduling by step instead of by request serves more tokens a second, and answers sooner.",
        metrics=(
            Metric("rate", "tokens a second", "tokens/s", lower_is_better=False, digits=0),
            Metric("latency", "half of the answers are whole after", "s", digits=2),
        ),
        files=(),
        rows=tuple(Row(way, what, (f"python {{table}} {way} {{seed}}",), alone=True) for way, what in WAYS.items()),
        claims=(
            Better("slots", "batches"),
            Better("slots", "batches", metric="half of the answers are whole after"),
        ),
        note=f"{REQUESTS} requests at once, prompts of {PROMPT} tokens, answers of {LENGTHS[0]} to {LENGTHS[-1]}; 4 layers of 128, random "
        "weights, a vocabulary of 4,096; without HTTP.",
    )


def measure(way: str, seed: int) -> dict[str, float]:
    """All requests are there at the beginning. Rates count the tokens of answers; what is compiled is compiled before."""
    import jax
    import numpy as np
    from flax import linen as nn

    from data.tokenizer import byte_tokenizer
    from model.config import ModelConfig
    from model.decoding.sampling import Sampling
    from model.transformer import Decoder
    from serve.engine import Engine
    from serve.jobs import Job
    from serve.observe import Observed
    from serve.prefix import PrefixStore
    from serve.programs import programs_for
    from serve.scheduler import Scheduler
    from train.generation.text import TextGenerator

    tokenizer = byte_tokenizer()
    model = Decoder(ModelConfig(context_length=CONTEXT, vocab_size=4096, num_layers=4, embed_dim=128, num_heads=4))
    params, end = nn.unbox(model.start(jax.random.key(seed))), tokenizer.specials["document_end"]
    generator = TextGenerator(model, params, tokenizer, end)
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(1, 256, PROMPT).tolist() for _ in range(REQUESTS)]
    lengths = draw.permutation(np.repeat(LENGTHS, REQUESTS // len(LENGTHS))).tolist()
    sampling = Sampling(bias=((end, -100.0),), top_p=0.9 if way == "filtered" else 1.0)  # no text ends by itself

    def offline(at_once: int) -> list[float]:
        began, ends = time.perf_counter(), []
        for first in range(0, REQUESTS, at_once):
            most = max(lengths[first : first + at_once])
            generator.generate(prompts[first : first + at_once], tokens=most, sampling=sampling, seed=first)
            ends += [time.perf_counter() - began] * at_once
        return ends

    if way in ("one", "batches"):
        offline(1 if way == "one" else SLOTS)
        ends = offline(1 if way == "one" else SLOTS)
    else:
        programs = programs_for(model, generator.params, slots=SLOTS, context=CONTEXT)
        programs.compile()
        store = PrefixStore(chunk=programs.chunk, most_bytes=0)
        engine = Engine(programs, Scheduler(most_jobs=REQUESTS, most_tokens=10**7), store, Observed())
        jobs = [Job(prompt, sampling, number, most) for number, (prompt, most) in enumerate(zip(prompts, lengths, strict=True))]
        began = time.monotonic()
        engine.submit(*jobs)
        engine.start()
        engine.stop(600)  # once all have ended
        ends = [job.times["ended"] - began for job in jobs]
    return {"rate": sum(lengths) / max(ends), "latency": statistics.median(ends)}


if __name__ == "__main__":
    print(json_files.dumps(measure(sys.argv[1], int(sys.argv[2]))))
