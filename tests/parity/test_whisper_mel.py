"""The log-mel spectrogram is the one that released Whisper models were trained with."""

import numpy as np
import pytest

from data.media.signals.mel import log_mel, mel_filters

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bands", [80, 128])
def test_log_mel_equals_transformers(bands):
    from transformers import WhisperFeatureExtractor

    theirs = WhisperFeatureExtractor(feature_size=bands, chunk_length=2)
    np.testing.assert_allclose(mel_filters(bands).T, theirs.mel_filters, atol=1e-8)
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * 16000).astype(np.float32) * np.linspace(0, 1, 32000).astype(np.float32)
    expected = theirs(sound, sampling_rate=16000, return_tensors="np")["input_features"][0].T
    np.testing.assert_allclose(log_mel(sound, bands), expected, atol=1e-4)
