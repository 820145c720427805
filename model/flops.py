"""FLOPs that a decoder needs."""

from model.config import ModelConfig


def forward_flops_per_token(config: ModelConfig, length: int, *, causal: bool = True) -> float:
    """FLOPs of one forward pass over a row of `length` tokens, divided by `length`; a multiply-add counts as two.

    With the letters of model/__init__.py, per token:

        layers * (2 D K (2 H + 2 G)      query, out, key and value projections
                  + 4 H K * pairs        products of queries with keys, and of weights with values
                  + 2 D F * (3 if gated else 2)   of each expert that a token goes through, and 2 D experts for their router)
        + 2 D V                          predictions

    where pairs is the mean number of keys a query sees: (length + 1) / 2 under the causal mask, since length * (length + 1) / 2 pairs
    exist, and less in a layer with a window. causal=False counts the full square, pairs = length (or the window), as PaLM, nanoGPT
    and most published MFU figures do. Looking up embeddings, norms, activations and the softmax are not counted; a row of several
    packed documents is counted as one.
    """
    c = config

    def pairs(window: int | None) -> float:
        """Keys a query sees on average: the first `seen` queries see 1, 2, ... keys, the others `seen`."""
        seen = min(length, window or length)
        return (seen * (seen + 1) / 2 + (length - seen) * seen) / length if causal else seen

    projections = 2 * c.embed_dim * c.head_width * (2 * c.num_heads + 2 * c.kv_heads)
    attention = 4 * c.num_heads * c.head_width * sum(pairs(c.layer_window(layer)) for layer in range(c.num_layers))
    feed_forward = 2 * c.embed_dim * c.mlp_width * (3 if c.gated else 2)
    if c.experts:
        feed_forward = c.experts_per_token * feed_forward + 2 * c.embed_dim * c.experts
    return c.num_layers * (projections + feed_forward) + attention + 2 * c.embed_dim * c.vocab_size


def training_flops_per_token(config: ModelConfig, length: int, *, causal: bool = True) -> float:
    """FLOPs per token of one training step: three forward passes, as each product has two in its gradient.

    What is computed twice to save memory (remat, the chunked vocabulary pass) counts once, and the optimizer does not.
    """
    return 3 * forward_flops_per_token(config, length, causal=causal)
