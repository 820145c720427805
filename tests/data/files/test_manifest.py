import json

import pytest

from data.errors import MissingData, UserError
from data.files.manifest import check_split, content_digest, read_index, read_manifest


def digest(manifest):
    return content_digest(manifest, ("splits",))


def accept(manifest):
    """Of any kind."""


@pytest.fixture
def folder(tmp_path):
    manifest = {"format": 2, "splits": {"train": {"documents": 3}, "validation": {"documents": 0}}, "made_by": "anyone"}
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "digest": digest(manifest)}))
    return tmp_path


def changed(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return read_manifest(str(folder), 2, accept, digest, "omnia prepare text")


def test_a_manifest_is_read_and_what_does_not_identify_it_may_change(folder):
    assert changed(folder)["splits"]["train"] == {"documents": 3}
    assert changed(folder, made_by="another")["made_by"] == "another"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {}}, "damaged .*digest does not match"),
        ({"format": 3}, "format 3, newer than this program's 2"),
        ({"format": None}, "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(folder, changes, message):
    with pytest.raises(UserError, match=message):
        changed(folder, **changes)


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(MissingData, match="no prepared corpus.*\nRun `omnia prepare text`"):
        read_manifest(str(tmp_path), 2, accept, digest, "omnia prepare text")


def test_an_empty_split_names_the_others(folder):
    splits = changed(folder)["splits"]
    check_split(str(folder), splits, "train", "documents")
    for name in ("validation", "test"):
        with pytest.raises(UserError, match=f"no documents in the split {name!r}; there are 'train'"):
            check_split(str(folder), splits, name, "documents")


def test_an_index_that_is_missing_or_changed_names_the_repair(tmp_path):
    with pytest.raises(UserError, match="missing.*\n.*run the repair"):
        read_index(str(tmp_path / "a.index"), {"index_digest": ""}, "the repair")
    (tmp_path / "a.index").write_bytes(b"12345678")
    with pytest.raises(UserError, match="fails its digest"):
        read_index(str(tmp_path / "a.index"), {"index_digest": ""}, "the repair")
