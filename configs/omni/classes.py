"""Naming what is seen or heard: photographs of clothes, spoken digits, or both in one model, which writes the name of the class.

omnia train configs/omni/classes.py:clothing --run-dir runs/clothing --data.shards shards/clothing
omnia train configs/omni/classes.py:digits --run-dir runs/digits --data.shards shards/digits
omnia train configs/omni/classes.py:both --run-dir runs/both --data.shards shards/clothing shards/digits
"""

from model.encoder_config import AudioEncoder, ImageEncoder, Projection
from model.omni_config import OmniConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.omni.experiment import MediaLM, MediaShards


def get_config(arg: str = "both") -> Experiment:
    image = ImageEncoder(patch=16, rows=6, columns=6, num_layers=4, embed_dim=128, num_heads=4, projector=Projection(shuffle=2))
    audio = AudioEncoder(times=60, num_layers=3, embed_dim=128, num_heads=4, projector=Projection(shuffle=2))
    encoders = {"clothing": (image,), "digits": (audio,), "both": (image, audio)}
    if arg not in encoders:
        raise ValueError(f"no variant {arg!r}; choose clothing, digits or both")
    return Experiment(
        name=f"classes, {arg}",
        steps={"clothing": 2000, "digits": 600, "both": 2600}[arg],
        batch_size=16,
        model=OmniConfig(
            context_length=96,
            num_layers=2,
            embed_dim=128,
            num_heads=4,
            norm="rmsnorm",
            bias=False,
            positions="rotary",
            encoders=encoders[arg],
        ),
        data=MediaShards(images=2, recordings=2, augment=True, weights=(3.0, 1.0) if arg == "both" else ()),
        objective=MediaLM(),
        optimizer=AdamW(learning_rate=1e-3),
        schedule=Schedule(warmup_steps=100),
        evaluation=Evaluation(every=200),
        checkpoints=Checkpoints(every=200),
        samples=Samples(tokens=12, temperature=0.0),
        logging=Logging(every=20),
    )
