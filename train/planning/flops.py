"""FLOPs a model needs and peak FLOP/s of devices; their quotient is the utilisation, MFU (Chowdhery et al. 2022, appendix B)."""

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


# Dense peak of matrix products in bfloat16 (float16 where a device lacks it) with float32 sums, in FLOP/s of what JAX calls one device.
# Recalled from the data sheets named, those of TPUs compared with JAX's own table; look a figure up there before quoting it.
# NVIDIA's data sheets often print the figure with 2:4 sparsity, twice the dense one that stands here.
PEAK_FLOPS = {
    # NVIDIA V100 data sheet (2020): 125 for SXM2, 112 for PCIe; T4 data sheet (2019): 65. Both float16.
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "Tesla V100-PCIE-16GB": 112e12,
    "Tesla V100-PCIE-32GB": 112e12,
    "Tesla T4": 65e12,
    # NVIDIA A100 data sheet (2021): 312, all forms.
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    # NVIDIA L4 data sheet (2023): 242 sparse; L40S data sheet (2023): 733 sparse.
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 366.5e12,
    # NVIDIA H100 data sheet (2024): sparse 1,979 for SXM, 1,671 for NVL; its first edition (2022): 1,513 for PCIe.
    "NVIDIA H100 80GB HBM3": 989.5e12,
    "NVIDIA H100 NVL": 835.5e12,
    "NVIDIA H100 PCIe": 756.5e12,
    # NVIDIA H200 data sheet (2024): sparse 1,979 for SXM, 1,671 for NVL; GH200 data sheet (2024): 1,979.
    "NVIDIA H200": 989.5e12,
    "NVIDIA H200 NVL": 835.5e12,
    "NVIDIA GH200 480GB": 989.5e12,
    # NVIDIA HGX B200 data sheet (2024): 36 PFLOP/s sparse of 8 GPUs; GB200 NVL72 data sheet (2024): 360 of 72.
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    # Google Cloud, "TPU system architecture": v2 45, v3 123, v4 275, v5e 197, v5p 459, v6e 918, TPU7x 2,307 a chip.
    # The two cores of a v2, v3 or TPU7x chip are two devices.
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Peak FLOP/s of one device, by the exact spelling of `jax.Device.device_kind`; None when unknown, as a slice of a GPU (MIG) is."""
    return PEAK_FLOPS.get(device_kind)
