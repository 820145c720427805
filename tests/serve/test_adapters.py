"""Adapters by name: each text is as with its adapter merged into the model, whatever the others have; and only those of this model."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from data.errors import UserError
from model.decoding.sampling import Sampling
from serve.adapters import load_adapters, parse_names
from serve.jobs import Job
from serve.programs import Programs
from tests.serve.conftest import CHUNK, CONTEXT, END, TOKENIZER, one_by_one, run
from tests.train.conftest import corpora, tiny  # noqa: F401
from tests.train.tiny_runs import start, train
from train.adapters.low_rank import NAME, merged
from train.adapters.method import overlaid
from train.adapters.options import Houlsby, LoRA
from train.adapters.together import side_by_side
from train.checkpoints.checkpointer import load_parameters
from train.devices.mesh import inference_mesh
from train.generation.text import TextGenerator


def low_rank(params, rank: int, seed: int):
    """Terms of some rank beside the projection of each layer's values."""
    rng = np.random.default_rng(seed)

    def beside(kernel, outputs: int):
        inputs = kernel.size // outputs
        return {NAME: {"a": rng.normal(0, 0.3, (inputs, rank)).astype("f"), "b": rng.normal(0, 0.3, (rank, outputs)).astype("f")}}

    layers = {name: layer for name, layer in params.items() if name.startswith("layer_")}
    return {
        name: {"attention": {"value": beside(layer["attention"]["value"]["kernel"], layer["attention"]["value"]["kernel"][0].size)}}
        for name, layer in layers.items()
    }


@pytest.fixture(scope="module")
def adapters(model):
    return [low_rank(model[1], rank, seed) for seed, rank in enumerate((2, 5))]


def some_jobs() -> list[Job]:
    draw = np.random.default_rng(4)
    prompt = draw.integers(0, 256, CHUNK + 3).tolist()
    cool, warm = (Sampling(temperature=temperature, stop_ids=(END,)) for temperature in (0.7, 1.0))
    same = [Job(prompt, cool, 1, 12, adapter=adapter) for adapter in (-1, 0, 1)]
    return same + [Job(draw.integers(0, 256, 5).tolist(), warm, number, 12, adapter=number % 3 - 1) for number in range(6)]


def test_each_text_is_as_with_its_adapter_merged(model, adapters, make_engine):
    config, params = model
    programs = Programs(config, params, widths=(4,), size=CONTEXT, chunk=CHUNK, rows=2, exact=True, adapters=side_by_side(adapters))
    programs.compile()
    with make_engine(programs=programs) as parts:
        found = run(parts.engine, some_jobs())
        assert one_by_one(parts.engine, some_jobs()) == found  # alone, and with what was read before, but not by another adapter
    for job, (ids, log_probs, _) in zip(some_jobs(), found, strict=True):
        own = params if job.adapter < 0 else merged(overlaid(params, adapters[job.adapter]))
        everything = dataclasses.replace(job.sampling, among=(0, 1 << 20))
        (expected,) = TextGenerator(config, own, TOKENIZER, END).generate([job.ids], tokens=12, sampling=everything, seed=job.seed)
        assert list(expected.ids) == ids
        if job.sampling.temperature in (0.0, 1.0):
            np.testing.assert_allclose(log_probs, expected.log_probs, atol=1e-4)
    assert len({tuple(ids) for ids, *_ in found[:3]}) == 3


@pytest.fixture(scope="module")
def runs(corpora, tmp_path_factory):  # noqa: F811
    """A run, one with LoRA beside it, one with another kind of adapters, and one with LoRA beside another model."""
    folder, experiment = tmp_path_factory.mktemp("adapted"), dataclasses.replace(tiny.__wrapped__(corpora), steps=2)
    made = {}
    for name, changes in {
        "base": {},
        "lora": {"start": "base", "adapters": LoRA(rank=2)},
        "wide": {"start": "base", "adapters": Houlsby(width=2)},
        "other": {"start": "lora", "adapters": LoRA(rank=2)},
    }.items():
        start_from = str(made[changes["start"]].path) if changes else ""
        made[name] = start(folder / name, dataclasses.replace(experiment, **changes | {"start": start_from}))
        train(made[name])
    return made


def test_adapters_of_another_model_and_of_other_kinds_are_refused(runs):
    params, _ = load_parameters(runs["base"], inference_mesh(runs["base"].experiment.mesh))
    tree = load_adapters({"lora": runs["lora"].path}, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype("float32"), np.dtype("int32")}
    for name, said in (("base", "holds no LoRA"), ("wide", "holds no LoRA"), ("other", "beside another model")):
        with pytest.raises(UserError, match=said):
            load_adapters({name: runs[name].path}, params)


def test_names_are_those_given_or_the_folders_and_each_its_own():
    assert [*parse_names(("a=runs/x", "runs/y"), "m")] == ["a", "y"]
    for given in (("m=runs/x",), ("runs/x", "x=runs/y"), ("=runs/x",)):
        with pytest.raises(UserError, match="Give another"):
            parse_names(given, "m")


def test_requests_choose_an_adapter_by_name(listen):
    """Over HTTP: names are known, and the job has the adapter's number."""
    import urllib.error
    import urllib.request

    with listen(adapters=("poet", "clerk")) as (address, _, parts):

        def ask(path: str, body=None):
            raw = None if body is None else json.dumps(body).encode()
            return json.load(urllib.request.urlopen(urllib.request.Request(address + path, raw, {"content-type": "application/json"})))

        taken, submit = [], parts.engine.submit
        parts.engine.submit = lambda *jobs: (taken.extend(job.adapter for job in jobs), submit(*jobs))
        assert [one["id"] for one in ask("/v1/models")["data"]] == ["tiny", "poet", "clerk"]
        assert ask("/v1/models/clerk")["parent"] == "tiny"
        for name in ("clerk", "tiny", "poet"):
            assert ask("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 2})["model"] == name
        assert taken == [1, -1, 0]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask("/v1/completions", {"model": "nobody", "prompt": "a"})
        assert refused.value.code == 404 and "'poet'" in json.load(refused.value)["error"]["message"]
