"""Whole runs with adapters: what they keep, killed and resumed, saved alone, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

import omnia
from data.errors import UserError
from model.decoding.quantize import Quantized
from tests.train.conftest import change
from tests.train.tiny_runs import outcome, start, train, train_and_stop
from train.adapters.method import projections
from train.adapters.options import AdaLoRA, BitFit, Houlsby, LoRA, Prompt
from train.adapters.training import base_in_eight_bits, begun_on, method_of
from train.bridge.adapters import CONFIG, digest_of, export_adapters, import_adapters
from train.checkpoints.checkpointer import load_parameters, load_trained
from train.devices.mesh import make_mesh
from train.evaluation.checkpoint import evaluate_run
from train.experiment import Experiment, MeshShape
from train.loop.learner import fresh_state, learner_of
from train.loop.telemetry import read_metrics
from train.objectives.bind import bind, bind_trained, check_frozen, state_of
from train.rl.options import GRPO, PPO, RewardModelling
from train.runs.directory import open_run
from train.runs.resolve import check_adapters, with_new_parts
from train.runs.start import frozen_of
from train.verbs.train import _command

ONE = MeshShape(data=1)


def one_device():
    return make_mesh(ONE, jax.devices()[:1])


@pytest.fixture(scope="module")
def small(corpora):
    """The experiment of the `tiny` fixture, of which a module needs one run."""
    from tests.train.conftest import tiny

    return change(tiny.__wrapped__(corpora), model={"scan": True}, evaluation={"rows": 8})


@pytest.fixture(scope="module")
def base(small, tmp_path_factory):
    run = start(tmp_path_factory.mktemp("base") / "run", dataclasses.replace(small, steps=2))
    train(run)
    return open_run(run.path)


@pytest.fixture(scope="module")
def adapted(small, base, tmp_path_factory):
    """A run of each kind that some test looks at, made when it is asked for."""
    made = {}

    def run(options, **fields):
        if options not in made:
            experiment = dataclasses.replace(small, start=str(base.path), adapters=options, **fields)
            whole = start(tmp_path_factory.mktemp("adapted") / "run", experiment)
            train(whole)
            made[options] = open_run(whole.path)
        return made[options]

    return run


LORA = LoRA(rank=2, dropout=0.2)
EIGHT_BITS = AdaLoRA(rank=1, initial_rank=2, every=2, int8=True, trained=("final_norm",))
NO_AVERAGE = {"ema_decay": 0.0}


def test_only_leaves_of_adapters_are_trained_kept_and_saved(adapted, base):
    """Gradients, moments and average are of the trained tree by their types; their sizes are those of the adapters."""
    run = adapted(LORA)
    boxed = jax.eval_shape(bind(run.experiment).start, jax.random.key(0))
    count = sum(2 * one.stack[0] * (one.inputs + one.outputs) for one in projections(flatten_dict(boxed), LORA.targets))
    state = state_of(run.experiment, one_device())
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, state.ema)]
    assert sizes == [count, count]
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.size > 1)
    assert moments == 2 * count
    saved = sum(int(np.prod(json.loads(path.read_text())["shape"])) for path in (run.path / "checkpoints" / "8").rglob(".zarray"))
    assert 4 * count <= saved <= 4 * count + 32
    assert digest_of(load_parameters(open_run(run.path / "start"), one_device())[0]) == digest_of(load_parameters(base, one_device())[0])


@pytest.mark.parametrize("options, fields", [(LORA, {}), (EIGHT_BITS, NO_AVERAGE)], ids=["lora", "adalora_in_eight_bits"])
def test_a_killed_run_goes_on_bit_for_bit(adapted, small, base, options, fields, tmp_path, monkeypatch):
    whole = adapted(options, **fields)
    parts = start(tmp_path / "parts", dataclasses.replace(small, start=str(base.path), adapters=options, **fields))
    train_and_stop(parts.path, 3, monkeypatch)
    train(open_run(parts.path))
    assert outcome(parts) == outcome(whole)


@pytest.mark.parametrize("options, fields", [(LORA, {}), (EIGHT_BITS, NO_AVERAGE), (Houlsby(width=4), {}), (Prompt(length=3), {})])
def test_what_a_run_measures_is_what_its_parameters_give_later(adapted, options, fields):
    """Beside the base while it trains, merged into it afterwards: the same up to rounding, of activations too where they are rounded."""
    run = adapted(options, **fields)
    last = [row for row in read_metrics(run.path) if row["kind"] == "evaluation"][-1]
    assert evaluate_run(run, rows=8)["loss"] == pytest.approx(last["loss"], rel=2e-3 if options.int8 else 1e-5)
    assert last["loss"] != pytest.approx(evaluate_run(run, rows=8, step=4)["loss"], rel=1e-5)


def test_eight_devices_do_what_one_does(adapted, small, base, tmp_path):
    """Base and leaves split over devices; the mask of dropout is that of the step, wherever rows are."""
    fields = {"start": str(base.path), "adapters": LORA, "batch_size": 8, "micro_batches": 1, "steps": 2}
    found = []
    for count, mesh in ((1, ONE), (8, MeshShape(data=2, fsdp=2, tensor=2))):
        run = start(tmp_path / str(count), dataclasses.replace(small, **fields, mesh=mesh))
        train(run, devices=count)
        found.append([row for row in read_metrics(run.path) if row["kind"] in ("train", "evaluation")])
    for one, eight in zip(*found, strict=True):
        assert eight["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_ranks_are_reported(adapted):
    rows = [row for row in read_metrics(adapted(EIGHT_BITS, **NO_AVERAGE).path) if row["kind"] == "train"]
    assert rows[0]["rank"] == 2 and rows[-1]["rank"] == 1 and {"rank/attention/query", "rank/feed_forward/down"} <= rows[0].keys()
    assert all("orthogonality" in row for row in rows)


@pytest.mark.parametrize("options, kind", [(Houlsby(width=4), "OMNIA"), (LORA, "LORA")])
def test_adapters_saved_alone_come_back(adapted, base, options, kind, tmp_path):
    run = adapted(options)
    export_adapters(run, tmp_path / "alone")
    assert json.loads((tmp_path / "alone" / CONFIG).read_text())["peft_type"] == kind
    back = import_adapters(tmp_path / "alone", base, tmp_path / "back")
    expected, found = (load_trained(one, one_device())[0] for one in (run, back))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    whole, again = (load_parameters(one, one_device())[0] for one in (run, open_run(tmp_path / "back")))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), again, whole)


def test_scales_of_single_modules_are_read_by_the_ends_of_their_names(adapted, base, tmp_path):
    """As PEFT writes them: a pattern that is all of a module's name or its end, the first that fits."""
    export_adapters(adapted(LORA), tmp_path / "alone")
    config = json.loads((tmp_path / "alone" / CONFIG).read_text())
    found = []
    for number, patterns in enumerate(({}, {"mlp.c_fc": 3 * config["lora_alpha"], "c_fc": 1.0, "fc": 2.0})):
        (tmp_path / "alone" / CONFIG).write_text(json.dumps(config | {"alpha_pattern": patterns}))
        run = import_adapters(tmp_path / "alone", base, tmp_path / f"run{number}")
        whole, begun = (load_parameters(one, one_device())[0]["layers"] for one in (run, base))
        found.append(jax.tree.map(lambda a, b: a - b, whole, begun))
    plain, scaled = found
    np.testing.assert_allclose(scaled["feed_forward"]["up"]["kernel"], 3 * plain["feed_forward"]["up"]["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaled["attention"]["query"]["kernel"], plain["attention"]["query"]["kernel"], rtol=1e-4, atol=1e-6)


def test_adapters_of_another_base_are_refused(adapted, small, base, tmp_path):
    export_adapters(adapted(Houlsby(width=4)), tmp_path / "alone")
    other = adapted(LORA)  # the same shapes, other values
    with pytest.raises(UserError, match="belongs to another base"):
        import_adapters(tmp_path / "alone", other, tmp_path / "back")
    export_adapters(adapted(LORA), tmp_path / "low_rank")
    config = json.loads((tmp_path / "low_rank" / CONFIG).read_text())
    (tmp_path / "low_rank" / CONFIG).write_text(json.dumps(config | {"peft_type": "LOHA"}))
    with pytest.raises(UserError, match="LOHA, and only LORA"):
        import_adapters(tmp_path / "low_rank", base, tmp_path / "back")
    with pytest.raises(UserError, match="was trained without adapters"):
        export_adapters(base, tmp_path / "none")


def test_a_run_starts_from_merged_adapters_alone(adapted, small, tmp_path):
    """As from any other run, which keeps what these adapted too; bottlenecks have no place in a plain model."""
    source, options = adapted(LORA), LoRA(rank=1)
    begun = source.experiment
    run = start(tmp_path / "run", dataclasses.replace(small, steps=1, start=str(source.path), adapters=options))
    learner = learner_of(run, run.corpora(), one_device())
    state = fresh_state(learner, one_device(), 0, ema=False)
    jax.tree.map(np.testing.assert_array_equal, learner._frozen["base"], load_parameters(source, one_device())[0])
    assert any("LoRA trains" in said for said in learner.remarks()) and set(state.params) == {"layers"}
    assert with_new_parts(dataclasses.replace(small, start="runs/lora"), begun).adapters == small.adapters
    with pytest.raises(UserError, match="Houlsby adapters cannot be merged"):
        with_new_parts(dataclasses.replace(small, start="runs/h"), dataclasses.replace(begun, adapters=Houlsby()))


@pytest.mark.parametrize("objective, heads", [(RewardModelling(), ("value",)), (PPO(critic="shared"), ("value",)), (GRPO(), ())])
def test_heads_that_the_start_lacks_are_trained(small, objective, heads):
    begun = change(small, model={"vocab_size": 261})
    found = with_new_parts(dataclasses.replace(begun, objective=objective, start="runs/a", adapters=LoRA(trained=("final_norm",))), begun)
    assert found.adapters.trained == ("final_norm", *heads)
    assert with_new_parts(found, begun) == found


@pytest.mark.parametrize(
    "fields, what",
    [
        ({"start": ""}, "needs a model to adapt"),
        ({"frozen": ("layers",)}, "freezes all parameters"),
        ({"adapters": AdaLoRA(), "ema_decay": 0.9}, "ema_decay keeps"),
    ],
)
def test_what_does_not_go_with_adapters_is_refused(fields, what):
    with pytest.raises(UserError, match=what):
        check_adapters(dataclasses.replace(Experiment(start="runs/a", adapters=LoRA()), **fields))


def test_a_model_without_biases_has_nothing_for_bitfit(small, base):
    bare = change(small, model={"bias": False, "norm": "rmsnorm", "vocab_size": 261})
    with pytest.raises(UserError, match="nothing for BitFit"):
        state_of(dataclasses.replace(bare, adapters=BitFit()), one_device())
    biased = change(small, model={"vocab_size": 261})
    names = {
        path[-1].key
        for path, _ in jax.tree_util.tree_leaves_with_path(state_of(dataclasses.replace(biased, adapters=BitFit()), one_device()).params)
    }
    assert names == {"bias"}


def test_a_mistake_is_found_before_a_run_is_made(small, base):
    with pytest.raises(UserError, match="no projection is named quary"):
        check_frozen(change(dataclasses.replace(small, adapters=LoRA(targets=("quary",))), model={"vocab_size": 261}))


def test_what_is_trained_beside_rounded_kernels_is_not_rounded(small, base):
    options = LoRA(rank=1, int8=True, trained=("layers/attention/query",))
    experiment = dataclasses.replace(base.experiment, adapters=options, start=str(base.path))
    params = load_parameters(base, one_device())[0]
    held, fresh = base_in_eight_bits(params), nn.unbox(bind_trained(experiment).start(jax.random.key(0)))
    begun = begun_on(method_of(experiment), held, fresh, lambda line: None)["layers"]["attention"]["query"]["kernel"]
    own = params["layers"]["attention"]["query"]["kernel"]
    assert begun.shape == own.shape and np.abs(begun - own).max() < 0.01 * np.abs(own).max()


def test_a_frozen_base_is_held_in_eight_bits(adapted):
    held = frozen_of(adapted(EIGHT_BITS, **NO_AVERAGE), one_device())["base"]
    assert isinstance(held["layers"]["attention"]["query"]["kernel"], Quantized)
    assert isinstance(held["layers"]["feed_forward"]["down"]["kernel"], Quantized) and not isinstance(held["embedding"]["table"], Quantized)


CONFIG_FILE = "configs/shakespeare.py"


def test_the_command_line_chooses_a_kind_by_its_name(tmp_path, capsys):
    arguments = ["--run-dir", str(tmp_path / "run"), "--start", "runs/a"]
    command, _ = _command([CONFIG_FILE, *arguments, "--adapters", "lora", "--adapters.rank", "3", "--adapters.targets", "query"])
    assert command.experiment.adapters == LoRA(rank=3, targets=("query",))
    command, _ = _command([CONFIG_FILE, *arguments, "--adapters=AdaLoRA"])
    assert command.experiment.adapters == AdaLoRA()
    assert omnia.main(["train", CONFIG_FILE, *arguments, "--adapters", "lorra"]) == 2
    assert "no such kind (did you mean 'lora'?)" in capsys.readouterr().err
    assert omnia.main(["train", CONFIG_FILE, *arguments, "--adapters", "lora", "--adapters", "prefix"]) == 2
    assert "given twice" in capsys.readouterr().err


def test_a_run_keeps_its_kind(adapted, base):
    """The same command goes on; another kind is another run."""
    run = adapted(LORA)
    command, stored = _command([str(run.path), "--adapters", "lora", "--steps", "9"])
    assert stored is not None and command.experiment.adapters == stored.experiment.adapters
    assert omnia.main(["train", str(run.path), "--adapters", "prefix"]) == 2
