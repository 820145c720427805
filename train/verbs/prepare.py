"""`omnia prepare`: text, media or codes; and clean text before that."""

from typing import Any

import tyro

from data.errors import UserError
from train.verbs.arguments import parse, start_jax


def prepare(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("omnia prepare text --input PATH [PATH ...] --output DIR --tokenizer byte|char|sentencepiece:SIZE|FILE")
        print("omnia prepare clean --input PATH [PATH ...] --output DIR")
        print("omnia prepare classifier --input LABELLED [LABELLED ...] --output FILE")
        print("omnia prepare images|video|audio|interleaved --input PATH [PATH ...] --output DIR")
        print("omnia prepare codes --runs RUN [RUN ...] --output DIR\n")
        print("omnia prepare text --help, omnia prepare images --help list the rest.")
        return
    kind: Any = arguments[0]
    rest = arguments[1:]
    if kind == "text":
        from data.text.prepare import PrepareText, prepare_text

        prepare_text(parse(PrepareText, "prepare text", rest))
        return
    if kind == "clean":
        from data.clean.prepare import PrepareClean, prepare_clean

        prepare_clean(parse(PrepareClean, "prepare clean", rest))
        return
    if kind == "classifier":
        from data.clean.classifier import PrepareClassifier, prepare_classifier

        prepare_classifier(parse(PrepareClassifier, "prepare classifier", rest))
        return
    if kind == "codes":
        start_jax()
        from train.verbs.codes import PrepareCodes, prepare_codes

        return prepare_codes(parse(PrepareCodes, "prepare codes", rest))
    from data.media.preparation.prepare import KINDS, PrepareMedia, prepare_media

    if kind not in KINDS:
        raise UserError(
            f"omnia prepare: cannot prepare {kind!r}", f"What can be prepared: text, clean, classifier, {', '.join(KINDS)}, codes."
        )
    prepare_media(parse(PrepareMedia, f"prepare {kind}", rest, PrepareMedia(tyro.MISSING, kind)))
