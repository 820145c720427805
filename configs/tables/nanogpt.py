"""nanoGPT's two settings of character-level Shakespeare, and our own block and optimizer at the smaller one's size.

omnia reproduce nanogpt
2 CPU cores; docs/tables.md has what was measured.
"""

from train.reproduce.files import SHAKESPEARE
from train.reproduce.table import CHARACTERS, Better, Metric, Row, Table, training


def get_table() -> Table:
    def row(variant: str, what: str, **others) -> Row:
        return Row(variant, what, (training(f"configs/shakespeare.py:{variant}", "--data.shards {shakespeare}"),), **others)

    return Table(
        title="nanoGPT's character Shakespeare",
        paper="Karpathy 2022, nanoGPT's README",
        claim="A GPT of 0.8 M parameters reaches 1.88 nats per character in minutes on a laptop, one of 10.6 M reaches 1.47 on a GPU.",
        metrics=(Metric("validation/loss", "validation loss", "nats per character"),),
        files=(SHAKESPEARE,),
        shared=(CHARACTERS,),
        rows=(
            row("nanogpt_cpu", "its CPU setting: 4 layers of 128, 2,000 steps of 12 x 64", paper=1.88, same_setting=True),
            row("best", "our block and Muon, the same size, 1,200 steps of 24 x 64"),
            row("fast", "the same, 360 steps of 12 x 64"),
            row(
                "nanogpt_gpu",
                "its GPU setting: 6 layers of 384, 5,000 steps of 64 x 256",
                tier="gpu",
                needs="1 GPU of 16 GB",
                paper=1.4697,
                read="best_loss",
            ),
        ),
        claims=(Better("best", "nanogpt_cpu"), Better("fast", "nanogpt_cpu")),
        note="nanoGPT evaluates random batches of the same tenth of the text, we all of it. Its GPU setting has dropout inside "
        "attention, ours has none; its number is the best of the run.",
    )
