"""Knowledge tracing: what students know, and what they should practise next.

omnia train configs/apps/practice.py --data.files answers.jsonl --data.skill skills --data.any-order
One minute on two cores for 364,000 answers of 3,035 students (ASSISTments 2009, sorted by skill, which `--data.any-order` is for; their
column is `skills`): AUC 0.851 on answers of other students. Files that are in order, with a column `skill`, need neither option. Then
omnia apply RUN --input students.jsonl --output next.jsonl
"""

from model import ModelConfig
from train import AdamW, Checkpoints, Evaluation, Experiment, Logging, NextAnswer, Practice, Samples, Schedule


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="practice",
        steps=1500,
        batch_size=32,
        model=ModelConfig(
            context_length=128, num_layers=1, embed_dim=64, num_heads=4, mlp_dim=128, positions="rotary", dropout=0.1, bias=False
        ),
        data=Practice(),
        objective=NextAnswer(),
        optimizer=AdamW(learning_rate=3e-3, weight_decay=0.1),
        schedule=Schedule(warmup_steps=50, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=300),
        checkpoints=Checkpoints(every=0),
        samples=Samples(tokens=0),
        logging=Logging(every=50),
    )
