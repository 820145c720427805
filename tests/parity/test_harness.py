"""lm-eval's requests on SmolLM2, by our model and by lm-eval's own for transformers with the exported files.

Skipped without the packages, where the model has not been fetched (`omnia import smollm2 --run-dir DIR`), and where OMNIA_DATA names no
folder with the data sets of configs/harness.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from data.files import storage
from train.bridge.exporting import export_model
from train.bridge.importing import import_model
from train.bridge.packages import PACKAGES

pytestmark = pytest.mark.slow

CONTEXT = 512
TASKS = {"local_openbookqa": (5, 3), "local_trec": (8, 0), "local_dialogsum": (3, 0), "local_wikitext2": (1, 0)}
"""Examples of each, and solved ones in a prompt."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Ours, and lm-eval's own, of the same parameters."""
    for package in ("torch", "transformers", "lm_eval"):
        pytest.importorskip(package, reason=f"{package} is missing; `make parity` installs it")
    root = storage.cache_folder()
    file = Path(root or "", "models", "smollm2", PACKAGES["smollm2"].inside)
    if root is None or not file.exists():
        pytest.skip("smollm2 has not been fetched: omnia import smollm2 --run-dir DIR")
    if not os.environ.get("OMNIA_DATA"):
        pytest.skip("OMNIA_DATA names no folder of data sets")
    from lm_eval.models.huggingface import HFLM

    from train.evaluation.harness import HarnessModel

    folder = tmp_path_factory.mktemp("smollm2")
    run = import_model(file, folder / "run", said=lambda line: None)
    export_model(run, "hf", folder / "hf", "f32")
    theirs = HFLM(pretrained=str(folder / "hf"), device="cpu", dtype="float32", max_length=CONTEXT, batch_size=1)
    return HarnessModel(str(folder / "run"), context_length=CONTEXT), theirs


def requests_of(name: str) -> dict[str, list]:
    """{kind: requests} of a task."""
    from lm_eval.tasks import TaskManager

    from train.evaluation.harness import TASKS as FOLDER

    manager, found = TaskManager(include_path=str(FOLDER), include_defaults=False), {}
    limit, shots = TASKS.get(name, (4, 0))
    for task in manager.load([name])["tasks"].values():
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests(limit=limit, rank=0, world_size=1)
        for request in task.instances:
            found.setdefault(request.request_type, []).append(request)
    return found


@pytest.mark.parametrize("name", TASKS)
def test_every_request_is_as_likely_as_in_transformers(models, name):
    """To 1e-4 nats, or 1e-5 of the sum of a long text: float32 adds in another order. Greedy where it is so there."""
    for kind, requests in requests_of(name).items():
        ours, theirs = (getattr(model, kind)(requests, disable_tqdm=True) for model in models)
        if kind == "loglikelihood":
            assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
            ours, theirs = [log_prob for log_prob, _ in ours], [log_prob for log_prob, _ in theirs]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_what_is_written_is_that_of_transformers(models):
    requests = requests_of("local_xquad_en")["generate_until"]
    ours, theirs = (model.generate_until(requests, disable_tqdm=True) for model in models)
    assert ours == theirs
