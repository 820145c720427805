"""Questions on texts, whose answers are parts of them: files in the form of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from data.errors import UserError
from data.files import json_files
from data.files.json_files import kind_of
from data.records.record import LeftOut, bad_row, check_text, read_text

_FORM = 'Give {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}.'


class Answer(NamedTuple):
    """text: what is at `start` in the context, which counts characters from 0."""

    text: str
    start: int


class Question(NamedTuple):
    """id: its name in the file. answers: of people, none where it is impossible to answer from the context. where: file and id."""

    id: str
    question: str
    context: str
    answers: list[Answer]
    impossible: bool
    where: str


def read_questions(path: str, *, left_out: LeftOut | None = None) -> list[Question]:
    """The questions of a JSON file of SQuAD, gzipped or not.

    UserError with the file and the question's id for an answer that is not at its place in the context, and for whatever lacks. With
    `left_out`, such answers, and questions without any left, are left out and counted there by their reasons.
    """
    try:
        articles = json_files.parse(read_text(path)).get("data")
    except ValueError as error:
        raise UserError(f"{path}: {error}", _FORM) from None
    questions: dict[str, Question] = {}
    for where, context, entry in _entries(path, articles, left_out):
        try:
            question = _question(where, context, entry, left_out)
            if question.id in questions:
                raise UserError(f"{question.where}: the id stands twice", "Give each question an id of its own.")
        except UserError as error:
            if left_out is None:
                raise
            left_out[str(error).partition("\n")[0].rpartition(": ")[2]] += 1
        else:
            questions[question.id] = question
    if not questions:
        raise UserError(f"{path}: holds no questions that can be used", _FORM)
    return list(questions.values())


def _entries(path: str, articles: Any, left_out: LeftOut | None) -> Iterator[tuple[str, str, dict]]:
    """(place, context, question) of all in a file."""
    for a, article in enumerate(_objects(articles, f"{path}: data"), 1):
        for p, paragraph in enumerate(_objects(article.get("paragraphs"), f"{path}: article {a}: paragraphs"), 1):
            where = f"{path}: article {a}, paragraph {p}"
            context = paragraph.get("context")
            if not isinstance(context, str):
                bad_row(where, f"its context is {kind_of(context)}", _FORM, left_out)
                continue
            for q, entry in enumerate(_objects(paragraph.get("qas"), f"{where}: qas"), 1):
                yield f"{where}, question {q}", context, entry


def _objects(value: Any, what: str) -> list[dict]:
    if not isinstance(value, list):
        raise UserError(f"{what} is {kind_of(value)} instead of a list", _FORM)
    wrong = next((number for number, one in enumerate(value, 1) if not isinstance(one, dict)), None)
    if wrong is not None:
        raise UserError(f"{what}: entry {wrong} is {kind_of(value[wrong - 1])}", _FORM)
    return value


def _question(where: str, context: str, entry: dict, left_out: LeftOut | None) -> Question:
    name = entry.get("id")
    if not isinstance(name, str | int):
        raise UserError(f"{where}: its id is {kind_of(name)}", _FORM)
    where = f"{where.partition(': ')[0]}: question {name}"
    asked = check_text(entry.get("question"), f"{where}: its question")
    check_text(context, f"{where}: its context")
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise UserError(f"{where}: is_impossible is {kind_of(impossible)}", _FORM)
    if impossible:
        return Question(str(name), asked, context, [], True, where)
    answers = []
    for given in _objects(entry.get("answers"), f"{where}: answers"):
        text, start = check_text(given.get("text"), f"{where}: an answer"), given.get("answer_start")
        if type(start) is not int or start < 0 or not text or not context.startswith(text, start):
            bad_row(where, "an answer that is not at its place", _why(text, start, context), left_out)
        else:
            answers.append(Answer(text, start))
    if not answers:
        raise UserError(f"{where}: no answer, and is_impossible does not say that there is none", _FORM)
    return Question(str(name), asked, context, answers, False, where)


def _why(text: str, start: Any, context: str) -> str:
    places = [place for place in range(len(context)) if context.startswith(text, place)] if text else []
    found = f"it is at {', '.join(map(str, places[:5]))}" if places else "it is nowhere in the context"
    return f"{text[:60]!r} is said to be at {start}: {found}."
