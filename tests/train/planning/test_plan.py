"""A plan counts what a step does: against closed forms, by hand-made programs, and on eight pretended CPU devices."""

import dataclasses
import importlib.metadata
import json
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from data.errors import UserError
from model.config import ModelConfig
from tests.train.conftest import change
from train.devices.mesh import make_mesh
from train.experiment import Experiment, MeshShape
from train.planning import ahead_of_time, hlo, roofline
from train.planning.ahead_of_time import topology_devices
from train.planning.hlo import Collective, Operation, Program
from train.planning.roofline import Chip, Torus
from train.verbs.plan import make_plan, plan, start_jax

TINY = Experiment(
    name="tiny",
    batch_size=16,
    model=ModelConfig(vocab_size=512, context_length=32, num_layers=3, embed_dim=64, num_heads=4, scan=True),
    mesh=MeshShape(data=1, fsdp=8),
)
CHIP = Chip(peak=1e12, hbm=2**30, reserved=0, hbm_bandwidth=1e11, link=1e9, wraps=4)


@pytest.fixture(scope="module")
def planned():
    return make_plan(TINY, "cpu:8")


def totals(compiled):
    """(FLOPs of products, {kind: (how many, bytes)}) of a compiled program."""
    program = hlo.read(compiled.as_text())
    assert not program.unknown_loops
    flops, found = 0.0, {}
    for operation, times in hlo.walk(program.operations):
        flops += times * operation.flops
        for collective in operation.collectives:
            count, size = found.get(collective.kind, (0, 0))
            found[collective.kind] = (count + times, size + times * collective.bytes)
    return flops, found


def test_products_in_nested_loops_count_as_often_as_they_run():
    """3 times 5 products of [8, 16] with [16, 16]; XLA's own count has one of them."""

    def inner(x, w):
        return jnp.tanh(x @ w), None

    def outer(x, w_LDD):
        return jax.lax.scan(inner, x, w_LDD)[0], None

    compiled = jax.jit(lambda x, w: jax.lax.scan(outer, x, w)[0]).lower(jnp.zeros((8, 16)), jnp.zeros((3, 5, 16, 16))).compile()
    assert totals(compiled)[0] == 3 * 5 * 2 * 8 * 16 * 16


def test_collectives_in_a_loop_count_as_often_as_they_run():
    """Seven sums over rows of four devices, of [6] float32 on each, and their groups are those rows."""
    mesh = make_mesh(MeshShape(data=2, fsdp=4), jax.devices()[:8])

    def body(x):
        return jax.lax.scan(lambda x, _: (jax.lax.psum(x, "fsdp") * 0.1, None), x, None, length=7)[0]

    spec = PartitionSpec(("data", "fsdp"))
    compiled = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)).lower(jnp.zeros(48)).compile()
    assert totals(compiled)[1] == {"all-reduce": (7, 7 * 6 * 4)}
    operations = hlo.walk(hlo.read(compiled.as_text()).operations)
    (groups,) = {collective.groups for operation, _ in operations for collective in operation.collectives}
    assert {frozenset(group) for group in groups} == {frozenset(range(4)), frozenset(range(4, 8))}


