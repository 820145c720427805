"""Questions about pictures, answered by a model that sees them and by the same one blindfolded, also on pairs that training never showed.

omnia reproduce seeing
"""

from model.media.encoder_config import ImageEncoder
from model.media.multimodal_config import MultimodalConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.objectives.media.options import MediaLM
from train.reproduce.table import Better, Metric, Row, Shared, Table, training
from train.sources.media.options import WorldScenes


def get_config(arg: str = "seeing") -> Experiment:
    return Experiment(
        name=f"seeing, {arg}",
        steps=600,
        batch_size=32,
        model=MultimodalConfig(
            context_length=64,
            num_layers=2,
            embed_dim=64,
            num_heads=2,
            norm="rmsnorm",
            bias=False,
            positions="rotary",
            encoders=(ImageEncoder(patch=8, rows=4, columns=4, num_layers=2, embed_dim=64, num_heads=2),),
        ),
        data=WorldScenes(tasks=("image",), images=1, media_dropout=1.0 if arg == "blind" else 0.0),
        objective=MediaLM(),
        optimizer=Muon(learning_rate=0.02, adam_learning_rate=2e-3),
        schedule=Schedule(warmup_steps=20, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=256),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )


def get_table() -> Table:
    seeing, blind = ("omnia evaluate {model} --json",), ("omnia evaluate {blindfolded} --json",)
    return Table(
        title="Seeing against blind, and new combinations",
        paper="Goyal et al. 2017 (VQA v2), table 2; Johnson et al. 2017 (CLEVR), section 4.7",
        claim="A model answers better with the picture than from the question alone, and worse on combinations that it has never seen.",
        metrics=(Metric("image", "exact answers", "share", lower_is_better=False),),
        shared=(Shared("model", (training("{table}:seeing"),)), Shared("blindfolded", (training("{table}:blind"),))),
        rows=(
            Row("seeing", "with the picture", seeing),
            Row("blind", "trained and asked without it", blind, read="blind_image"),
            Row("new", "with the picture, pairs of shape and colour that training never shows", seeing, read="image/unseen"),
        ),
        claims=(Better("seeing", "blind"), Better("new", "blind"), Better("seeing", "new")),
        note="600 steps of 32 questions about the embedded world; 256 held-out scenes of each kind. The blind model is asked "
        "about the scenes of `seeing`.",
    )
