"""Responses of skewed lengths, drawn all at once and in fewer places that are refilled: seconds, and the same tokens.

python benchmarks/slots.py --responses 128 --room 256 --mean 32

The model's weights are as at the start but for its table, which is 0: every token is equally likely, so lengths are geometric with the
given mean, cut at the room. Rounds take turns; the medians and the ratios to all at once are printed.
"""

import argparse
import functools
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from model.config import ModelConfig
from model.decoding.sampling import Sampling
from model.transformer import Decoder
from train.generation.slots import go_on_in_slots, open_slots, rollout_in_slots
from train.rl.policy.rollout import response_key, rollout, row_keys
from train.verbs.arguments import start_jax


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--room", type=int, default=256)
    parser.add_argument("--mean", type=int, default=32, help="tokens of a response, and of the vocabulary")
    parser.add_argument("--places", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start_jax()
    count, width, room = arguments.responses, arguments.prompt, arguments.room
    config = ModelConfig(vocab_size=arguments.mean, context_length=width + room, num_layers=4, embed_dim=128, num_heads=4)
    model, sampling, key = Decoder(config), Sampling(stop_ids=(0,)), jax.random.key(0)
    params = nn.unbox(jax.jit(model.init)(key, jnp.zeros((1, 1), jnp.int32))["params"])
    params["embedding"]["table"] = jnp.zeros_like(params["embedding"]["table"])
    rng = np.random.default_rng(0)
    prompts, lengths, rows = rng.integers(1, arguments.mean, (count, width)), np.full(count, width), np.arange(count)

    @jax.jit
    def at_once(params, prompts, lengths, rows):
        return rollout(model, params, prompts, lengths, row_keys(key, rows, 1), sampling, max_new_tokens=room, samples=1)

    @jax.jit
    def begin(params, prompts, lengths, rows):
        return open_slots(model, params, prompts, lengths, row_keys(key, rows, 1), sampling, max_new_tokens=room, samples=1)

    @functools.partial(jax.jit, donate_argnames="state")
    def go_on(params, state, over, places, prompts, lengths, rows):
        keys = jax.vmap(lambda row: response_key(key, row, 0))(rows)
        return go_on_in_slots(model, params, state, over, places, prompts, lengths, keys, sampling)

    def in_places(places: int):
        return rollout_in_slots(
            lambda: begin(params, prompts[:places], lengths[:places], rows[:places]),
            lambda state, over, free, numbers: go_on(params, state, over, free, prompts[numbers], lengths[numbers], rows[numbers]),
            *(np.asarray, prompts, lengths),
            slots=places,
            max_new_tokens=room,
        )

    ways = {"all at once": lambda: jax.device_get(at_once(params, prompts, lengths, rows))}
    ways |= {f"{places} places": functools.partial(in_places, places) for places in arguments.places}
    first = {name: way() for name, way in ways.items()}  # compiles
    expected = first["all at once"]
    for found in first.values():
        np.testing.assert_array_equal(found.tokens_BS, expected.tokens_BS)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            began = time.monotonic()
            way()
            seconds[name].append(time.monotonic() - began)
    drawn = expected.mask_BR.sum(1)
    print(f"{count} responses of {drawn.mean():.1f} tokens, the longest {drawn.max():.0f}, of at most {room}")
    base = statistics.median(seconds["all at once"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:12s} {median:.3f} s  {drawn.sum() / median:8.0f} tokens/s  {base / median:.2f} times as fast as all at once")


if __name__ == "__main__":
    main()
