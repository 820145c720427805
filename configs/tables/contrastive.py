"""CLIP's loss and SigLIP's at several batch sizes, on pictures of coloured shapes and their descriptions.

omnia reproduce contrastive
"""

from model.media.encoder_config import ImageEncoder
from model.media.multimodal_config import MultimodalConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.objectives.media.options import Alignment
from train.reproduce.table import Better, Metric, Row, Table, training
from train.sources.media.options import WorldScenes

BATCHES, SAMPLES = (8, 32), 2400
LOSSES = {"softmax": "CLIP's softmax", "sigmoid": "SigLIP's sigmoid"}


def get_config(arg: str = "sigmoid_8") -> Experiment:
    loss, _, batch = arg.partition("_")
    return Experiment(
        name=f"contrastive, {arg}",
        steps=SAMPLES // int(batch),
        batch_size=int(batch),
        model=MultimodalConfig(
            context_length=128,
            num_layers=2,
            embed_dim=64,
            num_heads=2,
            norm="rmsnorm",
            bias=False,
            positions="rotary",
            encoders=(ImageEncoder(patch=8, rows=4, columns=4, num_layers=2, embed_dim=64, num_heads=2),),
        ),
        data=WorldScenes(tasks=("caption",), images=1),
        objective=Alignment(loss=loss),
        optimizer=Muon(learning_rate=0.02, adam_learning_rate=2e-3),
        schedule=Schedule(warmup_steps=10, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=256),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    return Table(
        title="CLIP and SigLIP: loss and batch size",
        paper="Zhai et al. 2023 (SigLIP), figure 2; Radford et al. 2021 (CLIP)",
        claim="At small batches the sigmoid loss is better than the softmax.",
        metrics=(Metric("validation/right_recall@1", "recall@1, image to text", lower_is_better=False),),
        rows=tuple(
            Row(f"{loss}_{batch}", f"{what}, batches of {batch}", (training(f"{{table}}:{loss}_{batch}"),), x=batch, series=what)
            for loss, what in LOSSES.items()
            for batch in BATCHES
        ),
        claims=(
            Better("sigmoid_8", "softmax_8"),
            Better("sigmoid_32", "softmax_32"),
        ),
        x="pairs of a batch",
        note=f"{SAMPLES} pictures of the embedded world in all; recall among 256 held-out pairs, where equal descriptions count as wrong.",
    )
