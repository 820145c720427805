"""What each objective on text promises beside learning: nothing leaks, texts of a row stay apart, sums are sums."""

import dataclasses
import json
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.errors import UserError
from data.text.rows import TextBatch
from data.tokenizer import byte_tokenizer, hugging_face_tokenizer
from model.config import ModelConfig
from model.encoder_decoder_config import EncoderDecoderConfig
from model.text_encoder_config import TextEncoderConfig
from train.devices.mesh import batch_sharding, make_mesh
from train.experiment import CausalLM, Experiment, MeshShape, TextData
from train.kinds import Bound, Objective
from train.objectives.bind import bind
from train.objectives.terms import Mean, Term
from train.objectives.text.corruption import Hiding
from train.objectives.text.masked_lm import hide_rows
from train.objectives.text.options import (
    AutoEncoding,
    MaskedLM,
    PrefixLM,
    RecurrentLM,
    ReplacedTokens,
    SentencePairs,
    SimCSE,
    SpanDenoising,
    Sum,
)
from train.objectives.text.prefix_lm import prefix_lengths
from train.objectives.text.simcse import contrast
from train.objectives.text.total import names_of
from train.rl.options import PPO, PreferenceLearning, RewardModelling
from train.runs.classes import finder
from train.runs.serialize import from_json, to_json
from train.sources.dataset import check_reads
from train.sources.pairs import SentencePairData
from train.step.gradients import plain
from train.step.update import on_mesh

T, VOCABULARY = 24, 50
SHAPE = {"vocab_size": VOCABULARY, "context_length": T, "num_layers": 1, "embed_dim": 16, "num_heads": 2}
ENCODER, DECODER, BOTH = TextEncoderConfig(**SHAPE), ModelConfig(**SHAPE), EncoderDecoderConfig(**SHAPE, start_token=49)
SEGMENTS = np.repeat([1, 2, 0], [11, 9, 4]).astype(np.int32)
POSITIONS = np.concatenate([np.arange(11), np.arange(9), np.zeros(4)]).astype(np.int32)


def batch_of(rows: int) -> TextBatch:
    """Rows of two texts each, and padding."""
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 40, (rows, T)).astype(np.int32)
    tokens = np.where(POSITIONS == 0, 48, np.roll(texts, 1, axis=1)).astype(np.int32)
    segments, positions = np.tile(SEGMENTS, (rows, 1)), np.tile(POSITIONS, (rows, 1))
    return TextBatch(tokens, texts, (segments != 0).astype(np.float32), segments, positions, np.arange(rows, dtype=np.int32))


def with_text(batch: TextBatch, row: int | slice, place: int, token: int) -> TextBatch:
    """The batch with one token of a text changed, as target and as the input after it."""
    targets, tokens = batch.targets.copy(), batch.tokens.copy()
    targets[row, place] = token
    if place + 1 < T and POSITIONS[place + 1]:
        tokens[row, place + 1] = token
    return batch._replace(targets=targets, tokens=tokens)


def bound_of(objective: Objective, model: ModelConfig, data=None) -> tuple[Bound, Any]:
    bound = bind(Experiment(model=model, objective=objective, data=data or TextData()))
    return bound, nn.unbox(jax.jit(bound.start)(jax.random.key(0)))


