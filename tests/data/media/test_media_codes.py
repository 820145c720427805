"""Codes of media: equal to the model's codebook, back and forth, in a tokenizer, in rows."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from data.errors import UserError
from data.media.batches import MediaBatches
from data.media.codes import MediaCodes
from data.media.contact_sheet import cells_of_batch
from data.media.kinds import Part, Sample
from data.media.rows import KINDS, MARKERS, Layout
from data.media.shards import write_media
from data.media.signals.shapes import AudioShape, Cut, ImageShape, Shape, VideoShape
from data.media.source import ShardSource
from data.tokenizer import byte_tokenizer, character_tokenizer, load_tokenizer, with_codes
from model.media.vq import VectorQuantiser, VQConfig
from tests.data.media.media_files import audio_file, image_file
from tests.data.media.media_rows import with_facts

SHAPES: dict = {
    "image": ImageShape(patch=4, rows=2, columns=3, square=True),
    "video": VideoShape(frames=2, patch=4, times=2, rows=2, columns=2, square=True),
    "audio": AudioShape(times=8),
}


@functools.cache
def quantiser(kind):
    model = VectorQuantiser(VQConfig(SHAPES[kind].values, codes=24, code_dim=4, hidden_dim=16))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(1), np.zeros((1, SHAPES[kind].values))))["params"]
    return model, params | {"codebook": params["codebook"] * 0.1}  # so that latents of a fresh encoder are near several codes


@functools.cache
def codes_of(kind):
    leaves, _ = jax.tree_util.tree_flatten_with_path(quantiser(kind)[1])
    return MediaCodes(SHAPES[kind], {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}, 100)


@functools.cache
def tokenizer():
    return with_codes(byte_tokenizer(), {kind: codes_of(kind) for kind in SHAPES})


def cut_of(shape: Shape, seed=0):
    rng = np.random.default_rng(seed)
    match shape:
        case ImageShape():
            return shape.cut(rng.integers(0, 256, (8, 12, 3), np.uint8), shape.largest)
        case VideoShape():
            return shape.cut(rng.integers(0, 256, (4, 8, 8, 3), np.uint8), shape.largest)
    return shape.cut(rng.normal(0, 0.1, 16 * 160).astype(np.float32), shape.largest)


@pytest.mark.parametrize("kind", SHAPES)
def test_codes_are_those_of_the_model(kind):
    """Encoded and decoded as by VectorQuantiser, which is the reference."""
    codes, cut, (model, params) = codes_of(kind), cut_of(SHAPES[kind]), quantiser(kind)
    values = cut.patches if kind == "audio" else cut.patches.astype(np.float32) / 127.5 - 1
    ids = codes.encode(cut)
    expected = model.apply({"params": params}, values, method="encode")
    np.testing.assert_array_equal(ids - 100, expected)
    assert len(set(ids.tolist())) > 1 and len(ids) == codes.most and codes.ids == (100, 124)
    found, decoded = codes.decode(ids), model.apply({"params": params}, expected, method="decode")
    np.testing.assert_array_equal(found.places, cut.places)
    if kind == "audio":
        np.testing.assert_allclose(found.patches, decoded, atol=1e-5)
        assert len(codes.decode(ids[:5]).patches) == 5  # recordings are of any length
    else:
        np.testing.assert_allclose(found.patches, np.clip((decoded + 1) * 127.5, 0, 255), atol=0.51)
        with pytest.raises(ValueError, match=f"are no {kind}"):
            codes.decode(ids[:-1])
    for wrong in ([], [99], [124]):
        with pytest.raises(ValueError, match="no codes"):
            codes.decode(np.array(wrong))


def test_a_tokenizer_keeps_codes_behind_its_own_ids(tmp_path):
    whole = tokenizer()
    assert [whole.codes[kind].ids for kind in SHAPES] == [(326, 350), (350, 374), (374, 398)] and whole.size == 398
    whole.save(str(tmp_path))
    again = load_tokenizer(str(tmp_path))
    assert again.digest == whole.digest != byte_tokenizer().digest
    for kind, codes in again.codes.items():
        assert codes.header() == whole.codes[kind].header() and codes.content() == whole.codes[kind].content()
        np.testing.assert_array_equal(codes.encode(cut_of(SHAPES[kind])), whole.codes[kind].encode(cut_of(SHAPES[kind])))
    np.testing.assert_array_equal(again.encode("text"), byte_tokenizer().encode("text"))
    assert again.decode([*again.encode("te"), *range(326, 398), *again.encode("xt")]) == "text"
    with pytest.raises(UserError, match="already has codes for image"):
        with_codes(whole, {"image": codes_of("image")})
    assert with_codes(character_tokenizer("ab"), {"audio": codes_of("audio")}).codes["audio"].first == character_tokenizer("ab").size
    content = (tmp_path / "codes_image.npz").read_bytes()
    for broken in (content[:-100], b"", b"\x80\x04N."):
        (tmp_path / "codes_image.npz").write_bytes(broken)
        with pytest.raises(UserError, match="not a tokenizer"):
            load_tokenizer(str(tmp_path))
    (tmp_path / "codes_image.npz").unlink()
    with pytest.raises(UserError, match="codes_image.npz is missing"):
        load_tokenizer(str(tmp_path))


def test_rows_of_what_is_to_be_written(tmp_path):
    """A class or a caption is read, then the medium is learned: its marker and its codes. Sizes are known before, and what cannot be
    written fits no row."""
    image, sound = Part("image", image_file()), Part("audio", audio_file())
    samples = [
        Sample((image,), label=1),
        Sample((sound, Part("text", "a tone", learned=True))),
        Sample((image, Part("text", "waves", learned=True))),
        Sample((image,)),
    ]
    asked = Sample((Part("text", "wha"), image, Part("text", "t?"), Part("text", "it", learned=True)))
    corpus = write_media(str(tmp_path), {"train": map(with_facts, samples)}, classes=["cat", "dog"])
    whole = tokenizer()
    for kind, readable in (("image", {0: "dog", 2: "waves"}), ("audio", {1: "a tone"})):
        source = ShardSource(corpus, write=kind)
        batches = MediaBatches([source], whole, {}, Layout(96, {}))
        assert batches.left_out == 4 - len(readable)
        batch = batches.batch(0, batches.rows_per_epoch)
        seen = []
        for row in range(batches.rows_per_epoch):
            for segment in range(1, batch.segments[row].max() + 1):
                inside = batch.segments[row] == segment
                targets, learned = batch.targets[row][inside], batch.weights[row][inside] > 0
                start = int(learned.argmax())
                assert learned[start:].all() and targets[start] == whole.specials[MARKERS[kind]]
                ids, first = targets[start + 1 : -1], whole.codes[kind].first
                assert (ids >= first).all() and (ids < first + 24).all() and targets[-1] == whole.specials["document_end"]
                assert (batch.modalities[row][inside][start:] == KINDS.index(kind)).all()
                groups = batch.groups[row][inside]
                assert (groups[: start + 1] == groups[start]).all() and (
                    np.diff(groups[start:]) == 1
                ).all()  # text both ways, codes in turn
                seen.append(whole.decode(targets[:start]))
                number = next(i for i, text in readable.items() if text == seen[-1])
                assert source.sizes("train", {}, whole)[number].tolist() == [len(targets) - 1, 0, 0, 0, 0]
        assert sorted(seen) == sorted(readable.values())
    both = ShardSource(write_media(str(tmp_path / "asked"), {"train": [with_facts(asked)]}), write="image")
    ((pieces, _),) = both.samples("train", np.arange(1), {}, whole, None)
    assert [piece.kind for piece in pieces] == ["text"] * 3 + ["image"]  # each text by itself, as it was counted
    assert [whole.decode(piece.content) for piece in pieces[:3]] == ["wha", "t?", "it"]
    cells = cells_of_batch(MediaBatches([ShardSource(corpus, write="image")], whole, {}, Layout(96, {})), 0, 1)
    assert {(cell.read, cell.pictures[0].shape) for cell in cells} <= {("dog", (8, 12, 3)), ("waves", (8, 12, 3))}
    with pytest.raises(UserError, match="no codes for image"):
        MediaBatches([ShardSource(corpus, write="image")], byte_tokenizer(), {}, Layout(96, {}))


def test_decoded_codes_are_valid_media():
    for kind, codes in tokenizer().codes.items():
        cut = codes.decode(np.full(codes.most, codes.first))
        assert isinstance(cut, Cut) and len(cut.patches) == codes.most and np.isfinite(cut.patches).all(), kind
