import contextlib
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from data.media.kinds import Facts, Undecodable
from data.media.signals.encoding import encode_image
from data.media.signals.images import decode_image
from data.media.signals.probing import examine, probe
from data.media.signals.sounds import decode_audio
from data.media.signals.videos import decode_video
from tests.data.media.media_files import (
    aac_file,
    animation_file,
    audio_file,
    image_file,
    picture,
    png_bomb,
    video_file,
    webp_bomb,
)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_comes_back(form):
    pixels = decode_image(image_file(form=form))
    assert pixels.dtype == np.uint8 and pixels.shape == (24, 32, 3)
    assert np.abs(pixels.astype(int) - picture()).mean() < {"PNG": 1e-9, "BMP": 1e-9, "JPEG": 4, "WEBP": 5, "GIF": 12}[form]
    assert probe("image", image_file(form=form)) == Facts(width=32, height=24, bytes=len(image_file(form=form)))


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 2, "quality": 30}, {"progressive": True}, {"mode": "L"}])
def test_the_short_way_for_jpeg_gives_the_pixels_of_pillow(options, monkeypatch):
    """Also into a given array, in order or not; and it is the way that is taken."""
    pytest.importorskip("simplejpeg")
    content = image_file(picture(37, 51), **options)
    found, expected = decode_image(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(found, expected)
    wide = np.zeros((37, 60, 3), np.uint8)
    for out in (np.empty_like(found), wide[:, 3:54]):
        assert decode_image(content, out=out) is out
        np.testing.assert_array_equal(out, expected)
    monkeypatch.setattr("data.media.signals.images._image", lambda *_: pytest.fail("Pillow was asked"))
    decode_image(content)
    decode_image(content, size=(37, 51))
    with pytest.raises(Undecodable, match="too large"):
        decode_image(content, max_pixels=1000)


def test_exif_behind_other_segments_turns_a_jpeg():
    """A colour profile of many segments comes first: Exif lies behind 64 KB, where only the segments lead to it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = image_file(picture(24, 32), exif=exif)
    place = content.index(b"\xff\xe1")
    profile = b"\xff\xe2\xff\xff" + b"ICC_PROFILE\0" + bytes(65_521)
    for between in (2 * profile, b"\xff" * 7, profile + b"\xff" * 3):
        behind = content[:place] + between + content[place:]
        assert decode_image(behind).shape == (32, 24, 3)
        assert (decode_image(behind) == decode_image(content)).all()
        assert (probe("image", behind).width, probe("image", behind).height) == (24, 32)


def test_a_comment_that_speaks_of_exif_turns_nothing():
    content = image_file(picture(24, 32), comment=b"Exif\0\0")
    assert (decode_image(content) == np.asarray(Image.open(io.BytesIO(content)))).all()


def test_encoding_and_decoding_are_inverse():
    assert (decode_image(encode_image(picture())) == picture()).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation):
    """What a camera stores on its side is seen upright: by all eight orientations, in pixels and in the facts."""
    from PIL import Image

    upright = Image.fromarray(picture(24, 32))
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("PNG", "JPEG"):
        file = io.BytesIO()
        stored.save(file, form, exif=exif)
        facts = probe("image", file.getvalue())
        assert (facts.height, facts.width) == (24, 32)
        assert np.abs(decode_image(file.getvalue()).astype(int) - picture(24, 32)).mean() < 4
        assert decode_image(file.getvalue(), size=(6, 8)).shape == (6, 8, 3)


def test_every_kind_of_colour_becomes_rgb():
    half = np.full((8, 8), 128, np.uint8)
    assert decode_image(image_file(half, "PNG")).tolist() == np.full((8, 8, 3), 128).tolist()
    assert decode_image(image_file(half.astype(np.uint16) * 257, "PNG")).tolist() == np.full((8, 8, 3), 128).tolist()  # 16 bits
    assert decode_image(image_file(mode="CMYK")).shape == (24, 32, 3)
    assert np.abs(decode_image(image_file(mode="CMYK")).astype(int) - picture()).mean() < 4
    assert decode_image(image_file(form="PNG", mode="1")).max() == 255
    assert decode_image(image_file(form="PNG", mode="P")).shape == (24, 32, 3)


def test_what_is_transparent_is_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (decode_image(image_file(clear, "PNG")) == 255).all()
    assert (decode_image(image_file(clear, "WEBP", lossless=True)) == 255).all()
    assert (decode_image(image_file(np.zeros((4, 4), np.uint8), "PNG", transparency=0)) == 255).all()
    solid = np.dstack([picture(), np.full((24, 32), 255, np.uint8)])
    assert (decode_image(image_file(solid, "PNG")) == picture()).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_counts(form):
    content = animation_file(form)
    assert (decode_image(content) == [255, 0, 0]).all()
    assert "animated" in examine("image", content).remarks[0]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_is_scaled_and_a_part_of_it_taken(form):
    """A JPEG is decoded at a fraction of its size where that suffices, and looks the same."""
    content, whole = image_file(picture(192, 256), form, **({"quality": 95} if form == "JPEG" else {})), picture(192, 256)
    small = decode_image(content, size=(24, 32)).astype(int)
    assert np.abs(small - whole.reshape(24, 8, 32, 8, 3).mean((1, 3))).mean() < 3
    part = decode_image(content, box=(0.25, 0.5, 0.75, 1.0)).astype(int)
    assert np.abs(part - whole[48:144, 128:]).mean() < 3
    part = decode_image(content, size=(12, 16), box=(0.25, 0.5, 0.75, 1.0)).astype(int)
    assert np.abs(part - whole[48:144, 128:].reshape(12, 8, 16, 8, 3).mean((1, 3))).mean() < 3
    assert decode_image(content, size=(300, 200)).shape == (300, 200, 3)
    out = np.zeros((2, 24, 32, 3), np.uint8)
    decode_image(content, out=out[1])
    assert (out[1] == decode_image(content, size=(24, 32))).all() and not out[0].any()
    mirrored = np.zeros((24, 32, 3), np.uint8)[:, ::-1]
    assert (decode_image(content, out=mirrored) == out[1]).all()


def test_a_picture_that_breaks_off_is_undecodable():
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        content = image_file(picture(64, 64), form)
        for length in (0, 1, 20, len(content) // 2):
            with pytest.raises(Undecodable):
                decode_image(content[:length])
            with pytest.raises(Undecodable):
                examine("image", content[:length])


def test_noise_in_a_file_never_raises_anything_else():
    draw = np.random.default_rng(0)
    for kind, content in (
        *(("image", image_file(form=form)) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP")),
        *(("audio", audio_file(form=form)) for form in ("WAV", "FLAC", "MP3")),
        *(("audio", aac_file()), ("video", video_file(8)), ("video", video_file(8, "webm", "libvpx-vp9"))),
    ):
        for _ in range(10):
            damaged = bytearray(content)
            for place in draw.integers(0, len(content), 6):
                damaged[place] = draw.integers(256)
            for call in (
                lambda content, kind=kind: examine(kind, content),
                {
                    "image": decode_image,
                    "audio": lambda content: decode_audio(content, 8000),
                    "video": lambda content: decode_video(content, [0.0, 0.5]),
                }[kind],
            ):
                with contextlib.suppress(Undecodable):
                    call(bytes(damaged))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("content", [png_bomb(), png_bomb(60_000, 60_000), webp_bomb()], ids=["png", "huge png", "webp"])
def test_a_bomb_takes_no_memory(content):
    """A few bytes that claim a hundred million pixels are refused by their header."""
    assert len(content) < 1000
    tracemalloc.start()
    for call in (decode_image, lambda content: probe("image", content), lambda content: examine("image", content)):
        with pytest.raises(Undecodable, match="too large|pixels"):
            call(content)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_the_most_pixels_can_be_chosen():
    with pytest.raises(Undecodable, match="more than 100"):
        decode_image(image_file(), max_pixels=100)


def test_the_fingerprint_of_a_picture_stays_when_it_is_encoded_anew():
    fingerprint = examine("image", image_file(picture(200, 300), "PNG")).fingerprint
    again = examine("image", image_file(picture(200, 300), "JPEG", quality=60)).fingerprint
    other = examine("image", image_file(picture(200, 300, seed=1), "PNG")).fingerprint
    assert (fingerprint[0] ^ again[0]).bit_count() <= 3 < 8 < (fingerprint[0] ^ other[0]).bit_count()
