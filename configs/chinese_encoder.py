"""An encoder of Chinese by characters, whole words of which are masked (Cui et al. 2021): what the tasks of CLUE start from.

omnia prepare text --input FILES --output DIR --tokenizer char      (or the tokenizer.json of a Chinese BERT)
omnia train configs/chinese_encoder.py:tiny --run-dir runs/chinese --data.shards DIR --data.lexicon WORDS.txt
    tiny    for a CPU
    base    the size of BERT's base model, rows of 512 characters; not run yet

WORDS.txt has a word a line, such as jieba's dict.txt; without --data.lexicon every character is a word. Fine-tuning reads such a run with
--start.
"""

from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Evaluation, Experiment, Schedule, TextData
from train.objectives.text.options import MaskedLM

BERT = {"norm_position": "post", "norm_epsilon": 1e-12, "dropout": 0.1}


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "base": base}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="chinese_tiny",
        steps=1000,
        batch_size=32,
        model=TextEncoderConfig(context_length=128, num_layers=2, embed_dim=128, num_heads=2, **BERT),
        data=TextData(words=True),
        objective=MaskedLM(whole_words=True),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=100, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=250, rows=256),
    )


def base() -> Experiment:
    return Experiment(
        name="chinese_base",
        steps=1_000_000,
        batch_size=384,
        model=TextEncoderConfig(context_length=512, num_layers=12, embed_dim=768, num_heads=12, **BERT),
        data=TextData(words=True),
        objective=MaskedLM(whole_words=True),
        optimizer=AdamW(learning_rate=1e-4, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=10_000, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=10_000, rows=2048),
    )
