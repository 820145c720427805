"""The log-mel spectrogram against its definition, written out slowly, and its filters by what they are for."""

import math
import os
import time

import numpy as np
import pytest

from data.media.signals.augment import colour_jitter, generator
from data.media.signals.mel import log_mel, mel_filters, sound_of


def slow_log_mel(samples, bands):
    """A frame at a time, by a matrix of sines and cosines instead of a fast transform."""
    mirrored = np.concatenate([samples[200:0:-1], samples, samples[-2:-202:-1]])
    n, k = np.arange(400), np.arange(201)[:, None]
    cosine, sine = np.cos(2 * math.pi * k * n / 400), np.sin(2 * math.pi * k * n / 400)
    hann = np.sin(math.pi * n / 400) ** 2
    rows = []
    for frame in range(len(samples) // 160):
        x = mirrored[160 * frame : 160 * frame + 400] * hann
        power = (cosine @ x) ** 2 + (sine @ x) ** 2
        rows.append(np.log10(np.maximum(mel_filters(bands) @ power, 1e-10)))
    table = np.array(rows)
    return (np.maximum(table, table.max() - 8) + 4) / 4


@pytest.mark.parametrize("samples, bands", [(1600, 80), (1999, 40), (401, 80)])
def test_it_equals_a_slow_transform(samples, bands):
    sound = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    found = log_mel(sound, bands)
    assert found.dtype == np.float32 and found.shape == (samples // 160, bands)
    np.testing.assert_allclose(found, slow_log_mel(sound.astype(float), bands), atol=1e-5)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is but one core to take")
def test_one_core_does_the_work_of_processes_that_decode():
    """No other thread computes: not for a spectrogram, nor for the colours of a clip."""
    sound = np.random.default_rng(0).normal(0, 0.1, 480_000).astype(np.float32)
    clip = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    time.sleep(0.2)  # threads of others' products of matrices wait for a while before they sleep
    everyone, mine = time.process_time(), time.thread_time()
    for number in range(8):
        log_mel(sound)
        colour_jitter(clip, generator(0, number, 0))
    assert time.process_time() - everyone < 1.3 * (time.thread_time() - mine)


def mels(hertz):
    """3 mels for each 200 Hz up to 1 kHz; from there, 27 for each factor of 6.4."""
    return np.where(hertz < 1000, hertz * 0.015, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / math.log(6.4))


def test_filters_are_triangles_that_hand_over_to_one_another_and_have_an_area_of_one():
    hertz, frequencies = np.linspace(0, 8000, 800_001), np.arange(201) * 40.0
    corners = np.interp(np.linspace(0, mels(8000.0), 82), mels(hertz), hertz)
    triangles = mel_filters(80) * ((corners[2:] - corners[:-2]) / 2)[:, None]  # of height one
    assert triangles.shape == (80, 201) and (triangles >= 0).all() and triangles.max() <= 1.0
    inside = (frequencies >= corners[1]) & (frequencies <= corners[-2])
    np.testing.assert_allclose(triangles.sum(0)[inside], 1.0, atol=1e-4)
    for row, left, right in zip(triangles, corners[:-2], corners[2:], strict=True):
        assert (row[(frequencies <= left - 0.1) | (frequencies >= right + 0.1)] == 0).all()


@pytest.mark.parametrize("pitch", [500.0, 1500.0, 4000.0])
def test_a_tone_lights_the_band_of_its_pitch(pitch):
    """The loudest band is the one whose triangle is highest there."""
    tone = 0.5 * np.sin(2 * math.pi * pitch * np.arange(8000) / 16000)
    bands = log_mel(tone)[10:-10].mean(0)
    assert abs(bands.argmax() - (mels(pitch) / mels(8000.0) * 81 - 1)) <= 1.0


def test_silence_and_very_short_sounds():
    assert (log_mel(np.zeros(1600, np.float32)) == -1.5).all()
    assert log_mel(np.zeros(0)).shape == log_mel(np.ones(159)).shape == (0, 80)
    assert log_mel(np.ones(160)).shape == (1, 80)


def test_values_lie_within_an_interval_of_two_and_follow_loudness():
    sound = np.random.default_rng(0).normal(size=4000) * np.linspace(0, 1, 4000) ** 8
    found = log_mel(sound)
    assert np.ptp(found) <= 2.0 + 1e-6
    np.testing.assert_allclose(log_mel(10 * sound) - found, 2 / 4, atol=1e-5)  # a hundred times the power


def test_a_sound_is_found_again_from_its_spectrogram():
    """Its own spectrogram is near the one given: much nearer than that of noise, and with its peaks in the same bands."""
    time = np.arange(8000) / 16_000
    sound = (0.4 * np.sin(2 * np.pi * 440 * time) * (time < 0.3) + 0.2 * np.sin(2 * np.pi * 1500 * time) * (time > 0.2)).astype(np.float32)
    wanted = log_mel(sound)
    found = sound_of(wanted)
    assert found.shape == (8000,) and found.dtype == np.float32 and np.abs(found).max() <= 0.5
    again = log_mel(found)
    loud = wanted > wanted.max() - 1.0
    assert np.abs(again - wanted)[loud].mean() < 0.1
    noise = log_mel(np.random.default_rng(0).normal(0, 0.1, 8000))
    assert np.abs(again - wanted)[loud].mean() < 0.25 * np.abs(noise - wanted)[loud].mean()
    np.testing.assert_array_equal(again[5:25].argmax(1), wanted[5:25].argmax(1))
    assert sound_of(np.zeros((0, 80))).shape == (0,)
