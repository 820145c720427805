"""How often the one photograph of a face that comes with a package is found, as it gets smaller, turned, darker and noisier, alone and in a
short video; how many of other people's faces are found, put into pictures; and how often something is found where no face is.

python benchmarks/anonymize_faces.py [--crops CROPS.npy] [--without PICTURES.tar.gz]
CROPS: float [N, 25, 25] from 0 to 1, the first half faces, the others none, such as lfw_subset.npy of scikit-image (100 people of Labeled
Faces in the Wild, Huang et al. 2007). PICTURES: photographs without faces. The one face is matplotlib's sample, Grace Hopper, whose place
was read off by hand.
"""

import argparse
import io
import tarfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from data.anonymize.found import Box
from data.anonymize.pictures import detect
from data.anonymize.videos import MEMORY

FACE = (180, 135, 170, 190)
"""x, y, width, height of the face in the photograph, 512 x 600."""


def photograph() -> Image.Image:
    return Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")).convert("RGB")


Case = tuple[Image.Image, tuple[float, float], float]
"""A picture, the middle of the face in it, and its width."""


def case(image: Image.Image, scale: float = 1.0, angle: float = 0.0) -> Case:
    """The photograph, scaled and then turned about its middle, by degrees against the clock."""
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    middle = np.array([FACE[0] + FACE[2] / 2, FACE[1] + FACE[3] / 2]) * scale
    centre, turn = np.array(small.size) / 2, np.deg2rad(angle)
    x, y = middle - centre
    at = centre + (x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn))
    return small.rotate(angle, Image.Resampling.BICUBIC), (float(at[0]), float(at[1])), FACE[2] * scale


def noisy(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float64)
    return Image.fromarray(np.clip(pixels + rng.normal(0, deviation, pixels.shape), 0, 255).astype(np.uint8))


def changed() -> dict[str, list[Case]]:
    image, rng = photograph(), np.random.default_rng(0)
    found = {f"face {width} pixels wide": [case(image, width / FACE[2])] for width in (120, 60, 40, 30, 24, 16)}
    found |= {f"turned by {angle} degrees": [case(image, angle=-angle), case(image, angle=angle)] for angle in (10, 20, 30, 45, 90)}
    found |= {f"light {share}": [case(ImageEnhance.Brightness(image).enhance(share))] for share in (0.5, 0.25, 0.1)}
    found |= {f"blurred by {radius} pixels": [case(image.filter(ImageFilter.GaussianBlur(radius)))] for radius in (4, 8, 16)}
    return found | {f"noise of {size} of 255": [case(noisy(image, size, rng)) for _ in range(5)] for size in (20, 40, 80)}


def faces(image: Image.Image) -> list[Box]:
    """What is covered."""
    return [hit.box for hit in detect(np.asarray(image.convert("L")), "FACE") if hit.covered]


def is_found(image: Image.Image, middle: tuple[float, float], size: float) -> bool:
    """Whether a box of about the right size has the middle of the face in it."""
    for x, y, width, height in faces(image):
        if x <= middle[0] <= x + width and y <= middle[1] <= y + height and size / 2 <= width <= 2.5 * size:
            return True
    return False


def scene(crop: np.ndarray, width: int, rng: np.random.Generator) -> Case:
    """A crop, enlarged, somewhere in a picture that is as dark as it."""
    pixels = Image.fromarray((crop * 255).astype(np.uint8)).resize((width, width), Image.Resampling.BICUBIC)
    image = Image.new("L", (320, 240), int(np.median(np.asarray(pixels))))
    x, y = (int(rng.integers(0, side - width)) for side in image.size)
    image.paste(pixels, (x, y))
    return image, (x + width / 2, y + width / 2), width


def of_others(crops: np.ndarray) -> None:
    rng, people = np.random.default_rng(0), len(crops) // 2
    for width in (25, 50, 75, 100, 150):
        found = sum(is_found(*scene(crop, width, rng)) for crop in crops[:people])
        wrong = sum(bool(faces(scene(crop, width, rng)[0])) for crop in crops[people:])
        print(
            f"other faces, {width} pixels wide: found {found} of {people}; something in {wrong} of {len(crops) - people} without",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops")
    parser.add_argument("--without")
    o = parser.parse_args()
    for what, cases in changed().items():
        print(f"{what:28} found in {sum(is_found(*one) for one in cases)} of {len(cases)}", flush=True)
    image, rng, hits = photograph(), np.random.default_rng(1), []
    for number in range(40):  # the head turns to and fro, in noise
        turned, middle, size = case(image, 0.5, 35 * float(np.sin(number / 4)))
        hits.append(is_found(noisy(turned, 30, rng), middle, size))
    near = [any(hits[max(number - MEMORY, 0) : number + MEMORY + 1]) for number in range(40)]
    print(f"video of 40 frames: found in {sum(hits)}; with {MEMORY} frames of memory covered in {sum(near)}")
    if o.crops:
        of_others(np.load(o.crops, allow_pickle=False))
    if o.without:
        count = wrong = 0
        with tarfile.open(o.without) as archive:
            for member in archive:
                if member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                    file = archive.extractfile(member)
                    assert file is not None
                    count += 1
                    wrong += bool(faces(Image.open(io.BytesIO(file.read()))))
        print(f"something found in {wrong} of {count} pictures without a known face")


if __name__ == "__main__":
    main()
