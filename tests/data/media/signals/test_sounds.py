import functools

import numpy as np
import pytest

from data.media.kinds import Undecodable
from data.media.signals import sounds
from data.media.signals.probing import examine, probe
from data.media.signals.sounds import decode_audio
from tests.data.media.media_files import (
    aac_file,
    audio_file,
    image_file,
    sound_file,
    sound_frames,
    tone,
)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AAC"])
def test_a_tone_comes_back_at_the_rate_asked_for(form):
    content = aac_file() if form == "AAC" else audio_file(form=form)
    facts = probe("audio", content)
    assert facts.rate == 16_000
    assert abs(facts.samples - 8000) <= {"AAC": 2048, "MP3": 1152}.get(form, 0)
    assert examine("audio", content).facts == facts
    heard = decode_audio(content, 8000)
    assert heard.dtype == np.float32 and len(heard) == -(-facts.samples // 2)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert spectrum.argmax() * 8000 / len(heard) == pytest.approx(440, abs=4)


def test_channels_become_their_mean():
    samples = tone(channels=2)
    np.testing.assert_allclose(decode_audio(audio_file(samples, subtype="FLOAT"), 16_000), samples.mean(1), atol=1e-6)


def test_windows_are_cut_in_seconds():
    samples = np.linspace(-1, 1, 16_000, dtype=np.float32)[:, None]
    content = audio_file(samples, subtype="FLOAT")
    np.testing.assert_allclose(decode_audio(content, 16_000, 0.25, 0.5), samples[4000:12_000, 0])
    assert len(decode_audio(content, 16_000, 0.75, 0.5)) == 4000
    assert len(decode_audio(content, 16_000, 2.0, 0.5)) == 0
    assert len(decode_audio(content, 8000, 0.25, 0.5)) == 4000
    whole = decode_audio(aac_file(), 16_000)
    assert (decode_audio(aac_file(), 16_000, 0.1, 0.2) == whole[1600:4800]).all()


def test_silence_is_told_and_nothing_is_undecodable():
    silent = audio_file(np.zeros((100, 1), np.float32))
    assert examine("audio", silent).remarks == ("silent",)
    assert (decode_audio(silent, 16_000) == 0).all()
    broken = audio_file(np.full((100, 1), np.nan, np.float32), subtype="FLOAT")
    for content in (b"", b"hello" * 100, image_file(), audio_file(np.zeros((0, 1), np.float32)), broken, audio_file(form="FLAC")[:60]):
        for call in (lambda content: decode_audio(content, 8000), lambda content: examine("audio", content)):
            with pytest.raises(Undecodable):
                call(content)
    with pytest.raises(Undecodable):
        examine("audio", audio_file(tone(2.0), form="FLAC")[:9000])


def test_loud_samples_are_clipped():
    assert np.abs(decode_audio(audio_file(4 * tone(), subtype="FLOAT"), 16_000)).max() == 1


def test_a_recording_too_long_for_memory_is_undecodable(monkeypatch):
    monkeypatch.setattr(sounds, "MAX_SAMPLES", 10_000)
    assert len(decode_audio(audio_file(), 16_000)) == 8000
    with pytest.raises(Undecodable, match="too long"):
        decode_audio(audio_file(), 32_000)
    assert len(decode_audio(audio_file(), 32_000, 0.1, 0.2)) == 6400


# ----------------------------------------------------------------------------------------------- how long a recording really is


def mp3_file(samples, xing: bool = True, **options) -> bytes:
    return sound_file(samples, 16_000, "mp3", "libmp3lame", container_options={"write_xing": str(int(xing))}, **options)


def quiet_and_loud() -> np.ndarray:
    """What a length cannot be guessed of by the size of the first packets, where those are of many sizes."""
    return np.concatenate([np.zeros((24_000, 1), np.float32), tone(0.5)])


def in_header(content: bytes, place: int, value: int, size: int = 4) -> bytes:
    return content[:place] + value.to_bytes(size, "little") + content[place + size :]


@functools.cache
def lengths_that_headers_tell_wrong() -> dict[str, tuple[bytes, np.ndarray]]:
    """Files, and the samples that are in them."""
    samples = np.round(tone(1.0) * 32768) / 32768  # which 16 bits hold
    wav, flac, ogg = (audio_file(samples, form=form) for form in ("WAV", "FLAC", "OGG"))
    size = wav.index(b"data") + 4
    found = {f"WAV of {told:,} bytes": (in_header(wav, size, told), samples) for told in (0, 10**9, 0x7FFFFFFF, 0xFFFFFFFF)}
    found["WAV that breaks off"] = (wav[:20_044], samples[:10_000])
    unknown = flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]
    found["FLAC of no samples"] = (unknown, samples)
    for name, content in {
        "MP3": mp3_file(samples),
        "MP3 of several rates, without Xing": mp3_file(quiet_and_loud(), xing=False, q="4"),
        "MP3 without Xing": mp3_file(samples, xing=False),
        "MP3 without Xing that breaks off": mp3_file(samples, xing=False)[:3000],
        "MP3 without Xing that begins anywhere": mp3_file(samples, xing=False)[1000:],
        "Ogg behind Ogg": ogg + audio_file(tone(0.3), form="OGG"),
        "Opus in Matroska": sound_file(tone(1.0, 48_000), 48_000, "matroska", "libopus"),
        "AAC behind an edit list": aac_file(1.0),
        "AAC without a container": sound_file(tone(1.0), 16_000, "adts"),
    }.items():
        found[name] = content, sound_frames(content)[:, None]
    return found


