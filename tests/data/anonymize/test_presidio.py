"""Presidio as a finder: what its patterns know and ours do not is replaced, without a model and without the network."""

import socket
import sys

import pytest

from data.anonymize.presidio import PresidioFinder
from data.anonymize.surrogates import Key
from data.anonymize.text import Anonymizer
from data.errors import UserError

KEY = Key(b"a secret of 32 bytes in all ....")


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(UserError, match="needs the package presidio-analyzer"):
        PresidioFinder()


def test_more_kinds_are_found_and_nothing_is_asked_of_the_network(monkeypatch):
    pytest.importorskip("presidio_analyzer")

    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    anonymizer = Anonymizer(KEY, PresidioFinder())
    text = "wallet 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ of case 6f1e7c1c-5b1c-4b7e-9d55-1f2f3a4b5c6d\nmail a@b.co on 2024-05-06"
    found = anonymizer(text)
    assert "16Yeky" not in found and "6f1e7c1c" not in found and "2024-05-06" in found and "[EMAIL:" in found
    assert Anonymizer(KEY, PresidioFinder())(found) == found
    assert "16Yeky" in Anonymizer(KEY)(text)
