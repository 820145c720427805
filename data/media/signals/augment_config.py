"""What is changed by chance in media of training, as plain values. Imports nothing heavy."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Augment:
    """Changes of pictures, of clips (alike in all frames) and of recordings that are read; what is written stays as it is. Each at its
    neutral value, the default, is left out."""

    crop_area: tuple[float, float] = (1.0, 1.0)
    """Share of the picture that a random crop covers, at least and at most (Szegedy et al. 2015: 0.08 to 1). Clips are not cropped."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of the crop, against that of the picture."""
    flip: float = 0.0
    """Chance of left and right changing places. Wrong for text and for words such as `left` in captions."""
    brightness: float = 0.0
    """Factors are drawn from 1 - x to 1 + x."""
    contrast: float = 0.0
    """The same."""
    saturation: float = 0.0
    """The same."""
    hue: float = 0.0
    """Turns of the colour circle, from -x to x; at most 0.5."""
    randaugment: int = 0
    """Operations of RandAugment (Cubuk et al. 2020) in turn."""
    magnitude: float = 9.0
    """Of RandAugment's operations, 0 to 10."""
    cutout: float = 0.0
    """Side of a grey square (DeVries and Taylor 2017), as a share of the shorter side."""
    time_jitter: float = 0.0
    """Share of the time between two frames of a clip by which each is moved, 0 to 1."""
    noise: tuple[float, ...] = ()
    """Lowest and highest signal-to-noise ratio of white noise in recordings, in decibels; such as 10 30."""
    noise_chance: float = 0.5
    """Share of recordings that get it. Beside silence a spectrogram of noise is another world: a model that only heard noise is lost in the
    clean recordings that it is evaluated on."""
    time_masks: int = 0
    """Stretches of a spectrogram that are hidden (SpecAugment, Park et al. 2019, without its warping)."""
    time_share: float = 0.1
    """Longest of them, as a share of the recording."""
    band_masks: int = 0
    """Bands of frequency that are hidden."""
    band_share: float = 0.2
    """Widest of them, as a share of all bands."""

    def __post_init__(self):
        for name in ("flip", "brightness", "contrast", "saturation", "cutout", "time_jitter", "noise_chance", "time_share", "band_share"):
            self._check(name, 1)
        self._check("hue", 0.5)
        self._check("magnitude", 10)
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"augment.crop_area is {low} {high}; it must be a range within 0 and 1, such as 0.08 1")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(f"augment.crop_aspect is {self.crop_aspect[0]} {self.crop_aspect[1]}; it must be a range, such as 0.75 1.33")
        if self.noise and (len(self.noise) != 2 or self.noise[0] > self.noise[1]):
            raise ValueError(f"augment.noise is {' '.join(map(str, self.noise))}; it must be a range of decibels, such as 10 30")
        for name in ("randaugment", "time_masks", "band_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; it must not be negative")

    def _check(self, name: str, most: float) -> None:
        if not 0 <= getattr(self, name) <= most:
            raise ValueError(f"augment.{name} is {getattr(self, name)}; it must be from 0 to {most}")
