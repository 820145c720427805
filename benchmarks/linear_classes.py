"""What a logistic regression makes of photographs in folders named by their classes: on pixels, and on histograms of oriented gradients.

The baselines of `configs/media/classes.py:vit`. Needs scikit-learn, scikit-image and Pillow, and nothing of this project:
python benchmarks/linear_classes.py TRAIN_FOLDER VALIDATION_FOLDER
Prints one JSON object: for each kind of features the accuracy on the second folder by each strength of the penalty, and the best of them,
which flatters the baseline.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths (scikit-learn's C)."""


def read(folder: str, side: int) -> tuple[np.ndarray, list[str]]:
    """float [n, side, side, 3] from 0 to 1, and the names of the classes."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    pictures = [np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)) for path in paths]
    return np.stack(pictures) / 255.0, [path.parent.name for path in paths]


def histograms(pictures: np.ndarray) -> np.ndarray:
    """9 orientations, cells of 8 x 8, blocks of 2 x 2 (Dalal and Triggs 2005)."""
    return np.stack([hog(picture, channel_axis=-1, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for picture in pictures])


def main() -> None:
    features = {"pixels": (32, lambda pictures: pictures.reshape(len(pictures), -1)), "hog": (64, histograms)}
    found = {}
    for name, (side, of) in features.items():
        (train, classes), (kept, wanted) = (read(folder, side) for folder in sys.argv[1:3])
        seen, judged = of(train), of(kept)
        by_penalty = {}
        for penalty in PENALTIES:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)).fit(seen, classes)
            by_penalty[penalty] = round(float(model.score(judged, wanted)), 4)
        found[name] = {"best": max(by_penalty.values()), "by_penalty": by_penalty, "train": len(train), "validation": len(kept)}
        print(f"{name}: {found[name]['best']:.3f}", file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
