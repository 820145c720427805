"""Objectives: what a step minimises, one small file each.

An objective is a frozen dataclass, its modules and options bound when it is made, with a pure call

    objective(params, batch, key, *, frozen=None, carry=None) -> terms, metrics, carry

terms: name -> Term (train/objectives/terms.py), among them `loss`, whose weight counts the tokens. What is minimised is the sum over terms
of coefficient * total / weight, both totals over the *global* batch. Weights depend on the batch and key only, never on params.
metrics: name -> Mean. key: a random key, or None for a deterministic pass (evaluation). frozen: arrays that are read but not trained.
carry: what one step hands the next.
"""
