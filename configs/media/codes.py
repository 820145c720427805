"""Codebooks for images, clips and recordings of the embedded world, which a model needs to write them (configs/media/write.py).

omnia train configs/media/codes.py:image --run-dir runs/codes-image
omnia train configs/media/codes.py:video --run-dir runs/codes-video
omnia train configs/media/codes.py:audio --run-dir runs/codes-audio
omnia prepare codes --runs runs/codes-image runs/codes-video runs/codes-audio --output tokenizers/world
1,500 steps each, 3 to 5 minutes on one busy CPU core. Of true media that are encoded and decoded, all images and recordings are
recognised again, and 0.84 of the clips.
"""

from model.media.encoder_config import AudioEncoder, ImageEncoder, VideoEncoder
from model.media.multimodal_config import MultimodalConfig
from train.experiment import AdamW, Checkpoints, Evaluation, Experiment, Logging, Samples, Schedule
from train.objectives.media.options import Codebook
from train.sources.media.options import WorldScenes

SIZES = {
    "image": ImageEncoder(patch=4, rows=8, columns=8),
    "video": VideoEncoder(frames=2, patch=6, times=4, rows=4, columns=4),
    "audio": AudioEncoder(times=48),
}
"""Only the sizes of patches and of the grid are used."""


def get_config(arg: str = "image") -> Experiment:
    if arg not in SIZES:
        raise ValueError(f"no variant {arg!r}; choose {', '.join(SIZES)}")
    return Experiment(
        name=f"codes of {arg}",
        steps=1500,
        batch_size=32,
        model=MultimodalConfig(context_length=128, num_layers=1, embed_dim=32, num_heads=1, encoders=(SIZES[arg],)),
        data=WorldScenes(tasks=(arg,)),
        objective=Codebook(medium=arg, codes=512),
        optimizer=AdamW(learning_rate=2e-3, weight_decay=0.0),
        schedule=Schedule(warmup_steps=50, final_fraction=0.0),
        evaluation=Evaluation(every=500, rows=32),
        checkpoints=Checkpoints(every=500),
        samples=Samples(tokens=0),
        logging=Logging(every=50),
    )
