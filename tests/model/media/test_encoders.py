"""Encoders of packed media: what stands in a row beside an image, clip or recording never changes what is said of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.media.signals.patches import grid, patchify, unpatchify
from model.media.encoder_config import AudioEncoder, ImageEncoder, Projection, VideoEncoder
from model.media.encoders import ConvolutionStem, Encoder, PatchStem, Pool, encoded_places, encoded_segments, segment_lasts
from model.media.towers import Texts, with_start
from tests.model.media.arrays import draw, near

SMALL = {"num_layers": 2, "embed_dim": 16, "num_heads": 2}
IMAGE = ImageEncoder(**SMALL, patch=2, rows=3, columns=4)
TOKEN = dataclasses.replace(IMAGE, pool="token", positions="learned")
PUBLISHED = dataclasses.replace(TOKEN, token_position=True, embedding_norm=True, patch_bias=False, activation="quick_gelu")
PUBLISHED = dataclasses.replace(PUBLISHED, norm_epsilon=1e-5, pixel_mean=(0.3, 0.5, 0.4), pixel_std=(0.2, 0.3, 0.5))
VIDEO = VideoEncoder(**SMALL, frames=2, patch=2, times=3, rows=3, columns=4, pool="attention")
FACTORISED = dataclasses.replace(VIDEO, attention="factorised", positions="learned")
AUDIO = AudioEncoder(**SMALL, mel_bands=5, times=8)
ALL = {"image": IMAGE, "token": TOKEN, "published": PUBLISHED, "video": VIDEO, "factorised": FACTORISED, "audio": AUDIO}


@functools.cache
def make(config):
    """An encoder, a pool, and the parameters of both."""
    encoder, pool = Encoder(config), Pool(config)
    patches, places, segments = jnp.zeros((1, 2, config.patch_values)), jnp.zeros((1, 2, len(config.axes)), int), jnp.ones((1, 2), int)
    encoder_shapes = jax.eval_shape(encoder.init, jax.random.key(0), patches, places, segments)["params"]
    hidden = jnp.zeros((1, 1, config.embed_dim))
    pool_shapes = jax.eval_shape(lambda key: pool.init(key, hidden, segments[:, :1], 1, places[:, :1]), jax.random.key(0)).get("params", {})
    return encoder, pool, {"encoder": draw(encoder_shapes), "pool": draw(pool_shapes)}


def places_of(config, *counts):
    """All places of a grid of so many times, rows and columns, or rows and columns, or times."""
    return np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, len(counts)).astype(np.int32)


def two_media(config):
    """Places of two media of unequal sizes, and random values for them."""
    sizes = {"image": [(2, 3), (3, 1)], "video": [(2, 1, 3), (3, 2, 1)], "audio": [(7,), (6,)]}[config.kind]
    rng, media = np.random.default_rng(1), []
    for size in sizes:
        places = places_of(config, *size)
        if config.pool == "token":
            places = np.concatenate([places, np.full((1, len(size)), -1, np.int32)])
        media.append((rng.normal(size=(len(places), config.patch_values)).astype(np.float32), places))
    return media


def pack(config, media, padding):
    """One row: the media one after the other, each from an even place on, and places of padding that hold rubbish."""
    rng, parts = np.random.default_rng(padding), []
    for number, (patches, places) in enumerate(media, 1):
        parts.append((patches, places, np.full(len(places), number)))
        if len(places) % 2:
            parts.append((rng.normal(size=(1, config.patch_values)), np.zeros((1, len(config.axes))), np.zeros(1)))
    parts.append((rng.normal(size=(padding, config.patch_values)), np.ones((padding, len(config.axes))), np.zeros(padding)))
    patches, places, segments = (np.concatenate(part)[None] for part in zip(*parts, strict=True))
    return patches.astype(np.float32), places.astype(np.int32), segments.astype(np.int32)


def encode(config, params, row, count):
    """Hidden places and pooled vectors of a row."""
    encoder, pool, _ = make(config)
    patches, places, segments = row
    hidden = encoder.apply({"params": params["encoder"]}, patches, places, segments)
    segments, places = encoded_segments(config, segments), encoded_places(config, places)
    return hidden[0], segments[0], pool.apply({"params": params["pool"]}, hidden, segments, count, places)[0]


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_packed_media_equal_separate_ones_whatever_the_padding(config):
    """Values, pooled vectors and gradients."""
    media, params = two_media(config), make(config)[2]
    probe = np.random.default_rng(5).normal(size=(2, 64, config.embed_dim))

    def total(*found):
        """A number that depends on all hidden places of the two media, and on the vectors that stand for them."""
        places = jnp.concatenate([hidden[segments == number] for hidden, segments, pooled in found for number in range(1, len(pooled) + 1)])
        pooled = jnp.concatenate([pooled for _, _, pooled in found])
        return (places * probe[0, : len(places)]).sum() + (pooled * probe[1, : len(pooled)]).sum(), (places, pooled)

    def packed(params):
        return total(encode(config, params, pack(config, media, 4), 2))

    def separate(params):
        return total(*(encode(config, params, pack(config, [one], 2 * number), 1) for number, one in enumerate(media)))

    (_, values), gradients = jax.jit(jax.value_and_grad(packed, has_aux=True))(params)
    (_, expected), expected_gradients = jax.jit(jax.value_and_grad(separate, has_aux=True))(params)
    near(values, expected)
    near(gradients, expected_gradients, 1e-3)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["pool"]))


@pytest.mark.parametrize("config", [TOKEN, VIDEO], ids=["token", "attention"])
def test_an_absent_image_pools_to_zero(config):
    _, places, segments = pack(config, two_media(config), 2)
    hidden = np.random.default_rng(0).normal(size=(*segments.shape, config.embed_dim)).astype(np.float32)
    pooled = jax.jit(lambda hidden: make(config)[1].apply({"params": make(config)[2]["pool"]}, hidden, segments, 4, places))(hidden)
    assert (pooled[0, 2:] == 0).all() and (pooled[0, :2] != 0).all()


@pytest.mark.parametrize("config", [IMAGE, FACTORISED], ids=["image", "factorised"])
def test_the_order_of_places_is_of_no_matter_but_where_they_lie_is(config):
    (patches, places), _ = two_media(config)
    order = np.random.default_rng(3).permutation(len(places))
    params, ones = make(config)[2], np.ones((1, len(places)), np.int32)
    run = jax.jit(lambda patches, places: make(config)[0].apply({"params": params["encoder"]}, patches[None], places[None], ones)[0])
    hidden = run(patches, places)
    near(run(patches[order], places[order]), hidden[order])
    assert np.abs(run(patches[order], places) - hidden[order]).max() > 1e-2


def test_factorised_attention_sees_a_frame_and_then_a_column():
    """By gradient: after the layer within frames a place depends on its own frame alone; after the other, on every place."""
    places = places_of(FACTORISED, 3, 2, 2)
    patches, ones = np.random.default_rng(0).normal(size=(len(places), FACTORISED.patch_values)), np.ones((1, len(places)), np.int32)
    _, _, params = make(FACTORISED)

    def reach(layers):
        """[place, place]: how much the one's hidden state depends on the other's values."""
        silent = [name for name in range(2) if name not in layers]
        kept = jnp.ones(2).at[jnp.array(silent, int)].set(0.0)
        stack = params["encoder"]["layers"]
        out = jax.tree.map(lambda leaf: leaf * kept.reshape(2, *[1] * (leaf.ndim - 1)), stack["attention"]["out"])
        changed = params["encoder"] | {"layers": stack | {"attention": stack["attention"] | {"out": out}}}

        def hidden(patches):
            return make(FACTORISED)[0].apply({"params": changed}, patches[None], places[None], ones)[0].sum(-1)

        return np.abs(jax.jit(jax.jacrev(hidden))(patches.astype(np.float32))).sum(-1) > 1e-9

    same_frame = places[:, None, 0] == places[None, :, 0]
    same_column = (places[:, None, 1:] == places[None, :, 1:]).all(-1)
    np.testing.assert_array_equal(reach([0]), same_frame)
    np.testing.assert_array_equal(reach([1]), same_column)
    assert reach([0, 1]).all()


def test_ways_of_running_an_encoder_change_nothing():
    """Scanned and unrolled, with masks that take turns, dropout and patches in bytes."""
    config = dataclasses.replace(FACTORISED, num_layers=4, dropout=0.2)
    patches, places, segments = pack(config, two_media(config), 2)
    keys, params = jax.random.split(jax.random.key(0), 1), make(config)[2]["encoder"]
    bytes_ = np.random.default_rng(0).integers(0, 256, patches.shape, np.uint8)

    def gradient(config, patches):
        encoder = Encoder(config)
        return jax.jit(jax.grad(lambda params: (encoder.apply({"params": params}, patches, places, segments, keys_B=keys) ** 2).sum()))(
            params
        )

    scanned = dataclasses.replace(config, scan=True, remat="full")
    near(gradient(scanned, bytes_), gradient(config, bytes_.astype(np.float32) / 127.5 - 1.0), 1e-3)


def test_options_of_published_encoders_are_what_they_say():
    """Pixels of a mean and standard deviation; a class token's position, which others have none of; no bias of patches."""
    params, plain = make(PUBLISHED)[2]["encoder"], dataclasses.replace(PUBLISHED, pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3)
    assert params["patches"].keys() == {"kernel"} and len(params["positions"]["table"]) == 13
    _, places, segments = pack(PUBLISHED, two_media(PUBLISHED), 2)
    pixels = np.random.default_rng(0).integers(0, 256, (*segments.shape, 2, 2, 3), np.uint8)
    run = jax.jit(lambda params, config, x: Encoder(config).apply({"params": params}, x, places, segments), static_argnums=1)
    flat = (*segments.shape, 12)
    normed = ((pixels / 255 - PUBLISHED.pixel_mean) / PUBLISHED.pixel_std).astype(np.float32)
    found = run(params, PUBLISHED, pixels.reshape(flat))
    near(found, run(params, plain, normed.reshape(flat)))
    # What is added to the token may as well be the token's.
    table = params["positions"]["table"]
    moved = params | {"token": params["token"] + table[0], "positions": {"table": table.at[0].set(0)}}
    near(run(moved, PUBLISHED, pixels.reshape(flat)), found)
    unplaced = dataclasses.replace(PUBLISHED, token_position=False)
    near(run(moved | {"positions": {"table": table[1:]}}, unplaced, pixels.reshape(flat)), found)


