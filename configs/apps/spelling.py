"""Chinese sentences with misspelled characters become right ones; texts come back with their edits, each as sure as it is likely.

omnia prepare text --input alphabet.jsonl --output runs/characters --tokenizer char
omnia train configs/apps/spelling.py --run-dir runs/speller --data.tokenizer runs/characters --data.files pairs.jsonl right.jsonl
omnia apply runs/speller --input texts.jsonl --output corrected.jsonl
Columns of pairs: source and target, of as many characters; right.jsonl has plain sentences as target alone, which are misspelled as they
are learned from; alphabet.jsonl has both as text. What train shows is the encoder alone; apply has far better answers.
Of 955 sentences of learners (SIGHAN 2015), with 242 pairs and 1,158 right sentences held out by --data.validation-files and 172,500 right
ones learned from (table spelling): F1 of corrected sentences 0.406 where 8.0 % of the right ones are changed, 0.413 at 10.2 % with all
edits. Three seeds, of 11 minutes each on one core beside other jobs; 1.9 million characters are read.
"""

from model.text_encoder_config import TextEncoderConfig
from train import AdamW, Checkpoints, Evaluation, Experiment, Samples, Schedule, Spelling, Supervised
from train.apps.editing.sounds import SYLLABLES

STEPS = 1000


def get_config(arg: str = "") -> Experiment:
    model = TextEncoderConfig(
        context_length=128,
        num_layers=3,
        embed_dim=192,
        num_heads=3,
        norm="rmsnorm",
        positions="rotary",
        dropout=0.0,
        token_types=SYLLABLES,  # a vector of each sound
        pooler=False,
        prediction_head=False,
    )
    return Experiment(
        name="spelling",
        steps=STEPS,
        batch_size=64,
        model=model,
        data=Spelling(),
        objective=Supervised(head_dropout=0.0),
        optimizer=AdamW(learning_rate=2.5e-3, weight_decay=0.01),
        schedule=Schedule(warmup_steps=60, decay="linear", final_fraction=0.0),
        evaluation=Evaluation(every=0),
        checkpoints=Checkpoints(every=250),
        samples=Samples(tokens=0),
    )
