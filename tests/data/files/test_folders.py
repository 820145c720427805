"""Walking folders and matching patterns: as `glob` does, but links lead nowhere twice."""

import glob
import os

import pytest

from data.files.folders import files_below, matching_files

FILES = ("1.txt", "a/2.txt", "a/b/3.txt", "a/4.md", "a/b/[5].txt", "c d/ü.txt", "a/.hidden.txt", ".git/6.txt")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["**", "**/*", "**/*.txt", "a/**/*.txt", "*/*.txt", "a/**", "**/b/*", "*/**/?.txt", "*.txt", "a/b/[[]*", "**/[23].txt", "no/**"],
)
def test_patterns_match_what_glob_matches(pattern, folder):
    for whole in (pattern, str(folder / pattern)):
        expected = sorted(path for path in glob.glob(whole, recursive=True) if os.path.isfile(path))
        assert matching_files(whole) == expected


def test_folders_give_their_files_in_order_without_hidden_ones(folder):
    assert list(files_below(str(folder))) == sorted(str(folder / name) for name in FILES if "/." not in "/" + name)


def test_links_to_parents_repeat_nothing(folder):
    """Two such links made a walk without end: every path through both of them is another path."""
    before, matched = list(files_below(".")), matching_files("**/*.txt")
    os.symlink("..", "a/up")
    os.symlink("../..", "a/b/further-up")
    os.symlink("nowhere", "a/broken")
    assert list(files_below(".")) == before
    assert matching_files("**/*.txt") == matched


def test_a_file_with_two_names_is_given_once(folder):
    before = list(files_below("."))
    os.symlink("1.txt", "z-link.txt")
    os.link("1.txt", "z-hard.txt")
    assert list(files_below(".")) == before
    assert matching_files("*.txt") == ["1.txt"]
