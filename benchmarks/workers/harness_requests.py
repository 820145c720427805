"""Rounds of lm-eval's requests by one of its models, ours or its own `hf`. Started by benchmarks/race.py."""

import json
import logging
import os
import sys
import time

logging.getLogger("lm_eval").setLevel(logging.ERROR)


def main():
    shape = json.loads(sys.argv[1])
    os.environ |= {"OMNIA_DATA": shape["data"], "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    cores = len(os.sched_getaffinity(0))
    if shape["model"] == "omnia":
        from train.verbs.arguments import start_jax

        start_jax()
        from train.evaluation.harness import HarnessModel

        model = HarnessModel(f"{shape['folder']}/run", context_length=shape["context"])
    else:
        import torch
        from lm_eval.models.huggingface import HFLM

        torch.set_num_threads(cores)
        options = {"device": "cpu", "dtype": "float32", "max_length": shape["context"], "batch_size": shape["batch"]}
        model = HFLM(pretrained=shape["folder"], **options)
    requests = requests_of(shape)

    def answered():
        return {kind: getattr(model, kind)(found, disable_tqdm=True) for kind, found in requests.items()}

    answered()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        found = answered()
        seconds = time.perf_counter() - began
        count = sum(map(len, requests.values()))
        print(json.dumps({"requests_per_second": count / seconds, "count": count, "answers": found}), flush=True)


def requests_of(shape) -> dict:
    """{kind: requests} of a task, the same ones for every model."""
    from lm_eval.tasks import TaskManager

    manager, found = TaskManager(include_path=shape["tasks"], include_defaults=False), {}
    for task in manager.load([shape["task"]])["tasks"].values():
        task.set_config(key="num_fewshot", value=shape["shots"])
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests(limit=shape["limit"], rank=0, world_size=1)
        for request in task.instances:
            found.setdefault(request.request_type, []).append(request)
    return found


if __name__ == "__main__":
    main()
