"""Another voice: pitch and formants move, length and loudness stay, pieces give what the whole gives, nothing else of a file is left."""

import io

import numpy as np
import pytest
import soundfile
from scipy.signal import lfilter

from data.anonymize import voices
from data.anonymize.surrogates import Key
from data.anonymize.voices import Voice, changed_voice, disguise, drawn, prediction, stretch, turned
from data.media.kinds import Undecodable

KEY, RATE = Key(b"a secret of 32 bytes in all ...."), 8000


def vowel(seconds: float = 0.6, pitch: float = 120.0, formants=((700.0, 90.0), (1200.0, 110.0))) -> np.ndarray:
    """Pulses through resonances: (frequency, bandwidth) in Hz."""
    count = round(seconds * RATE)
    sound = (np.floor(np.arange(count) * pitch / RATE) != np.floor((np.arange(count) - 1) * pitch / RATE)).astype(np.float64)
    for frequency, bandwidth in formants:
        pole = np.exp(-np.pi * bandwidth / RATE + 2j * np.pi * frequency / RATE)
        sound = lfilter([1.0], np.poly([pole, pole.conj()]).real, sound)
    sound = np.convolve(sound, [1, -0.95])[:count] + 1e-4 * np.random.default_rng(0).normal(size=count)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def pitch_of(samples: np.ndarray) -> float:
    """By the highest peak of the autocorrelation between 60 and 300 Hz."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    likeness = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    low, high = RATE // 300, RATE // 60
    return RATE / (low + int(likeness[low:high].argmax()))


def test_prediction_finds_the_filter_of_a_signal():
    """Against the normal equations, and against the poles that a signal was made with."""
    poles = np.array([0.95 * np.exp(0.8j), 0.9 * np.exp(1.9j)])
    filtered = lfilter([1.0], np.poly([*poles, *poles.conj()]).real, np.random.default_rng(0).normal(size=4000))
    found = prediction(filtered[None], 4)[0]
    row = np.correlate(filtered, filtered, "full")[3999:4004]
    matrix = row[np.abs(np.subtract.outer(range(4), range(4)))]
    np.testing.assert_allclose(found[1:], np.linalg.solve(matrix, -row[1:]), rtol=1e-6)
    roots = np.roots(found)
    assert all(np.abs(roots - pole).min() < 0.05 for pole in poles)


def test_a_coefficient_of_one_changes_nothing_and_another_moves_formants():
    one = vowel(formants=((700.0, 60.0),)).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(one, 160)[::800] * np.hanning(160)
    np.testing.assert_allclose(turned(frames, RATE, 1.0), frames, atol=1e-6)

    def peak(frames: np.ndarray) -> float:
        spectrum = np.abs(1 / np.fft.rfft(prediction(frames, 8), 4096)).mean(0)
        return float(np.argmax(spectrum) * RATE / 4096)

    low, before = peak(turned(frames, RATE, 0.8)), peak(frames)
    assert low == pytest.approx(before * (before / voices.CENTRE) ** -0.2, rel=0.08), "the angle's power, by the centre"


@pytest.mark.parametrize("semitones", [-4.0, 3.0])
def test_the_pitch_moves_and_length_and_loudness_stay(semitones):
    before = vowel()
    after = changed_voice(before, RATE, 0.8, semitones)
    assert len(after) == len(before) and after.dtype == np.float32 and np.abs(after).max() <= 1
    assert np.square(after).mean() == pytest.approx(np.square(before).mean(), rel=0.05)
    assert pitch_of(after) == pytest.approx(120 * 2 ** (semitones / 12), rel=0.05)
    longer = stretch(before.astype(np.float64), RATE, 1.25)
    assert len(longer) == round(1.25 * len(before)) and pitch_of(longer) == pytest.approx(120, rel=0.03)


def test_pieces_give_what_the_whole_gives(monkeypatch):
    monkeypatch.setattr(voices, "_BLOCK_S", 0.2)
    sound = vowel(1.1)
    whole = changed_voice(sound, RATE, 0.75, -3.0)
    assert len(whole) == len(sound)
    for size in (7, 1601, 20_000):
        voice = Voice(RATE, 0.75, -3.0)
        parts = [voice.feed(sound[first : first + size]) for first in range(0, len(sound), size)]
        np.testing.assert_array_equal(np.concatenate([*parts, voice.finish()]), whole)
    tone = (0.3 * np.sin(2 * np.pi * 130 * np.arange(RATE) / RATE)).astype(np.float32)
    steps = np.abs(np.diff(changed_voice(tone, RATE, 1.0, -3.0)))
    assert steps[1000:].max() < 1.5 * np.quantile(steps, 0.99), "no clicks where blocks meet"


@pytest.mark.parametrize(
    "samples", [np.zeros(0), np.zeros(5000), np.ones(3), np.full(1000, 0.5), np.random.default_rng(0).uniform(-1, 1, 999)]
)
def test_what_is_no_speech_stays_finite(samples):
    after = changed_voice(samples.astype(np.float32), RATE, 0.7, 3.5)
    assert len(after) == len(samples) and np.isfinite(after).all() and np.abs(after).max(initial=0) <= 1


@pytest.mark.parametrize("form", list(voices.SOUNDS.values()))
def test_files_keep_their_kind_and_lose_what_they_say(form):
    with io.BytesIO() as written:
        with soundfile.SoundFile(written, "w", RATE, 2, format=form) as file:
            file.title, file.artist = "Call of Zhang San", "Zhang San"
            file.write(np.stack([vowel(), vowel(pitch=150)], 1))
        content = written.getvalue()
    assert b"Zhang San" in content
    found, voice = disguise(content, form, KEY, "a")
    assert b"Zhang San" not in found and voice.seconds == (0.0, pytest.approx(0.6, abs=0.05))
    with soundfile.SoundFile(io.BytesIO(found)) as file:
        assert file.format == form and (file.samplerate, file.channels) == (RATE, 1)
        assert abs(len(file.read()) - len(vowel())) < 0.1 * RATE
    if form != "OGG":  # which has a number of its own in each file
        assert disguise(content, form, KEY, "a")[0] == found
    assert disguise(content, form, KEY, "b")[0] != found != disguise(content, form, Key(b"another secret of 32 bytes"), "a")[0]


def test_voices_are_of_key_and_name_and_damage_is_told():
    found = [drawn(KEY, f"{number}.wav") for number in range(200)]
    assert len(set(found)) == 200 and found == [drawn(Key(b"a secret of 32 bytes in all ...."), f"{number}.wav") for number in range(200)]
    coefficients, semitones = np.array(found).T
    assert voices.MCADAMS[0] <= coefficients.min() < coefficients.max() <= voices.MCADAMS[1]
    assert voices.SEMITONES[0] <= semitones.min() < semitones.max() <= voices.SEMITONES[1]
    with io.BytesIO() as written:
        soundfile.write(written, vowel(), RATE, format="FLAC")
        content = written.getvalue()
    for damaged in (b"", b"no sound", content[: len(content) // 2]):
        with pytest.raises(Undecodable, match="damaged"):
            disguise(damaged, "FLAC", KEY, "a")
