import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.rows import order
from data.text.batches import Batches
from data.text.packing import make_plan, offsets
from data.tokenizer import character_tokenizer

END = 10**6
LENGTHS = [3, 1, 17, 64, 5, 200, 33, 2, 2, 9, 16, 1000]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_corpus, make_documents):
    folder = tmp_path_factory.mktemp("data")
    return make_corpus(folder / "ended", make_documents(LENGTHS), make_documents(LENGTHS)[:9], document_end=END)


@pytest.fixture(scope="module")
def endless(tmp_path_factory, make_corpus, make_documents):
    return make_corpus(tmp_path_factory.mktemp("data") / "endless", make_documents(LENGTHS))


def predicted(batch):
    return batch.targets[batch.weights > 0]


def reference_row(documents, document_end, plan, context_length, seed, row):
    """A row built token by token: [(input, target, weight, segment, position)], without padding."""
    epoch, index = order.shuffled(np.array([row]), plan.rows, int(order.fold(seed, 0)))
    cells, segment = [], 0
    for _, number, start, length in zip(*plan.slots(index), strict=True):
        document = documents[number]
        offset = int(offsets(seed, epoch, np.array([number]), np.array([len(document)]), context_length)[0])
        for i in range(length):
            place = (offset + start + i) % len(document)
            if i == 0 or place == 0:
                segment, position = segment + 1, 0
            before = document[place - 1] if place else document_end
            cells.append((document[place] if before is None else before, document[place], before is not None, segment, position))
            position += 1
    return cells


