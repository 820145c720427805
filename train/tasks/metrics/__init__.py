"""Metrics, one file a sort: pure functions of lists, without JAX. The field's own libraries compute them (extra: metrics)."""
