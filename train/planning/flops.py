"""Peak FLOP/s of devices; what a model needs over them is the utilisation, MFU (Chowdhery et al. 2022, appendix B)."""

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