@pytest.mark.parametrize("name", lengths_that_headers_tell_wrong())
def test_a_recording_is_as_long_as_it_decodes(name):
    """By a look at the header, at all of it, and by its samples."""
    content, samples = lengths_that_headers_tell_wrong()[name]
    facts = probe("audio", content)
    assert facts.samples == len(samples) and examine("audio", content).facts == facts
    heard = decode_audio(content, int(facts.rate))
    np.testing.assert_allclose(heard, np.clip(samples[:, 0], -1, 1), atol=1e-6)
    middle = len(samples) // 2 / facts.rate
    assert (decode_audio(content, int(facts.rate), middle, 0.1) == heard[len(samples) // 2 :][: round(0.1 * facts.rate)]).all()


@pytest.mark.parametrize("xing", [True, False])
def test_a_part_of_a_long_mp3_is_that_of_the_whole(xing):
    """Its packets need those before them, though not all."""
    content = mp3_file(np.random.default_rng(0).normal(0, 0.2, (200_000, 1)).astype(np.float32), xing)
    whole = decode_audio(content, 16_000)
    for first in np.random.default_rng(1).integers(0, 200_000, 12):
        assert (decode_audio(content, 16_000, first / 16_000, 0.25) == whole[first : first + 4000]).all()
    assert len(decode_audio(content, 16_000, 20.0, 1.0)) == 0


def test_what_breaks_off_is_told_from_what_a_header_says():
    """Where the header counts frames and bytes, and both are missing; where libsndfile gets less than there should be; where an index leads
    behind the end."""
    loud = np.random.default_rng(0).normal(0, 0.2, (48_000, 1)).astype(np.float32)
    whole = [mp3_file(loud), audio_file(loud, form="FLAC"), sound_file(loud, container_options={"moov_size": "20000"})]
    for content in whole:
        examine("audio", content)
        with pytest.raises(Undecodable, match="breaks off|cannot be decoded"):
            examine("audio", content[: len(content) // 2])
    wav = audio_file(loud)
    assert examine("audio", wav[:-1000]).remarks == ("shorter than its header says",)
    assert examine("audio", in_header(wav, 4, 0xFFFFFFFF)[:-1000]).remarks == ()


def test_a_little_that_cannot_be_decoded_is_left_out_and_told():
    content = mp3_file(tone(1.0))
    found = examine("audio", content + b"\xff" * 200 + bytes(range(256)) * 4)
    assert abs(found.facts.samples - 16_000) < 1152
    packets = bytearray(sound_file(tone(3.0), 16_000, "adts"))
    for place in range(600, len(packets), 300):
        packets[place : place + 60] = bytes(60)
    with pytest.raises(Undecodable):
        examine("audio", bytes(packets))


@pytest.mark.parametrize("layout, channels", [("mono", 1), ("stereo", 2), ("5.1", 6), ("7.1", 8)])
@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "alac", "flac"])
def test_channels_become_their_mean_in_every_format(codec, layout, channels):
    """By libavcodec, in planes and out of them, as by libsndfile; no channel counts more, and none is made louder."""
    draw = np.random.default_rng(0)
    samples = np.round(draw.uniform(-0.9, 0.9, (800, channels)) * 100) / 128  # which 8 bits hold
    form, layout = ("mov", layout.replace("7.1", "7.1(wide)")) if codec == "alac" else ("matroska", layout)
    content = sound_file(samples.astype(np.float32), 16_000, form, codec, layout)
    np.testing.assert_allclose(decode_audio(content, 16_000), samples.mean(1), atol=1e-6)
    if not codec.startswith("alac"):
        form = {"flac": {"form": "FLAC"}, "pcm_u8": {"subtype": "PCM_U8"}}.get(codec, {"subtype": "DOUBLE"})
        np.testing.assert_allclose(decode_audio(audio_file(samples, **form), 16_000), samples.mean(1), atol=1e-6)