@pytest.mark.parametrize(
    "written, groups",
    [
        ("replica_groups={{0,1},{2,3}}", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", ((0, 2), (1, 3))),
    ],
)
def test_groups_are_read_in_every_form(written, groups):
    line = f"  %r = f32[8] all-reduce(%p), channel_id=1, {written}, to_apply=%add"
    _, instruction = next(iter(hlo.parse("ENTRY %e (p: f32[8]) -> f32[8] {\n" + line + "\n}\n")[0]["e"].items()))
    assert hlo.groups_of(instruction) == groups


def module(line: str, *parameters: str) -> str:
    lines = [f"  %p{number} = {shape} parameter({number})" for number, shape in enumerate(parameters)]
    return "ENTRY %e (p: f32[]) -> f32[] {\n" + "\n".join([*lines, line]) + "\n}\n"


def flops_of(text: str) -> float:
    return sum(operation.flops * times for operation, times in hlo.walk(hlo.read(text).operations))


def test_a_product_written_as_a_convolution_counts_the_same():
    """TPUs do so; a batch of products becomes a window that only ever meets one of them."""
    plain = "  ROOT %c = f32[4,6] convolution(%p0, %p1), dim_labels=bf_io->bf"
    assert flops_of(module(plain, "f32[4,5]", "f32[5,6]")) == 2 * 4 * 5 * 6
    window = "window={size=3 stride=2 pad=0_0 lhs_dilate=3}"
    batch = f"  ROOT %c = f32[3,4,6] convolution(%p0, %p1), {window}, dim_labels=0bf_0io->0bf"
    assert flops_of(module(batch, "f32[3,4,5]", "f32[3,5,6]")) == 3 * 2 * 4 * 5 * 6


def test_slices_of_a_large_array_count_as_what_is_read_of_it():
    text = (
        "%f (p: f32[100,8], i: s32[]) -> f32[1,8] {\n  %p = f32[100,8] parameter(0)\n  %i = s32[] parameter(1)\n"
        "  ROOT %d = f32[1,8] dynamic-slice(%p, %i, %i), dynamic_slice_sizes={1,8}\n}\n"
    ) + module("  ROOT %r = f32[1,8] fusion(%p0, %p1), kind=kLoop, calls=%f", "f32[100,8]", "s32[]")
    ((operation, _),) = hlo.walk(hlo.read(text).operations)
    assert 2 * 8 * 4 <= operation.bytes <= 2 * 8 * 4 + 8


def test_a_sum_of_which_each_keeps_a_part_is_a_reduce_scatter():
    """TPUs fuse the two; on the links it costs half of a whole sum."""
    text = (
        "%f (p: f32[8,4], i: s32[]) -> f32[1,4] {\n  %p = f32[8,4] parameter(0)\n  %i = s32[] parameter(1)\n"
        "  %sum = f32[8,4] all-reduce(%p), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add\n"
        "  ROOT %d = f32[1,4] dynamic-slice(%sum, %i, %i), dynamic_slice_sizes={1,4}\n}\n"
    ) + module("  ROOT %r = f32[1,4] fusion(%p0, %p1), kind=kCustom, calls=%f", "f32[8,4]", "s32[]")
    ((operation, _),) = hlo.walk(hlo.read(text).operations)
    assert [(one.kind, one.bytes) for one in operation.collectives] == [("reduce-scatter", 8 * 4 * 4)]


@pytest.mark.parametrize("name, products", [("splash_mha_fwd_segmented.1", 2), ("splash_mha_dkv.2", 4), ("splash_mha_dq.3", 3)])
def test_an_attention_kernel_counts_the_blocks_on_and_below_the_diagonal(name, products):
    """Of 8 x 8 blocks 36, for every row and head."""
    heads = hlo.Array("bf16", (3, 5, 64, 16))
    operation = Operation(name, "custom-call", kernel=name, operands=(hlo.Array("s8", (1, 8, 8)), heads, heads, heads))
    assert roofline.kernel_flops(operation) == products * 2 * 3 * 5 * 36 * 8 * 8 * 16


def cube(side: int):
    """Devices of a torus with three sides, in the order of their numbers."""
    return [types.SimpleNamespace(coords=place) for place in np.ndindex(side, side, side)]


def test_a_gather_takes_the_time_of_its_rings():
    """V (n - 1) / n bytes into each device, over two links for each whole side; half of that along a line that does not close."""
    torus, size = Torus(cube(4), CHIP), 1e9

    def seconds(kind, group, size=size):
        return torus.seconds(Collective(kind, size, (tuple(group),), False))

    side = range(4)
    assert seconds("all-gather", side, size / 4) == pytest.approx(size * 3 / 4 / 2e9, rel=1e-3)
    assert seconds("reduce-scatter", side) == pytest.approx(size * 3 / 4 / 2e9, rel=1e-3)
    assert seconds("all-reduce", side) == pytest.approx(2 * size * 3 / 4 / 2e9, rel=1e-3)
    assert seconds("all-gather", range(16), size / 16) == pytest.approx(size * 15 / 16 / 4e9, rel=1e-3)
    assert seconds("all-gather", range(2), size / 2) == pytest.approx(size / 2 / 1e9, rel=1e-3)
    open_ends = Torus(cube(4), dataclasses.replace(CHIP, wraps=16))
    line = open_ends.seconds(Collective("all-gather", size / 4, (tuple(side),), False))
    assert line == pytest.approx(size * 3 / 4 / 1e9, rel=1e-3)
    assert torus.seconds(Collective("collective-permute", size, ((0, 3),), False)) == pytest.approx(size / 1e9, rel=1e-3)


def test_only_what_the_compiler_starts_and_ends_apart_overlaps():
    """Two seconds of exchange and one of products: two seconds when they are side by side, three when not; times the loop."""
    group = (tuple(range(4)),)
    exchange = Collective("all-gather", 4e9 / 3, group, True)
    work = Operation("dot", "dot", flops=CHIP.peak * roofline.MATMUL)
    started = Operation("start", "all-gather-start", collectives=(exchange,), start=True)
    beside = (started, work, Operation("done", "all-gather-done", end="start"))
    apart = (Operation("gather", "all-gather", collectives=(dataclasses.replace(exchange, asynchronous=False),)), work)
    torus = Torus(cube(4), CHIP)
    for operations, seconds in ((beside, 2.0), (apart, 3.0)):
        loop = Program((Operation("loop", "while", trips=5, body=operations),), ())
        found = roofline.estimate(loop, torus)
        assert found.seconds == pytest.approx(5 * seconds, rel=1e-3)
        assert found.all_overlap == pytest.approx(10, rel=1e-3) and found.no_overlap == pytest.approx(15, rel=1e-3)


def test_the_state_is_shared_by_the_devices(planned):
    """Parameters in float32, and AdamW's two moments; all but norms, biases and positions are split eight ways."""
    whole = 4 * planned["parameters"]
    assert whole / 8 <= planned["parameter_bytes"] < 1.1 * whole / 8
    assert planned["optimizer_bytes"] == pytest.approx(2 * planned["parameter_bytes"], abs=64)
    assert planned["argument_bytes"] >= planned["parameter_bytes"] + planned["optimizer_bytes"]


def test_products_of_a_step_are_those_of_the_model(planned):
    """Forward, backward, and the head once more; attention over the whole square: between one and two times the causal count."""
    assert planned["model_flops"] < planned["product_flops"] < 2 * planned["model_flops"]
    assert planned["collectives"]["all-gather"]["count"] >= 2 * TINY.model.num_layers
    deeper = make_plan(change(TINY, model={"num_layers": 6}), "cpu:8")
    c, tokens = TINY.model, planned["tokens_per_batch"] / 8
    layer = 3 * tokens * (2 * c.embed_dim * (4 * c.embed_dim + 2 * c.mlp_width) + 4 * c.embed_dim * c.context_length)
    assert deeper["product_flops"] - planned["product_flops"] == pytest.approx(3 * layer, rel=0.02)


def test_what_does_not_fit_is_said_with_what_to_change(monkeypatch):
    monkeypatch.setattr(roofline, "chip_of", lambda device: dataclasses.replace(CHIP, hbm=1000))
    found = make_plan(TINY, "cpu:8")
    assert not found["fits"] and found["bytes_per_device"] > found["hbm_bytes"] == 1000
    assert any("--mesh.fsdp" in line for line in found["advice"]) and any("--model.remat full" in line for line in found["advice"])


@pytest.mark.parametrize(
    "message, work_only",
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 3.5G of 1.0G hbm.", False),
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (3.5G) exceeds 1.0G", True),
    ],
)
def test_a_compiler_that_gives_up_says_how_much_was_missing(message, work_only, monkeypatch):
    """Both ways in which the TPU compiler says so; any other failure of it is not taken for one."""

    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(ahead_of_time, "lower_step", lambda *_: Lowered())
    found = make_plan(TINY, "cpu:8")
    state = found["parameter_bytes"] + found["optimizer_bytes"]
    assert not found["fits"] and found["advice"] and found["bytes_per_device"] == 3.5 * 2**30 + work_only * state
    message = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        make_plan(TINY, "cpu:8")