WRITERS = {
    "t5": (SpanDenoising(rate=0.3, first_sentinel=41, sentinel_step=1, end=48), BOTH),
    "bart": (AutoEncoding(mask=47, shuffling="windows", window=3), BOTH),
    "auto": (AutoEncoding(mask=47, separator=46, shuffling="windows", window=3), DECODER),
    "prefix_both": (PrefixLM(), BOTH),
    "prefix": (PrefixLM(), dataclasses.replace(DECODER, positions="rotary")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_text_is_written_of_itself_alone_and_of_nothing_that_comes_after(name):
    bound, params = bound_of(*WRITERS[name])
    loss = jax.jit(lambda batch: bound.loss(params, batch, None)[0]["loss"])
    batch = batch_of(4)
    for array, value in ((batch.segments, 3), (batch.tokens, 48), (batch.targets, 5), (batch.weights, 1)):
        array[:, 20] = value  # a text of one token, which leaves nothing to read
    if name == "t5":  # its target has other lengths
        check_spans(jax.jit(lambda batch: bound.loss.written(params, batch, None)), batch)
    else:
        for segment in (1, 3):
            own_text = batch._replace(weights=batch.weights * (batch.segments == segment))
            assert loss(own_text).weight > 0
            np.testing.assert_allclose(loss(with_text(own_text, slice(None), 11, 7)).total, loss(own_text).total, rtol=1e-6)
        early = batch._replace(weights=batch.weights * (batch.segments == 1) * (np.arange(T) < 9))
        if not isinstance(WRITERS[name][0], AutoEncoding):  # there the source may show it, which is no leak
            np.testing.assert_allclose(loss(with_text(early, 1, 10, 7)).total, loss(early).total, rtol=1e-6)
    changed = [float(loss(with_text(batch, 1, place, 7)).total) for place in (2, 14)]
    assert not np.allclose(changed, float(loss(batch).total), rtol=1e-6)
    assert float(loss(batch).weight) > 0


def check_spans(written, batch) -> None:
    """Of a target made of spans: another text changes no score of one; nor does a token of it that the source hides, of those before."""
    everywhere = slice(None)
    source, target, scores = written(batch)
    for segment, other_place in ((1, 15), (2, 4)):
        own = target.segments == segment
        assert own.any(1).sum() > 1
        _, _, other = written(with_text(batch, everywhere, other_place, 7))
        np.testing.assert_allclose(other.nll[own], scores.nll[own], rtol=1e-6)
        assert not np.allclose(other.nll, scores.nll, rtol=1e-6)
    hidden = 0
    for place in range(20):
        seen, line, other = written(with_text(batch, everywhere, place, 7))
        for row in np.flatnonzero((seen.tokens == source.tokens).all(1) & (line.tokens != target.tokens).any(1)):
            [changed] = np.flatnonzero(line.tokens[row] != target.tokens[row])
            np.testing.assert_allclose(other.nll[row, :changed], scores.nll[row, :changed], rtol=1e-6)
            hidden += 1
    assert hidden > 10  # 7 of 24 places in each of 4 rows


def test_separators_of_pairs_are_never_hidden():
    batch = batch_of(8)
    pairs = batch._replace(segments=np.minimum(batch.segments, 1), types=(batch.segments == 2).astype(np.int32))
    keys, how = jax.random.split(jax.random.key(0), 8), Hiding(0.9, 47, 40)
    for rows, may in ((pairs, False), (batch, True)):
        chosen = np.asarray(jax.jit(lambda rows: hide_rows(keys, rows, how, False)[1])(rows))
        assert chosen[:, 1:10].any() and chosen[:, [10, 19]].any() == may


def test_prefixes_leave_a_rest_and_see_both_ways():
    keys = jax.random.split(jax.random.key(0), 200)
    found = np.asarray(jax.jit(jax.vmap(lambda key: prefix_lengths(key, SEGMENTS)))(keys))
    for segment, length in ((1, 11), (2, 9)):
        inside = found[:, segment == SEGMENTS]
        assert (inside == inside[:, :1]).all() and set(np.unique(inside)) == set(range(1, length))
    assert (found[:, SEGMENTS == 0] == 0).all()
    # What stands last in the prefix changes the hidden states before it, and nothing of the rest does.
    bound, params = bound_of(*WRITERS["prefix"])
    model = bound.loss.model
    tokens, groups = np.arange(T, dtype=np.int32)[None], np.maximum(np.arange(T), 6)[None]
    read = jax.jit(lambda tokens: model.apply({"params": params}, tokens, groups_BT=groups).hidden_BTD)
    before = np.asarray(read(tokens))
    for place, seen in ((6, True), (7, False)):
        other = tokens.copy()
        other[0, place] = 40
        assert (not np.allclose(before[0, :6], read(other)[0, :6], atol=1e-6)) == seen


def test_contrast_equals_its_definition():
    rng = np.random.default_rng(0)
    cosine, valid = rng.uniform(-1, 1, (6, 6)).astype(np.float32), np.array([1, 1, 0, 1, 1, 1], np.float32)
    there = np.flatnonzero(valid)
    weights = np.exp(cosine[np.ix_(there, there)] / 0.2)
    expected = -np.log(np.diag(weights) / weights.sum(1))
    found = np.asarray(contrast(cosine, valid, 0.2))
    np.testing.assert_allclose(found[there], expected, rtol=1e-4)
    assert found[2] == 0


def test_contrast_is_over_all_texts_of_all_devices():
    bound, params = bound_of(SimCSE(texts=2), dataclasses.replace(ENCODER, dropout=0.2))
    batch, found = batch_of(4), []
    for devices in (1, 2):
        mesh = make_mesh(MeshShape(data=devices), jax.devices()[:devices])
        placed = jax.device_put(batch, jax.tree.map(lambda x, mesh=mesh: batch_sharding(mesh, x.ndim), batch))
        run = on_mesh(jax.jit(lambda params, batch: plain(bound.loss, params, batch, jax.random.key(1))[:2]), mesh)
        found.append(run(params, placed))
    for one, other in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    metrics = found[0][1]
    assert metrics["loss"].weight == 8 and metrics["loss"].total > 0 and metrics["dropped"].total == 0


def test_two_texts_in_a_row_have_the_vectors_of_each_in_a_row_of_its_own():
    bound, params = bound_of(SimCSE(texts=2, pool="first"), dataclasses.replace(ENCODER, dropout=0.2))
    batch = batch_of(4)
    apart = batch_of(8)
    for field, given in zip(apart[:5], batch[:5], strict=True):
        field[:] = 0
        for row in range(8):
            kept = given[row // 2, row % 2 + 1 == SEGMENTS]
            field[row, : len(kept)] = np.minimum(kept, 1) if field is apart.segments else kept
    loss = jax.jit(lambda batch: bound.loss(params, batch, None)[0]["loss"])
    one, other = loss(batch), loss(apart)
    assert one.weight == other.weight == 8
    np.testing.assert_allclose(one.total, other.total, rtol=1e-4)


def test_no_gradient_passes_through_what_a_generator_drew():
    options = ReplacedTokens(mask=47, ordinary=40, generator_size=0.5, rate=0.3)
    bound, params = bound_of(options, ENCODER)
    assert {"generator", "detector", "layers", "embedding"} <= set(params) and "embedding" not in params["generator"]
    assert bound.parts["layers"] == ("layers",)  # what is exported is the discriminator
    batch = batch_of(4)

    def detection(params):
        terms, metrics, _ = bound.loss(params, batch, jax.random.key(0))
        return terms["loss"].total, metrics

    gradients, metrics = jax.jit(jax.grad(detection, has_aux=True))(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients["generator"]))
    for name in ("layers", "embedding", "detector"):
        assert any((leaf != 0).any() for leaf in jax.tree.leaves(gradients[name]))
    # 30 % of 18 tokens a row were hidden, and nearly all got another token.
    assert 0.15 < metrics["replaced"].total / metrics["replaced"].weight <= 6 / 20


# ---------------------------------------------------------------------------------------------------------------------- sums


@dataclasses.dataclass(frozen=True)
class Squared(Objective):
    """half * w^2, a batch being numbers."""

    home = ":bind_squared"
    half: float = 0.5
    width: int = 1
    name: str = "w"
    per: str = "token"

    @property
    def unit(self):
        return self.per


def bind_squared(options: Squared, experiment: Experiment, shards: int) -> Bound:
    def loss(params, batch, key, *, frozen=None, carry=None):
        terms = {"loss": Term(2.0, options.half * jnp.square(params[options.name]).sum() * batch.sum(), batch.sum())}
        return terms, {"accuracy": Mean(jnp.float32(options.width), jnp.float32(1))}, carry

    return Bound(
        loss, start=lambda key: {options.name: jnp.ones(options.width), "shared": {"b": jnp.zeros(2)}}, parts={options.name: ("x",)}
    )


def test_a_sum_adds_losses_with_its_coefficients():
    options = Sum(objectives=(Squared(), Squared(half=3.0), Squared(name="v", per="batch")), coefficients=(1.0, 0.5, 2.0))
    assert names_of(options) == ("squared", "squared_2", "squared_3") and options.unit == "batch"
    bound = bind(Experiment(objective=options))
    params = bound.start(jax.random.key(0))
    assert set(params) == {"w", "v", "shared"} and set(bound.parts) == {"w", "v"}
    params = {"w": jnp.float32([3.0]), "v": jnp.float32([5.0]), "shared": params["shared"]}
    gradients, metrics, _ = plain(bound.loss, params, jnp.ones(4), None)
    assert gradients["w"][0] == 2.0 * (1.0 * 0.5 + 0.5 * 3.0) * 2 * 3.0 and gradients["v"][0] == 2.0 * 2.0 * 0.5 * 2 * 5.0
    assert metrics["loss"].total / metrics["loss"].weight == 0.5 * 9 and metrics["squared_2/loss"].total == 4 * 3.0 * 9
    assert {"squared/accuracy", "squared_2/accuracy", "tokens"} <= set(metrics)


def test_a_sum_of_what_does_not_fit_one_model_is_refused():
    with pytest.raises(UserError, match="parameters w, of different shapes"):
        bind(Experiment(objective=Sum(objectives=(Squared(), Squared(width=2))))).start(jax.random.key(0))
    with pytest.raises(ValueError, match="at least two"):
        Sum(objectives=(Squared(),))
    with pytest.raises(ValueError, match="1 for 2 objectives"):
        Sum(coefficients=(1.0,))
    assert set(Sum(objectives=(MaskedLM(), SentencePairs())).reads) == {"pairs"}
    with pytest.raises(ValueError, match="CausalLM reads tokens, RecurrentLM reads lanes"):
        Sum(objectives=(CausalLM(), RecurrentLM()))
    distances = dataclasses.replace(DECODER, positions="distance")
    with pytest.raises(UserError, match="RecurrentLM carries something"):
        bind(Experiment(model=distances, objective=Sum(objectives=(RecurrentLM(), RecurrentLM(memory=4)))))
    assert Sum().generates and not Sum(objectives=(AutoEncoding(), CausalLM())).generates


def test_a_sum_is_stored_with_its_parts():
    options = Sum(objectives=(CausalLM(z_loss=1e-4), AutoEncoding(sentence_ends=(3, 4))), coefficients=(1.0, 0.5))
    assert from_json(Objective, to_json(options), "objective", finder("run", None, print)) == options


def t5_tokenizer():
    """A vocabulary whose last ids, descending, stand for hidden spans."""
    pieces = ["<pad>", "</s>", "<unk>", "a", "b.", "c", *(f"<extra_id_{n}>" for n in (3, 2, 1, 0))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": n, "content": piece} | flags for n, piece in enumerate(pieces) if piece.startswith("<")]
    model = {"type": "WordLevel", "unk_token": "<unk>", "vocab": {piece: n for n, piece in enumerate(pieces)}}
    steps = {"normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None}
    return hugging_face_tokenizer(
        json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "model": model} | steps).encode()
    )


def test_what_a_config_leaves_open_comes_from_the_tokenizer():
    class Source(NamedTuple):
        made: Any

        def tokenizer(self):
            return self.made

    t5, ours = Source(t5_tokenizer()), Source(byte_tokenizer())
    found = SpanDenoising().completed([t5])
    assert (found.first_sentinel, found.sentinel_step, found.sentinels, found.end) == (9, -1, 4, 1)
    found, specials = SpanDenoising(end=3).completed([ours]), byte_tokenizer().specials
    assert (found.first_sentinel, found.sentinel_step, found.sentinels, found.end) == (specials["spare_0"], 1, 64, 3)
    masked = MaskedLM().completed([ours])
    assert (masked.mask, masked.ordinary) == (specials["mask"], 256) and MaskedLM(mask=5).completed([ours]).mask == 5
    auto = Sum(objectives=(CausalLM(), AutoEncoding(shuffling="sentences"))).completed([t5]).objectives[1]
    assert auto.sentence_ends == (4,) and auto.mask >= 10 and auto.separator >= 10


def test_what_is_written_begins_with_the_padding_of_the_tokenizer_or_a_document_start():
    both, ours = EncoderDecoderConfig(**SHAPE | {"vocab_size": 0}), byte_tokenizer()
    specials = ours.specials
    for tokenizer, rows, given, expected in (
        (t5_tokenizer(), 0, -1, 0),
        (ours, 0, -1, specials["padding"]),
        (ours, specials["padding"], -1, specials["document_end"]),
        (ours, 0, 5, 5),
    ):
        found = dataclasses.replace(both, vocab_size=rows, start_token=given).completed(tokenizer.size, tokenizer.specials)
        assert found.start_token == expected < found.vocab_size
    with pytest.raises(ValueError, match="no special id"):
        dataclasses.replace(both, vocab_size=64).completed(ours.size, specials)
    with pytest.raises(ValueError, match=r"model\.start_token is 50"):
        dataclasses.replace(BOTH, start_token=VOCABULARY)


PAIRS = SentencePairData(shards=("x",))
CONTINUE = (CausalLM(), RecurrentLM(), Sum(), PPO(), RewardModelling(), PreferenceLearning())


@pytest.mark.parametrize(
    ("objective", "model", "data", "said"),
    [
        (MaskedLM(), DECODER, None, "trains an encoder of text"),
        (MaskedLM(whole_words=True), ENCODER, None, "data.words"),
        (MaskedLM(sentence_pairs=1.0), ENCODER, None, "SentencePairData"),
        (MaskedLM(mask=50), ENCODER, None, "vocab_size is 50"),
        (MaskedLM(), dataclasses.replace(ENCODER, prediction_head=False), None, "prediction_head"),
        (SentencePairs(), dataclasses.replace(ENCODER, pooler=False), PAIRS, "pooler"),
        (SpanDenoising(), DECODER, None, "encoder-decoder"),
        (SpanDenoising(sentinels=1), dataclasses.replace(BOTH, context_length=200), None, "10 spans in a row, and 1 sentinels"),
        (PrefixLM(), ENCODER, None, "trains a decoder"),
        (PrefixLM(), dataclasses.replace(DECODER, window=4), None, "model.window"),
        (AutoEncoding(), dataclasses.replace(DECODER, context_length=25), None, "even"),
        (SimCSE(), ENCODER, None, "model.dropout is 0"),
        (SimCSE(), dataclasses.replace(BOTH, dropout=0.1), None, "an encoder or a decoder"),
        (AutoEncoding(), dataclasses.replace(DECODER, experts=2), None, "no experts"),
        *((one, model, None, "continues its own rows") for one in CONTINUE for model in (ENCODER, BOTH)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(objective, model, data, said):
    with pytest.raises(UserError, match=said):
        bind(Experiment(model=model, objective=objective, data=data or TextData()))


def test_pairs_are_read_by_what_reads_pairs():
    check_reads(Experiment(model=ENCODER, objective=SentencePairs(), data=PAIRS))
    with pytest.raises(UserError, match="it reads pairs"):
        check_reads(Experiment(model=ENCODER, objective=SentencePairs()))
    with pytest.raises(UserError, match="do not belong together"):
        check_reads(Experiment(data=PAIRS))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MaskedLM(rate=0.0),
        lambda: SpanDenoising(rate=1.0),
        lambda: SpanDenoising(mean_span=0.5),
        lambda: AutoEncoding(infilling=0.0),
        lambda: AutoEncoding(mean_span=0.0),
        lambda: SimCSE(temperature=0.0),
        lambda: ReplacedTokens(generator_size=0.0),
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"objective"):
        wrong()
