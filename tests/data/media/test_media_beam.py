import dataclasses
import os

import pytest

from data.errors import UserError
from data.media.preparation.prepare import PrepareMedia, prepare_media
from tests.data.media.media_files import image_file, picture

try:
    import apache_beam
except ImportError:
    apache_beam = None


def content(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if not name.startswith((".", "prepare.json"))}


@pytest.fixture
def options(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i:02d}.jpg").write_bytes(image_file(picture(seed=i)))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"hello")
    made = PrepareMedia(str(tmp_path / "plain"), "images", (str(tmp_path / "in"),), shard_bytes=3000, validation=0.3, workers=1)
    prepare_media(made)
    return made


@pytest.mark.skipif(apache_beam is None, reason="apache-beam is in an environment of its own")
def test_beam_makes_the_same_shards(options, tmp_path):
    """Also where it finds a part of the work done, here by a preparation that was broken off."""
    made = dataclasses.replace(options, output=str(tmp_path / "beam"), beam="DirectRunner")
    prepare_media(made)
    assert content(tmp_path / "beam") == content(tmp_path / "plain")
    assert len(content(tmp_path / "beam")) > 8


@pytest.mark.skipif(apache_beam is not None, reason="apache-beam is here")
def test_without_beam_a_line_says_what_to_install(options, tmp_path):
    with pytest.raises(UserError, match="omnia.beam"):
        prepare_media(dataclasses.replace(options, output=str(tmp_path / "beam"), beam="DirectRunner"))
