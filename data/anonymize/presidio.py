"""What Microsoft's presidio finds by its patterns and checksums beside ours, as a finder (data/anonymize/text.py)."""

import logging
from collections.abc import Sequence
from typing import Any

from data.anonymize.patterns import Span
from data.errors import UserError

LEAST_SCORE = 0.5
"""Of presidio's scores from 0 to 1: below it are numbers that have no more than the right length."""
KINDS = {"CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP", "US_SSN": "SSN", "PHONE_NUMBER": "PHONE", "MAC_ADDRESS": "MAC"}
"""Of its types, those that we have too; others keep their names, cut to the 16 letters of a surrogate's."""
LEFT_OUT = ("SpacyRecognizer", "EmailRecognizer", "UrlRecognizer", "DateRecognizer")
"""The first needs a model, the next two fetch a list of domains from the network, and dates are no one's."""


class PresidioFinder:
    """English texts only: its patterns need borders of words, which Chinese has none of."""

    def __init__(self) -> None:
        try:
            import spacy
            from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
            from presidio_analyzer.nlp_engine import SpacyNlpEngine
        except ImportError:
            raise UserError("--engine presidio needs the package presidio-analyzer", "pip install 'presidio-analyzer>=2.2.366'") from None
        logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
        registry = RecognizerRegistry(supported_languages=["en"])
        registry.load_predefined_recognizers(languages=["en"])
        for name in LEFT_OUT:
            registry.remove_recognizer(name)
        words = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
        words.nlp = {"en": spacy.blank("en")}  # cuts words, and knows no names: no model is fetched
        self._engine: Any = AnalyzerEngine(registry=registry, nlp_engine=words, supported_languages=["en"])

    def __call__(self, lines: Sequence[str]) -> list[list[Span]]:
        return [[Span(one.start, one.end, _kind(one.entity_type)) for one in self._results(line)] for line in lines]

    def _results(self, line: str) -> list[Any]:
        return self._engine.analyze(line, language="en", score_threshold=LEAST_SCORE) if line.strip() else []


def _kind(name: str) -> str:
    return KINDS.get(name) or name[:16].rstrip("_")
