"""A linear probe: how well a logistic regression tells labels by a run's vectors of texts (Conneau and Kiela 2018).

python -m train.evaluation.probe RUN PROBE.jsonl prints one line of JSON. A line of the file is {"text", "label", "held_out"} and, where
accuracies of several kinds of text are asked for, "kind".
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data.errors import UserError
from data.files import json_files
from train.generation.embeddings import load_embedder

PENALTY = 1e-3
"""Of the squared weights."""
STEPS = 200


def probe(run_dir: str, path: str) -> dict[str, float]:
    """{"accuracy": of held-out texts, "accuracy_KIND": of those of a kind, "texts": held out}. UserError for a file that is no probe."""
    rows = [_row(line, f"{path}: line {number}") for number, line in enumerate(Path(path).read_text().splitlines(), 1)]
    held_N = np.array([row["held_out"] for row in rows], bool)
    if held_N.all() or not held_N.any():
        raise UserError(f"{path}: no texts that are held out, or none that are not", "A probe learns from some and is measured on others.")
    names = sorted({row["label"] for row in rows})
    labels_N = np.array([names.index(row["label"]) for row in rows])
    vectors_ND = load_embedder(run_dir)([row["text"] for row in rows])
    vectors_ND = (vectors_ND - vectors_ND[~held_N].mean(0)) / (vectors_ND[~held_N].std(0) + 1e-6)
    weights = fit(vectors_ND[~held_N], labels_N[~held_N], len(names))
    right_N = (vectors_ND @ weights["w"] + weights["b"]).argmax(-1) == labels_N
    kinds = np.array([row.get("kind", "") for row in rows])
    found = {"accuracy": float(right_N[held_N].mean()), "texts": int(held_N.sum())}
    return found | {f"accuracy_{kind}": float(right_N[held_N & (kinds == kind)].mean()) for kind in sorted({*kinds[held_N]} - {""})}


def _row(line: str, where: str) -> dict:
    try:
        row = json_files.parse(line)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    if not isinstance(row.get("text"), str) or not isinstance(row.get("label"), str) or not isinstance(row.get("held_out"), bool):
        raise UserError(f"{where}: is no object with a text, a label and held_out, which is true or false")
    return row


def fit(x_ND: np.ndarray, labels_N: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """{"w": [D, classes], "b": [classes]} that minimise the mean cross-entropy and a small penalty on squared weights, by L-BFGS."""
    weights = {"w": jnp.zeros((x_ND.shape[1], classes)), "b": jnp.zeros(classes)}

    def loss(weights):
        logits = jnp.asarray(x_ND) @ weights["w"] + weights["b"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels_N).mean() + PENALTY * jnp.square(weights["w"]).sum()

    optimizer = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        weights, state = carry
        value, gradient = value_and_gradient(weights, state=state)
        updates, state = optimizer.update(gradient, state, weights, value=value, grad=gradient, value_fn=loss)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.jit(lambda: jax.lax.scan(step, (weights, optimizer.init(weights)), length=STEPS))()
    return jax.device_get(weights)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(json_files.dumps(probe(*arguments)))
    except (UserError, OSError) as error:
        print(f"omnia: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