def test_the_last_of_each_segment_and_a_token_before_each_text():
    """Against loops over packed texts, of which one number is missing."""
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 0, 3, 3, 3, 0], [0, 2, 0, 3, 0, 0, 0]])
    positions = np.array([[0, 1, 0, 0, 1, 2, 1], [0, 0, 1, 0, 2, 3, 4]])
    x, tokens = rng.normal(size=(2, 7, 4)).astype(np.float32), rng.integers(0, 50, (2, 7))
    lasts = segment_lasts(x, segments, 3)
    longer = with_start(Texts(tokens, segments, positions), 99, 3)
    assert longer.tokens.shape == (2, 10)
    for row in range(2):
        for number in (1, 2, 3):
            inside, there = segments[row] == number, np.asarray(longer.segments[row]) == number
            np.testing.assert_array_equal(lasts[row, number - 1], x[row, inside][-1] if inside.any() else np.zeros(4))
            expected = [99, *tokens[row, inside]] if inside.any() else []
            assert longer.tokens[row, there].tolist() == expected
            assert longer.positions[row, there].tolist() == list(range(len(expected)))


def test_a_masked_place_shows_the_mask_and_not_its_values():
    patches, places, segments = pack(IMAGE, two_media(IMAGE), 1)
    masked = np.zeros(segments.shape, bool)
    masked[0, [1, 4]] = True
    other = np.where(masked[..., None], 7.0, patches).astype(np.float32)
    vector, params = jnp.full(IMAGE.embed_dim, 0.3), make(IMAGE)[2]["encoder"]
    run = jax.jit(lambda patches: make(IMAGE)[0].apply({"params": params}, patches, places, segments, masked_BN=masked, mask_E=vector))
    np.testing.assert_array_equal(run(patches), run(other))


