"""Policy gradients and DPO against PPO at equal samples, on random walks in a graph.

omnia reproduce policy_methods
"""

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

STEPS, RESPONSES = 16, 128
METHODS = {
    "ppo": "PPO, with a critic",
    "grpo": "GRPO, groups of 8",
    "rloo": "RLOO, leave one out",
}


def get_table() -> Table:
    samples = STEPS * RESPONSES
    unchanged = "--steps 1 --optimizer.learning-rate 1e-12 --evaluation.every 0"
    return Table(
        title="RLOO and GRPO against PPO and DPO",
        paper="Ahmadian et al. 2024 (RLOO), section 5",
        claim="At equal samples, RLOO, which has no critic, reaches a higher reward than PPO and than DPO.",
        metrics=(Metric("validation/score", "score", "optimality of walks", lower_is_better=False),),
        shared=(
            Shared("start", (training("configs/rl/tiny.py:walks_start"),)),
            Shared(
                "labels",
                (
                    f"omnia label {{start}} --output {{run}} --prompts {samples // 8} --samples 8 --prompt-tokens 2 --response-tokens 10"
                    " --seed {seed}",
                ),
            ),
            Shared(
                "from_labels", (training("configs/rl/tiny.py:walks_dpo", f"--start {{start}} --steps {2 * STEPS} --data.files {{labels}}"),)
            ),
        ),
        rows=(
            *(
                Row(name, what, (training(f"configs/rl/tiny.py:walks_{name}", f"--start {{start}} --steps {STEPS} --evaluation.every 0"),))
                for name, what in METHODS.items()
            ),
            Row(
                "dpo",
                "DPO on as many responses of the start, the best of 8 against the others",
                (training("configs/rl/tiny.py:walks_grpo", "--start {from_labels}", unchanged),),
            ),
        ),
        claims=(Better("rloo", "ppo"), Better("rloo", "dpo"), Better("grpo", "dpo")),
        note=f"{STEPS} steps of {RESPONSES} walks, or {samples} walks of the start, in a graph of 21 places; GRPO for comparison. PPO "
        "takes four epochs of each batch, the others one. DPO, whose rate and beta were not tuned here, loses the form of a walk.",
    )
