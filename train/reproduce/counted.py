"""Words counted, which tables hold models against: what practitioners would try first."""

from collections.abc import Sequence
from typing import Any


def words_and_letters() -> Any:
    """A transformer of texts to TF-IDF of words, pairs of them, and two to four characters within words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    )


def nearest(known: Sequence[str], asked: Sequence[str], **counts: Any) -> list[int]:
    """For each text that is asked about, the place of the known one whose TF-IDF is nearest. counts: of TfidfVectorizer."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(sublinear_tf=True, **counts)
    known_KF = vectors.fit_transform(known)
    return (vectors.transform(asked) @ known_KF.T).toarray().argmax(1).tolist()
