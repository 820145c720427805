import subprocess
import sys

import pytest

import data


def test_every_name_of_the_face_is_there():
    for name in data.__all__:
        assert getattr(data, name).__name__ == name
    assert dir(data) == sorted(data.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = data.nothing


def test_the_face_is_lazy_and_the_room_knows_nothing_of_models():
    script = (
        "import sys, data\nassert 'numpy' not in sys.modules\n"
        "from data import Batches, Corpus, PrepareText, TextBatch, inspect_corpus, load_tokenizer, prepare_text\n"
        "import data.loading.prefetch\n"
        "assert not {'jax', 'flax', 'model', 'train', 'tokenizers', 'sentencepiece', 'fsspec'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
