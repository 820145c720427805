"""Influence of training examples, against gradients written out, and on examples that were planted."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omnia
from tests.train.conftest import change
from tests.train.explain.conftest import letters_experiment
from tests.train.tiny_runs import start, train
from train.explain.influence import influence, trained_by
from train.kinds import Units


def test_it_is_the_sum_over_checkpoints_of_products_of_whole_gradients():
    rng = np.random.default_rng(0)
    rows, test = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(1, 4)).astype(np.float32)

    def loss(params, batch):
        return jnp.square(jnp.tanh(batch @ params["w"]) @ params["v"] - 1).sum()

    points = [
        ({"w": rng.normal(size=(4, 3)).astype(np.float32), "v": rng.normal(size=3).astype(np.float32)}, rate) for rate in (0.5, 0.1, 2.0)
    ]
    units = Units("row", 7, lambda numbers, coins: np.where((numbers >= 0)[:, None], rows[numbers], 0))
    found = influence(loss, points, test, units, np.arange(7))

    def flat(params, row):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.grad(loss)(params, row))])

    products = [[rate * np.dot(flat(params, row[None]), flat(params, test)) for row in rows] for params, rate in points]
    own = [[rate * np.square(flat(params, row[None])).sum() for row in rows] for params, rate in points]
    np.testing.assert_allclose(found.on_test, np.sum(products, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.on_self, np.sum(own, 0), rtol=1e-4)


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory):
    """A classifier of 100 texts, of which every tenth has the wrong label; the numbers of those."""
    folder = tmp_path_factory.mktemp("mislabelled")
    wrong = set(range(5, 100, 10))
    experiment = letters_experiment(folder, count=100, wrong=wrong, steps=30)
    run = start(folder / "run", change(experiment, data={"validation": 0.0}, checkpoints={"every": 10, "keep": 9}))
    train(run)
    return run, wrong


def test_wrong_labels_teach_themselves_and_a_planted_text_comes_first(mislabelled, capsys, tmp_path):
    run, wrong = mislabelled
    rows = [json.loads(line) for line in Path(run.experiment.data.files[0]).read_text().splitlines()]
    page = tmp_path / "why.html"
    asked = ["--prompt", "abcdefgx", "--training", "100", "--method", "gradient_x_input", "--output", str(page)]
    assert omnia.main(["explain", str(run.path), *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["training"]
    assert found["unit"] == "example" and found["of"] == found["read"] == 100 and found["checkpoints"] == [10, 20, 30]
    assert all(one["influence"] > 0 for one in found["helped"]) and all(one["influence"] < 0 for one in found["hurt"])
    assert len(found["helped"]) + len(found["hurt"]) == 100 and "What taught it" in page.read_text()
    for one in found["helped"]:
        assert one["text"] == rows[one["number"]]["text"] and one["where"].endswith(f"line {one['number'] + 1}")
    own = {one["number"]: one["self_influence"] for one in found["self"]}
    assert min(own.values()) > 0
    bad, good = (np.array([value for number, value in own.items() if (number in wrong) == is_wrong]) for is_wrong in (True, False))
    area = (bad[:, None] > good).mean()
    assert area > 0.9, area
    strongest = found["self"][0]
    first = trained_by(run, strongest["text"], 1, answer=strongest["label"])["helped"][0]
    assert first["number"] == strongest["number"] and first["influence"] == pytest.approx(first["self_influence"], rel=1e-3)


def test_a_document_of_a_decoder_is_taught_by_itself(tiny, tmp_path):
    plain = change(tiny, data={"shards": tiny.data.shards[1:], "weights": ()}, steps=40, micro_batches=1, ema_decay=0.0)
    shape = {"context_length": 64, "num_layers": 1, "dropout": 0.0}
    run = start(tmp_path / "run", change(plain, model=shape, checkpoints={"every": 40}, evaluation={"every": 0}))
    train(run)
    found = trained_by(run, "the cat sat on", 20, answer=" ")
    assert found["unit"] == "document" and found["of"] == found["read"] == len(found["self"]) == len(found["helped"]) + len(found["hurt"])
    planted = min(found["self"], key=lambda one: len(one["text"]))["text"]
    assert len(planted) < 60  # a whole document
    assert trained_by(run, planted, 1)["helped"][0]["text"] == planted
