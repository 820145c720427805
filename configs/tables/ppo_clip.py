"""PPO's surrogate objectives on random walks in a graph: clipped, not clipped, and with a KL penalty instead.

omnia reproduce ppo_clip
"""

from train.reproduce.table import Better, Metric, Row, Shared, Table, training

NO_CLIP = "--objective.clip-low 100 --objective.clip-high 100 --objective.ratio-limit 1e9"
VARIANTS = {
    "clip_0.1": ("clipped at 0.1", "--objective.clip-low 0.1 --objective.clip-high 0.1"),
    "clip_0.2": ("clipped at 0.2", "--objective.clip-low 0.2 --objective.clip-high 0.2"),
    "clip_0.3": ("clipped at 0.3", "--objective.clip-low 0.3 --objective.clip-high 0.3"),
    "no_clip": ("neither clipped nor penalised", NO_CLIP),
    "kl_penalty": ("not clipped, a nat of KL to the start costs 0.1", f"{NO_CLIP} --objective.kl-coefficient 0.1"),
}


def get_table() -> Table:
    options = "--start {start} --steps 40 --evaluation.every 0 --objective.epochs 8"
    return Table(
        title="PPO: clipping against none",
        paper="Schulman et al. 2017 (PPO), table 1",
        claim="With several epochs on each batch, the clipped objective learns more than the unclipped one and than a fixed KL penalty.",
        metrics=(Metric("validation/score", "score", "optimality of walks", lower_is_better=False), Metric("validation/kl", "KL", "nats")),
        shared=(Shared("start", (training("configs/rl/tiny.py:walks_start"),)),),
        rows=tuple(
            Row(name, what, (training("configs/rl/tiny.py:walks_ppo", options, changed),)) for name, (what, changed) in VARIANTS.items()
        ),
        claims=(Better("clip_0.2", "no_clip"), Better("clip_0.2", "kl_penalty")),
        note="40 steps of 128 walks, 8 epochs each. The paper's tasks are MuJoCo's, and its penalty is to the policy before the update.",
    )
