"""Chinese verse in the forms of its tunes: shape, tones and rhymes are kept by how characters are drawn.

omnia prepare text --input poems.txt --output shards --tokenizer char
omnia train configs/apps/verse.py --run-dir runs/poet --data.files poems.jsonl --data.tokenizer shards
omnia apply runs/poet --text 浣溪沙
Columns: form, the name of the tune, title, and lines, a list. poems.txt has all their characters. Five minutes on two cores for 2,884
poems: 6.93 bits a character or mark of others (table verse).
"""

from model.config import ModelConfig
from model.presets import MODERN
from train import Evaluation, Experiment, Muon, Samples, Schedule, Supervised, Verse


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="verse",
        steps=400,
        batch_size=48,
        model=ModelConfig(context_length=320, num_layers=2, embed_dim=192, num_heads=4, dropout=0.2, **MODERN),
        data=Verse(),
        objective=Supervised(),
        optimizer=Muon(weight_decay=0.1),
        schedule=Schedule(warmup_steps=30, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        samples=Samples(tokens=0),
    )
