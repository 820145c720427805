"""BERT (Devlin et al. 2019): masked language modelling and next-sentence prediction in one pass.

omnia prepare text --input FILES --output DIR --tokenizer TOKENIZER
omnia train configs/bert.py:tiny --run-dir runs/bert --data.shards DIR
    tiny    for a CPU
    base    110 million parameters, batches of 256 rows of 512 tokens, as in the paper; not run yet
"""

from model.text_encoder_config import TextEncoderConfig
from train.experiment import AdamW, Evaluation, Experiment, Schedule
from train.objectives.text.options import MaskedLM
from train.sources.pairs import SentencePairData

BERT = {"norm_position": "post", "norm_epsilon": 1e-12}


def get_config(arg: str = "tiny") -> Experiment:
    variants = {"tiny": tiny, "base": base}
    if arg not in variants:
        raise ValueError(f"no variant {arg!r}; there are {', '.join(variants)}")
    return variants[arg]()


def tiny() -> Experiment:
    return Experiment(
        name="bert_tiny",
        steps=1000,
        batch_size=32,
        model=TextEncoderConfig(context_length=128, num_layers=2, embed_dim=128, num_heads=2, dropout=0.1, **BERT),
        data=SentencePairData(),
        objective=MaskedLM(sentence_pairs=1.0),
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=100, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=250, rows=256),
    )


def base() -> Experiment:
    return Experiment(
        name="bert_base",
        steps=1_000_000,
        batch_size=256,
        model=TextEncoderConfig(context_length=512, num_layers=12, embed_dim=768, num_heads=12, dropout=0.1, **BERT),
        data=SentencePairData(),
        objective=MaskedLM(sentence_pairs=1.0),
        optimizer=AdamW(learning_rate=1e-4, weight_decay=0.01, beta2=0.999),
        schedule=Schedule(warmup_steps=10_000, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=10_000, rows=2048),
    )
