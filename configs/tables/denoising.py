"""T5's rates of corruption and its rivals, each pretrained as long, then tuned to go on with texts.

omnia reproduce denoising
"""

import dataclasses

from model.encoder_decoder_config import EncoderDecoderConfig
from train.experiment import Checkpoints, Evaluation, Experiment, Muon, Samples, Schedule
from train.objectives.text.options import AutoEncoding, PrefixLM, SpanDenoising
from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, Better, Metric, Row, Shared, Table, training

PRETRAINING = {
    "rate_15": (SpanDenoising(rate=0.15), "15 % of the characters are noise"),
    "rate_50": (SpanDenoising(rate=0.50), "50 %"),
    "bart": (AutoEncoding(), "BART: the whole text from a corrupted one"),
}
BLOCK = {"norm": "rmsnorm", "bias": False, "positions": "relative", "tied_embeddings": False}


def get_config(arg: str = "rate_15") -> Experiment:
    tuned = Experiment(
        name=f"denoising, {arg}",
        steps=100,
        batch_size=24,
        model=EncoderDecoderConfig(context_length=64, num_layers=2, embed_dim=64, num_heads=4, **BLOCK),
        objective=PrefixLM(),
        optimizer=Muon(),
        schedule=Schedule(warmup_steps=10, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0, rows=512),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
    )
    return tuned if arg == "tuned" else dataclasses.replace(tuned, steps=300, objective=PRETRAINING[arg][0])


def get_table() -> Table:
    def tuned(*options: str) -> str:
        return training("{table}:tuned", "--data.shards {shakespeare}", *options)

    return Table(
        title="T5's corruption rates and BART",
        paper="Raffel et al. 2020 (T5), tables 1 and 6; Lewis et al. 2020 (BART)",
        claim="Pretraining by denoising helps what is learned after it; a rate of 15 % does more than one of 50 %.",
        metrics=(Metric("validation/loss", "loss after tuning", "nats per character"),),
        files=(SHAKESPEARE,),
        shared=(
            CHARACTERS,
            *(Shared(f"pretrained_{name}", (training(f"{{table}}:{name}", "--data.shards {shakespeare}"),)) for name in PRETRAINING),
        ),
        rows=(
            Row("none", "no pretraining", (tuned(),)),
            *(Row(name, what, (tuned(f"--start {{pretrained_{name}}}"),)) for name, (_, what) in PRETRAINING.items()),
        ),
        claims=(
            Better("rate_15", "none"),
            Better("bart", "none"),
            Better("rate_50", "none"),
            Better("rate_15", "rate_50"),
        ),
        note="2 layers of 64 on each side, 300 steps of 24 x 64 characters, then 100 steps of continuing texts. The loss is that of the "
        "continuations.",
    )