def test_the_convolutions_are_those_of_whisper():
    """Against a written-out convolution with zeros beyond both ends."""
    _, _, params = make(AUDIO)
    x = np.random.default_rng(0).normal(size=(6, AUDIO.mel_bands)).astype(np.float32)

    def convolve(x, part, stride):
        kernel = np.asarray(part["kernel"]).reshape(3, x.shape[1], -1)
        padded = np.pad(x, ((1, 1), (0, 0)))
        y = np.array([sum(padded[n + k] @ kernel[k] for k in range(3)) for n in range(0, len(x), stride)]) + part["bias"]
        return np.asarray(jax.nn.gelu(y, approximate=False))

    stem = params["encoder"]["stem"]
    expected = convolve(convolve(x, stem["first"], 1), stem["second"], 2)
    found = ConvolutionStem(AUDIO).apply({"params": stem}, x[None], np.ones((1, 6), np.int32))[0]
    near(found, expected)


def test_patches_come_block_by_block_and_go_back():
    images = np.arange(2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    patches = patchify(images, 2, 2)
    np.testing.assert_array_equal(unpatchify(patches, 4, 6, 2, 2), images)
    places = grid(4, 6, 2)
    for number, (y, x) in enumerate(places):
        np.testing.assert_array_equal(patches[1, number].reshape(2, 2, 3), images[1, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2])
    assert (places.reshape(-1, 4, 2) // 2 == places.reshape(-1, 4, 2)[:, :1] // 2).all()


def test_configs_that_cannot_be_are_refused():
    for config, changes, words in (
        (IMAGE, {"patch": 0}, "image.patch is 0"),
        (IMAGE, {"num_heads": 3}, "not a multiple"),
        (FACTORISED, {"num_layers": 3}, "in pairs"),
        (FACTORISED, {"pool": "token"}, "lies nowhere"),
        (AUDIO, {"pool": "token"}, "convolutions"),
        (TOKEN, {"projector": Projection(shuffle=2)}, "no block"),
        (IMAGE, {"token_position": True}, "class token"),
        (IMAGE, {"stem": "convolutions", "patch": 4, "patch_bias": False}, "have biases"),
        (IMAGE, {"pixel_std": (0.5, 0.0, 0.5)}, "pixel_std"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(config, **changes)
    with pytest.raises(ValueError, match="one of them"):
        Projection("resampler", shuffle=2)


def test_the_stem_convolves_whole_pictures_however_they_are_packed():
    """Two pictures of different aspects in one row, patches in an order of blocks, padding behind them."""
    config = dataclasses.replace(IMAGE, patch=16, rows=4, columns=4, stem="convolutions", stem_layers=2)
    params = make(config)[2]["encoder"]["stem"]
    assert set(params) == {*(f"{name}_{number}" for name in ("convolution", "residual", "norm") for number in range(2)), "out"}
    rng = np.random.default_rng(0)
    pictures = [rng.normal(size=size).astype(np.float32) for size in ((32, 64, 3), (64, 32, 3))]
    patches = np.concatenate([*(patchify(picture[None], 16, 2)[0] for picture in pictures), np.ones((3, config.patch_values), np.float32)])
    places = np.concatenate([grid(2, 4, 2), grid(4, 2, 2), np.zeros((3, 2), np.int32)])
    segments = np.repeat([1, 2, 0], [8, 8, 3])
    found = PatchStem(config).apply({"params": params}, patches[None], places[None], segments[None])[0]
    for number, picture in enumerate(pictures, 1):
        x = picture[None]

        def convolve(x, name, stride, edge=(1, 0)):
            width, side = x.shape[-1], stride + 1
            by_row = params[name]["kernel"].reshape(side, side * width, -1)  # of each row all but the last column, then that: in order
            kernel, axes = by_row.reshape(side, side, width, -1), ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(x, kernel, (stride, stride), (edge, edge), dimension_numbers=axes) + params[name]["bias"]

        x = convolve(jax.nn.relu(convolve(x, "convolution_0", 4)), "convolution_1", 2)
        for name, edge in (("0", (1, 0)), ("1", (0, 1))):
            normed = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * params[f"norm_{name}"]["scale"]
            x += convolve(np.maximum(normed, 0), f"residual_{name}", 1, edge)
        expected = patchify(np.asarray(x), 2, 2)[0] @ params["out"]["kernel"] + params["out"]["bias"]
        near(found[segments == number], expected)
    led = [np.concatenate([first, x])[None] for first, x in ((patches[-1:], patches), ([[-1, -1]], places), ([1], segments))]
    near(PatchStem(config).apply({"params": params}, *led)[0][1:][segments > 0], found[segments > 0])  # a class token is no neighbour
    with pytest.raises(ValueError, match="no multiple of 4"):
        dataclasses.replace(config, patch=6)
    for patch, shrinking in ((4, 1), (8, 1), (12, 1), (32, 3)):
        small = dataclasses.replace(config, patch=patch, embed_dim=4)
        shapes = (1, 4, small.patch_values), (1, 4, 2), (1, 4)
        found, stem = jax.eval_shape(PatchStem(small).init_with_output, jax.random.key(0), *map(jnp.zeros, shapes))
        assert found.shape == (1, 4, 4) and sum(name.startswith("convolution") for name in stem["params"]) == shrinking