def test_the_verb(tmp_path, capsys):
    config = tmp_path / "tiny.py"
    config.write_text(
        "import dataclasses\nfrom model.config import ModelConfig\nfrom train.experiment import Experiment, MeshShape\n"
        "def get_config():\n    return Experiment(batch_size=16, mesh=MeshShape(data=1, fsdp=8), model=ModelConfig(vocab_size=512, "
        "context_length=32, num_layers=3, embed_dim=64, num_heads=4, scan=True))\n"
    )
    assert plan([str(config), "--topology", "cpu:8", "--json", "--output", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    promised = {"fits", "bytes_per_device", "hbm_bytes", "tokens_per_batch", "predicted_mfu", "compile_seconds"}
    assert promised <= set(found) and found["fits"] is True and found["tokens_per_batch"] == 16 * 32
    assert (tmp_path / "plan.png").stat().st_size > 1000
    for wrong in (["--topology", "v5p8"], ["--topology", "cpu:9"], ["--topology", "cpu:8", "--model.vocab-size", "0"], []):
        with pytest.raises(UserError):
            plan([str(config), *wrong])


def test_a_topology_says_a_number_of_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr("train.devices.hosts.start_devices", lambda: None)
    start_jax("cpu:²")
    with pytest.raises(UserError, match="no topology"):
        topology_devices("cpu:²")


def test_a_search_ranks_what_fits_and_names_what_fails():
    from train.planning.search import search, try_variant

    found, tried = search(TINY, "cpu:8", 3, make_plan)
    fitting = [row for row in tried if row.get("fits")]
    assert len(fitting) == 3 and [row["seconds"] for row in fitting] == sorted(row["seconds"] for row in fitting)
    assert all(math.prod(row["mesh"].values()) == 8 for row in fitting)
    assert found["fits"] and {name: found[name] for name in ("mesh", "remat", "micro_batches")}.items() <= fitting[0].items()

    def refuses(*_, **__):
        raise ValueError("the compiler says no")

    assert try_variant(TINY, "cpu:8", refuses)[0]["error"] == "the compiler says no"
    assert "does not make 8 devices" in try_variant(change(TINY, mesh=MeshShape(data=3)), "cpu:8", make_plan)[0]["error"]


@pytest.fixture
def libtpu(monkeypatch):
    """The compiler for TPUs, as far as its version is asked; and the version that JAX wants."""
    asked = re.search(r"libtpu==([\d.]+)\.\*", " ".join(importlib.metadata.requires("jax")))[1]
    known, versions = importlib.metadata.version, {"libtpu": f"{asked}.1"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("importlib.metadata.version", lambda name: versions.get(name) or known(name))
    return versions, asked


def test_another_libtpu_than_jax_asks_for_is_named_with_both_versions(libtpu):
    versions, asked = libtpu
    versions["libtpu"] = f"{asked}9"
    with pytest.raises(UserError, match=rf"libtpu {re.escape(asked)}9 is installed, and JAX .* asks for {re.escape(asked)}\n"):
        topology_devices("v5e:4x4")


def test_a_libtpu_that_is_held_is_no_missing_topology(libtpu, monkeypatch):
    def held(**_):
        raise jax.errors.JaxRuntimeError('ABORTED: Internal error when accessing libtpu multi-process lockfile. Run "rm /tmp/lockfile".')

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", held)
    with pytest.raises(UserError, match="libtpu is held by another process"):
        topology_devices("v5e:4x4")
