"""Against Kneser-Ney written with dictionaries, and against what a distribution must be."""

import collections
import math

import numpy as np
import pytest

from train.evaluation.ngram import NGram

VOCAB = 7


def random_documents(seed, count=20, longest=30):
    """Ids from a Markov chain, so that contexts matter; one document is empty and one id never occurs."""
    rng = np.random.default_rng(seed)
    chain = rng.dirichlet(np.full(VOCAB - 1, 0.3), size=VOCAB - 1)
    documents = [np.array([], np.int64)]
    for _ in range(count):
        ids = [0]
        for _ in range(int(rng.integers(longest))):
            ids.append(int(rng.choice(VOCAB - 1, p=chain[ids[-1]])))
        documents.append(np.array(ids))
    return documents


def plain_kneser_ney(documents, order):
    """p(w | history) by its definition, with tuples and dictionaries."""
    starred = [[None] * (order - 1) + document.tolist() for document in documents]
    counts = [collections.Counter() for _ in range(order + 1)]
    for ids in starred:
        for end in range(order, len(ids) + 1):
            counts[order][tuple(ids[end - order : end])] += 1
    for n in range(order - 1, 0, -1):
        counts[n] = collections.Counter(gram[1:] for gram in counts[n + 1])

    def probability(word, history):
        n = len(history) + 1
        lower = probability(word, history[1:]) if history else 1 / VOCAB
        following = {gram: count for gram, count in counts[n].items() if gram[:-1] == history}
        if not following:
            return lower
        once, twice = (list(counts[n].values()).count(k) for k in (1, 2))
        discount = min(max(once / max(once + 2 * twice, 1), 0.1), 0.95)
        own = max(following.get((*history, word), 0) - discount, 0)
        return (own + discount * len(following) * lower) / sum(following.values())

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_the_definition(order):
    documents, unseen = random_documents(0), random_documents(1, count=4, longest=12)
    model, probability = NGram.fit(documents, VOCAB, order), plain_kneser_ney(documents, order)
    expected = []
    for document in unseen:
        ids = [None] * (order - 1) + document.tolist()
        expected += [math.log(probability(ids[end], tuple(ids[end - order + 1 : end]))) for end in range(order - 1, len(ids))]
    assert model.nats_per_token(unseen) == pytest.approx(-np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("prefix", [[], [0], [0, 1, 2, 3], [VOCAB - 1], [5, VOCAB - 1, 5, 5, 5]], ids=str)
def test_probabilities_sum_to_one_and_are_those_of_the_score(order, prefix):
    """After contexts seen and unseen, at the start of a document and later."""
    model = NGram.fit([*random_documents(2), np.array([0, VOCAB - 1])], VOCAB, order)
    p = model.probabilities(prefix)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert p.min() > 0
    before = model.nats_per_token([np.array(prefix)]) * len(prefix) if prefix else 0.0
    scored = [math.exp(before - model.nats_per_token([np.array([*prefix, token])]) * (len(prefix) + 1)) for token in range(VOCAB)]
    np.testing.assert_allclose(p, scored, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_probabilities(temperature):
    model, rng = NGram.fit(random_documents(3), VOCAB, 3), np.random.default_rng(0)
    prefix, draws = [0, 1], 1500
    drawn = np.bincount([model.sample(rng, prefix, 1, temperature=temperature)[0] for _ in range(draws)], minlength=VOCAB) / draws
    p = model.probabilities(prefix) ** (1 / temperature)
    np.testing.assert_allclose(drawn, p / p.sum(), atol=4 * math.sqrt(0.25 / draws))


def test_a_sample_ends_before_the_stop_id_or_at_its_length():
    model = NGram.fit([np.array([1, 2, 3, 4])] * 50, VOCAB, 3)
    rng = np.random.default_rng(0)
    assert model.sample(rng, [1], 100, stop_id=4, temperature=0.05).tolist() == [2, 3]
    assert len(model.sample(rng, [], 9)) == 9


def test_longer_contexts_help_on_text_that_has_them():
    training, validation = random_documents(4, count=400), random_documents(4, count=400)[200:]
    nats = [NGram.fit(training[:200], VOCAB, order).nats_per_token(validation) for order in (1, 2)]
    assert nats[1] < nats[0] - 0.1


def test_an_empty_corpus_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        NGram.fit([np.array([], np.int64)], VOCAB)


def test_log_probs_of_rows_are_those_of_documents():
    """From their start with pads before it; and from anywhere, given as many ids before as count."""
    documents = random_documents(0)
    model = NGram.of_arrays(NGram.fit(documents, VOCAB, 3).arrays())
    longest = max(map(len, documents))
    rows = np.full((len(documents), 2 + longest), -1)
    for row, document in zip(rows, documents, strict=True):
        row[:2], row[2 : 2 + len(document)] = VOCAB, document
    found = model.log_probs(rows)[:, 2:]
    assert -found.sum() / sum(map(len, documents)) == pytest.approx(model.nats_per_token(documents))
    whole = max(documents, key=len)
    np.testing.assert_allclose(
        model.log_probs(whole[None, 3:])[0, 2:], found[[one is whole for one in documents].index(True), 5 : len(whole)], rtol=1e-12
    )