@pytest.mark.parametrize("context_length", [1, 7, 16, 64, 512])
@pytest.mark.parametrize("kind", ["corpus", "endless"])
def test_rows_equal_those_built_token_by_token(kind, context_length, request):
    corpus = request.getfixturevalue(kind)
    batches = Batches([corpus], context_length=context_length, seed=3)
    count = 2 * batches.rows_per_epoch + 1
    batch = batches.batch(0, count)
    documents = [corpus.split("train").read(i).tolist() for i in range(len(LENGTHS))]
    plan = make_plan(LENGTHS, context_length)
    for row in range(0, count, 1 + count // 500):
        cells = reference_row(documents, corpus.document_end, plan, context_length, 3, row)
        padding = [(0, 0, 0, 0, 0)] * (context_length - len(cells))
        found = np.stack([field[row] for field in batch[:5]], axis=1)
        assert np.array_equal(found, np.array(cells + padding, float))
    assert batch.rows.tolist() == list(range(count))


@pytest.mark.parametrize("context_length", [1, 7, 16, 64, 512, 2000])
def test_each_token_is_predicted_once_per_epoch(corpus, context_length):
    batches = Batches([corpus], context_length=context_length, seed=0)
    rows = batches.rows_per_epoch
    for epoch in range(3):
        tokens = predicted(batches.batch(epoch * rows, rows))
        assert np.array_equal(np.sort(tokens), np.arange(sum(LENGTHS)))
    assert batches.targets == sum(LENGTHS)


def test_without_document_ends_only_first_tokens_are_not_predicted(endless):
    batches = Batches([endless], context_length=16, seed=0)
    rows = batches.rows_per_epoch
    firsts = np.cumsum(LENGTHS) - LENGTHS
    for epoch in range(2):
        batch = batches.batch(epoch * rows, rows)
        assert np.array_equal(np.sort(predicted(batch)), np.setdiff1d(np.arange(sum(LENGTHS)), firsts))
        unpredicted = (batch.weights == 0) & (batch.segments > 0)
        assert np.array_equal(batch.tokens[unpredicted], batch.targets[unpredicted])
    assert batches.targets == sum(LENGTHS) - len(LENGTHS)


def test_the_second_epoch_cuts_elsewhere(corpus):
    batches = Batches([corpus], context_length=64, seed=0)
    rows = batches.rows_per_epoch

    def first_targets(epoch):
        batch = batches.batch(epoch * rows, rows)
        return set(batch.targets[(batch.positions == 0) & (batch.weights > 0)].tolist())

    long_document = set(range(sum(LENGTHS) - 1000, sum(LENGTHS)))
    assert len(first_targets(0) & long_document) >= 1000 // 64
    assert len(first_targets(0) & first_targets(1) & long_document) < 8


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_the_slices_of_one_batch(corpus, hosts):
    def made():
        return Batches([corpus], context_length=16, seed=9)

    whole, count = made(), 8
    for cursor in (0, 40, 12_345):
        parts = [made().batch(cursor + host * count // hosts, count // hosts) for host in range(hosts)]
        for field, sliced in zip(whole.batch(cursor, count), zip(*parts, strict=True), strict=True):
            assert sliced == (None,) * hosts if field is None else np.array_equal(field, np.concatenate(sliced))


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6))
def test_a_row_does_not_depend_on_its_batch(corpus, rows):
    batches = Batches([corpus], context_length=16, seed=2)
    together = batches.rows(rows)
    for i, row in enumerate(rows):
        for field, alone in zip(together, batches.batch(row, 1), strict=True):
            assert alone is None if field is None else np.array_equal(field[i], alone[0])


def test_seeds_differ(corpus):
    one, other = (Batches([corpus], context_length=16, seed=seed).batch(0, 20) for seed in (0, 1))
    assert (one.targets == other.targets).mean() < 0.5


def test_sequential_is_one_pass_and_then_nothing(corpus, endless):
    batches = Batches([corpus, endless], context_length=16, order="sequential")
    rows = batches.rows_per_epoch
    batch = batches.batch(0, rows + 5)
    firsts = np.cumsum(LENGTHS) - LENGTHS
    assert np.array_equal(
        np.sort(predicted(batch)), np.sort(np.concatenate([np.arange(sum(LENGTHS)), np.setdiff1d(np.arange(sum(LENGTHS)), firsts)]))
    )
    assert batch.tokens.shape == (rows + 5, 16)
    for field in batch[:5]:
        assert not field[rows:].any()
    assert len(predicted(batch)) == batches.targets


def test_mixtures_take_each_corpus_once_per_its_own_epoch(tmp_path, make_corpus):
    sizes = [40, 10, 25]
    corpora = [
        make_corpus(tmp_path / str(i), [np.full(8, i * 1000 + document) for document in range(size)], document_end=END)
        for i, size in enumerate(sizes)
    ]
    batches = Batches(corpora, context_length=8, weights=[2, 1, 1], seed=4)
    batch = batches.batch(0, 100)  # 50, 25 and 25 rows
    seen = collections.Counter(batch.targets[:, 0].tolist())
    counts = [[seen[i * 1000 + document] for document in range(size)] for i, size in enumerate(sizes)]
    assert [sum(count) for count in counts] == [50, 25, 25]
    for count, rows, size in zip(counts, (50, 25, 25), sizes, strict=True):
        assert set(count) <= {rows // size, -(-rows // size)}
    by_size = Batches(corpora, context_length=8).batch(0, 75)
    assert np.array_equal(np.unique(by_size.targets[:, 0] // 1000, return_counts=True)[1], sizes)


@pytest.fixture
def damaged(tmp_path, make_corpus, flip):
    """A hundred documents of 4,000 ids, uint16: the second block of 64 KiB, which has a flipped bit, touches nine of them."""
    corpus = make_corpus(tmp_path / "damaged", [np.full(4000, i) for i in range(100)], document_end=END, shards=1, dtype="uint16")
    flip(tmp_path / "damaged" / "train-00000-of-00001.tokens", (1 << 16) + 99)
    return corpus


def test_damaged_slots_are_empty_and_counted(damaged):
    batches = Batches([damaged], context_length=512, max_damaged=9)
    rows = batches.rows_per_epoch
    batch = batches.batch(0, rows)
    block = range(32768 // 4000, -(-65536 // 4000))
    assert batches.damaged == {(0, document) for document in block}
    whole = 4000 * 100
    missing = whole - int(batch.weights.sum())
    assert 32768 <= missing <= 32768 + 2 * 512 + 1
    documents, counts = np.unique(predicted(batch), return_counts=True)
    assert (counts[~np.isin(documents, list(block))] == 4000).all()
    empty = batch.segments == 0
    for field in batch[:5]:
        assert not field[empty].any()


def test_a_damaged_token_is_no_input_either(tmp_path, make_corpus, flip):
    """The row after a damaged block has whole targets, but its first input lies in the block."""
    corpus = make_corpus(tmp_path / "corpus", [np.arange(1, 40_961)], document_end=END, shards=1, dtype="uint16")
    flip(tmp_path / "corpus" / "train-00000-of-00001.tokens", 0)
    batch = Batches([corpus], context_length=512, order="sequential", max_damaged=1).batch(0, 80)
    assert np.array_equal(np.sort(predicted(batch)), np.arange(32_768 + 512, 40_960) + 1)


def test_more_damage_than_tolerated_stops_with_file_and_remedy(damaged):
    with pytest.raises(UserError, match=r"train-00000-of-00001\.tokens.*document \d+ fails its digest") as error:
        Batches([damaged], context_length=512, max_damaged=8).batch(0, 1000)
    assert "--repair" in str(error.value)
    assert "--data.max-damaged" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpora": []}, "no corpus"),
        ({"weights": [1, 2]}, "2 weights for 1"),
        ({"order": "random"}, "unknown"),
        ({"order": "sequential", "weights": [1]}, "no meaning"),
        ({"context_length": 0}, "below 1"),
        ({"split": "test"}, "no documents in the split 'test'"),
    ],
)
def test_mistakes_are_named(corpus, options, message):
    with pytest.raises(UserError, match=message):
        Batches(**{"corpora": [corpus], "context_length": 8, **options})


def test_corpora_of_different_tokenizers_do_not_mix(corpus, tmp_path, make_corpus):
    other = make_corpus(tmp_path / "other", [[0, 1]], tokenizer=character_tokenizer("ab"))
    with pytest.raises(UserError, match="different tokenizers"):
        Batches([corpus, other], context_length=8)


def test_rows_past_what_a_batch_can_number_are_refused(corpus):
    with pytest.raises(UserError, match="2\\^31"):
        Batches([corpus], context_length=8).batch(2**31 - 1, 2)
