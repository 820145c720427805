"""Every test sees eight pretended CPU devices, so that each mesh of the code runs in it."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Before anything imports JAX, which reads them once.
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS") or "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # On two loaded cores the eight pretended devices can reach a collective minutes apart; the default gives up after 40 s.
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        "--xla_backend_optimization_level=0",
        # They take half of the time of compiling. Later versions know no such flag, and end at one they do not know.
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
    ]
).strip()

import jax
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("same", derandomize=True, suppress_health_check=[HealthCheck.too_slow])  # of a machine that is busy
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))  # HYPOTHESIS_PROFILE=default draws new examples

SLOW = frozenset(line for line in Path(__file__).with_name("slow.txt").read_text().splitlines() if not line.startswith("#"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what slow.txt lists, before tests are chosen by their marks."""
    for item in items:
        if item.nodeid in SLOW:
            item.add_marker(pytest.mark.slow)


MOST_MAPPINGS = 40_000
"""Of memory, by a process. Linux allows 65,530; each compiled program has several, and LLVM crashes where it gets none."""


@pytest.fixture(scope="module", autouse=True)
def few_mappings():
    """Forget compiled programs between files before there are too many."""
    yield
    held = Path("/proc/self/maps")
    if held.exists() and held.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()
