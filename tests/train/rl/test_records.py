"""Files that people give to learn from: every value is what it is said to be, or is refused with its file and line."""

import gzip
import json

import numpy as np
import pytest

from data.errors import UserError
from data.records.rows import read_records
from data.tokenizer import byte_tokenizer
from train.generation.chat import Chat
from train.rl.environments.environment import Prompt, Reply
from train.rl.environments.files import PromptFile
from train.sources.encoding import Transcriber
from train.sources.records import comparisons_of, messages_of, read_comparisons, turns_of, unused
from train.verbs.label import record_of

USER, ANSWER, OTHER = ({"role": role, "content": text} for role, text in (("user", "hi"), ("assistant", "yes"), ("assistant", "no")))


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def compared(tmp_path, **record):
    (found,) = read_comparisons(write(tmp_path / "pairs.jsonl", record))
    return found


# ------------------------------------------------------------------------------------------------------------------- comparisons


def test_the_highest_score_is_best_wherever_it_stands(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.permutation(rng.normal(size=4)).tolist()
        row = compared(tmp_path, prompt="p", responses=["a", "b", "c", "d"], scores=scores)
        assert row["best"] == int(np.argmax(scores)) and row["scores"] == scores


def test_a_tie_for_the_highest_score_leaves_its_order_out(tmp_path):
    """Of equals at the top one stays, against all that are worse; what is learned from every score keeps them all."""
    record = {"prompt": "p", "responses": ["a", "b", "c", "d"], "scores": [0, 2, 1, 2]}
    assert compared(tmp_path, **record)["responses"] == ["a", "b", "c"] and compared(tmp_path, **record)["best"] == 1
    path = write(tmp_path / "pairs.jsonl", record, {**record, "scores": [3, 3, 3, 3]})
    assert [row["responses"] for row in read_comparisons(path)] == [["a", "b", "c"]]  # the second says nothing
    assert [row["scores"] for row in read_comparisons(path, by_score=True)] == [[0, 2, 1, 2], [3, 3, 3, 3]]
    with pytest.raises(UserError, match="equal scores"):
        compared(tmp_path, prompt="p", responses=["a", "b"], scores=[1, 1])


@pytest.mark.parametrize(
    "fields, says",
    [
        ({}, "neither best nor scores"),
        *(({"best": best}, "not a whole number from 0 to 1") for best in (-1, 2, True, "0", 0.0, [0])),
        ({"best": 0, "scores": [0.5, 1]}, "best 0 has the score 0.5, and another response 1"),
        *(
            ({"scores": scores}, "not one number for each")
            for scores in ([1], [1, None], [1, True], [1, "2"], [1, float("nan")], [1e39, 0], 3)
        ),
        ({"best": 0, "responses": ["a", None]}, "response 1 is null"),
        ({"best": 0, "responses": ["a", 5]}, "response 1 is a number"),
        ({"best": 0, "responses": ["a", {"text": "b"}]}, "response 1 is an object"),
        ({"best": 0, "responses": ["a"]}, "two or more"),
        ({"best": 0, "prompt": 5}, "prompt is a number"),
        ({"best": 0, "prompt": None}, "prompt is null"),
        ({"best": 0, "prompt": {"text": "p"}}, "prompt is an object"),
        ({"best": 0, "prompt": "\ud800"}, "surrogate"),
        ({"best": 0, "noise": -1}, "noise is -1"),
        ({"score": [0, 1]}, "did you mean 'scores'"),
        ({"Best": 0}, "did you mean 'best'"),
    ],
)
def test_what_does_not_say_which_response_is_best_is_refused(tmp_path, fields, says):
    path = write(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "responses": ["a", "b"]} | fields)
    with pytest.raises(UserError, match=says) as raised:
        read_comparisons(path)
    assert f"{path}: line 2" in str(raised.value) and str(raised.value).count("\n") == 1


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"best": 1}, "best stands beside chosen"),
        ({"best": 0}, "best stands beside chosen"),
        ({"responses": ["a", "b"]}, "responses stands beside chosen"),
        ({"scores": [0, 1]}, "chosen has the score 0"),
        ({"chosen": None}, "chosen is null"),
        ({"rejected": 3}, "rejected is a number"),
        ({"rejected": [OTHER]}, "chosen is not a conversation: a string"),
        ({"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "ho"}, OTHER]}, "differ before their last turns"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "does not begin with prompt"),
        ({"chosen": [USER], "rejected": [OTHER]}, "the last turn is the user's"),
        ({"prompt": [USER, ANSWER]}, "the assistant has the last word"),
        ({"prompt": []}, "an empty list"),
        ({"prompt": [{"role": "user", "content": None}]}, "content of turn 1 is null"),
        ({"prompt": [{"role": "human", "content": "a"}]}, "the role 'human'"),
        ({"prompt": [{"role": ["user"], "content": "a"}]}, "the role \\['user'\\]"),
        ({"prompt": ["hi"]}, "turn 1 is a string"),
    ],
)
def test_a_pair_that_contradicts_itself_is_refused(tmp_path, fields, says):
    path = write(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"} | fields)
    with pytest.raises(UserError, match=says):
        read_comparisons(path)


def test_conversations_are_prompts_in_every_form_in_which_they_are_published(tmp_path):
    """A prompt of turns; both sides whole; the text of a prompt and both sides whole, with what stood before it; answers alone."""
    tokenizer, system = byte_tokenizer(), {"role": "system", "content": "be kind"}
    transcriber = Transcriber(tokenizer)
    asked = transcriber.prompt(Prompt("hi", messages=(("user", "hi"),)))
    for record in (
        {"prompt": [USER], "responses": ["yes", "no"], "best": 0},
        {"prompt": [USER], "chosen": "yes", "rejected": "no"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
        {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"prompt": "hi", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
        {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]},
    ):
        row = compared(tmp_path, **record)
        assert row["responses"] == ["yes", "no"] and row["best"] == 0
        assert transcriber.prompt(Prompt(row["prompt"], messages=row["messages"])) == asked
    longer = compared(tmp_path, prompt="hi", chosen=[system, USER, ANSWER], rejected=[system, USER, OTHER])
    assert longer["messages"] == (("system", "be kind"), ("user", "hi"))


ENDS = {"<|im_start|>": 256, "<|im_end|>": 257, "<|endoftext|>": 258}
TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (("user", "hi <|im_end|>"), ("assistant", "ho"), ("user", "and?"))


def test_conversations_of_a_chat_model_are_written_by_its_template():
    """What is learned, sampled and answered, put together, is the whole conversation as the template has it."""
    tokenizer, chat = byte_tokenizer(), Chat(TEMPLATE, specials=ENDS, stop_ids=(258, 257))
    transcriber, prompt = Transcriber(tokenizer, chat), Prompt("", messages=TURNS)
    messages = [{"role": role, "content": text} for role, text in TURNS]
    ids, learned = transcriber.demonstration(prompt, "so")
    more = [*messages, {"role": "assistant", "content": "so"}]
    assert ids + [*b"\n"] == chat.encode(more, tokenizer, reply=False) and ids[: len(ids) - 3] == transcriber.prompt(prompt)
    assert [id_ for id_, one in zip(ids, learned, strict=True) if one] == [*b"ho", 257, *b"so", 257]
    told, whole = Reply("no"), chat.encode([*more, {"role": "user", "content": "no"}], tokenizer)
    assert ids + transcriber.reply(told, ended=True) == ids[:-1] + transcriber.reply(told, ended=False) == whole
    assert transcriber.read_on(transcriber.prompt(prompt), [*b"so", 257]) == "so" and 257 in transcriber.stop_ids
    assert transcriber.prompt(Prompt("plain")) == [tokenizer.document_start, *b"plain"]
    first = Prompt("", messages=(("assistant", ""), ("user", "so?"), ("assistant", ""), ("user", "well?")))
    ids, learned = transcriber.demonstration(first, "yes")
    assert [id_ for id_, one in zip(ids, learned, strict=True) if one] == [*b"yes", 257]


def test_a_template_that_writes_no_end_or_the_date_is_followed():
    """Nothing is cut off where a turn has no end of its own, and what is learned does not depend on the day."""
    tokenizer = byte_tokenizer()
    plain = Transcriber(
        tokenizer, Chat("{{ strftime_now('%Y') }}{% for turn in messages %}{{ turn.content }}\n{% endfor %}", stop_ids=(258,))
    )
    asked = Prompt("", messages=(("user", "hi"),))
    assert plain.prompt(asked) == [*b"2025hi\n"] and plain.demonstration(asked, "ho")[0] == [*b"2025hi\nho", 258]
    assert plain.reply(Reply("no"), ended=True) == plain.reply(Reply("no"), ended=False) == [*b"\nno\n"]


def test_fields_that_are_not_used_are_told_apart_from_those_that_are(tmp_path):
    known = ("prompt", "chosen")
    records = read_records(
        write(tmp_path / "a.jsonl", {"prompt": [USER | {"name": "Ann"}], "id": 1}, {"chosen": "a", "source": "b", "id": 2})
    )
    assert unused(records, known) == ["id", "source", "name of a turn"]


def test_labels_are_read_back_as_they_were_written(tmp_path):
    """Conversations too, and a best response that was drawn with noise."""
    texts = Prompt("one\u2028two"), Prompt("hi", messages=(("system", "a"), ("user", "hi")))
    for prompt, noise, best in ((texts[0], 0.0, 1), (texts[1], 0.0, 1), (texts[1], 0.5, 0)):
        row = compared(tmp_path, **record_of(prompt, ["é", "b"], [0.25, 1.5], best, noise))
        assert (row["prompt"], row["messages"]) == (prompt.text if not prompt.messages else "a\nhi", prompt.messages)
        assert (row["responses"], row["scores"], row["best"]) == (["é", "b"], [0.25, 1.5], best)
    assert turns_of(messages_of(texts[1].messages), "") == texts[1].messages


# -------------------------------------------------------------------------------------------------------------------------- files


def test_a_file_is_read_whatever_it_is_wrapped_in(tmp_path):
    records = [{"a": "é\u2028", "b": number} for number in range(3)]
    lines = "\r\n\n".join(map(json.dumps, records)).encode()
    path = tmp_path / "file"
    for content in (
        lines,
        b"\xef\xbb\xbf" + lines,
        gzip.compress(lines, mtime=0),
        json.dumps(records, indent=1).encode(),
        b"\xef\xbb\xbf" + json.dumps(records).encode(),
    ):
        path.write_bytes(content)
        assert read_records(str(path)) == records


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "holds no records"),
        (b"\n \n", "holds no records"),
        (b"[]", "holds no records"),
        (gzip.compress(b'{"a": 1}' * 99, mtime=0)[:-9], "damaged gzip"),
        (b"\x1f\x8b" + b"x" * 30, "damaged gzip"),
        (gzip.compress(b'{"a": "' + bytes(range(65, 91)) * 99, mtime=0)[:30] + b"\0" * 40, "damaged gzip"),
        (b'{"a": 1}\n{"a": "\xff"}', "line 2: invalid UTF-8 at byte 7"),
        (b'{"a": 1}\n{"a": 1, "a": 2}', "line 2: 'a' stands twice"),
        (b'{"a": 1}\n[1]', "line 2: a list instead of an object"),
        (b'[{"a": 1}, "b"]', "record 2: a string instead of an object"),
        (b'{"a": 1}\n{"a": ', "line 2"),
        (b'[{"a": 1},', "line 1"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
    ],
)
def test_a_file_that_is_damaged_is_named_with_its_line(tmp_path, content, says):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as raised:
        read_records(str(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_within_an_object_is_pointed_at(tmp_path, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"prompt": "p", "response": "r"}] * 2}, indent=indent))
    with pytest.raises(UserError, match="'data' holds the records"):
        read_comparisons(str(path))
    with pytest.raises(UserError, match="'data' holds the records"):
        PromptFile(str(path), str(path)).prompt(0, 0)


def test_what_was_read_is_neither_shared_nor_kept_for_another_run(tmp_path):
    path = tmp_path / "a.jsonl"
    read_comparisons(write(path, {"prompt": "p", "chosen": "a", "rejected": "b"}))[0]["responses"].clear()
    assert read_comparisons(str(path))[0]["responses"] == ["a", "b"]
    write(path, {"prompt": "p", "chosen": "c", "rejected": "d"})
    assert read_comparisons(str(path))[0]["responses"] == ["c", "d"]


# ------------------------------------------------------------------------------------------------------------------------ prompts


def shown(tmp_path, record, **fields):
    path = write(tmp_path / "a.jsonl", record)
    file = PromptFile(path, path, **fields)
    prompt = file.prompt(0, 0)
    return prompt, file.demonstration(prompt, 0, 0)


def test_prompts_and_responses_may_be_turns(tmp_path):
    prompt, response = shown(tmp_path, {"prompt": [USER], "response": "yes"})
    assert prompt.messages == (("user", "hi"),) and prompt.text == "hi" and response == "yes"
    assert shown(tmp_path, {"prompt": [USER], "answer": [ANSWER]}, response_template="{answer}")[1] == "yes"
    assert shown(tmp_path, {"messages": [USER, ANSWER], "prompt": "other"})[0].messages == (("user", "hi"),)
    prompt, response = shown(tmp_path, {"messages": [USER, ANSWER], "q": "other", "a": 5}, prompt_template="{q}?", response_template="{a}")
    assert (prompt.text, prompt.messages, response) == ("other?", (), "5")  # templates that are given are used


@pytest.mark.parametrize(
    "record, says",
    [
        ({"prompt": "p"}, "line 1: has no field 'response'"),
        *(({"prompt": "p", "response": value}, "line 1: response is ") for value in (None, True, {"text": "r"}, float("nan"), ["r"], [])),
        *(({"prompt": value, "response": "r"}, "line 1: prompt is ") for value in (None, False, {"text": "p"}, ["p"])),
        ({"prompt": "p", "response": [USER, ANSWER]}, "not a single turn of the assistant"),
        ({"prompt": "\udc80", "response": "r"}, "surrogate"),
        ({"prompts": "p", "response": "r"}, "Did you mean 'prompts'"),
        ({"messages": [ANSWER]}, "nothing before the answer"),
        ({"messages": [USER, ANSWER, OTHER]}, "the assistant has the last word"),
        ({"messages": "hi"}, "messages is not a conversation"),
    ],
)
def test_what_is_no_text_never_becomes_one(tmp_path, record, says):
    with pytest.raises(UserError, match=says) as raised:
        shown(tmp_path, record)
    assert str(tmp_path / "a.jsonl") in str(raised.value)


def test_templates_take_texts_and_numbers_and_leave_other_braces_alone(tmp_path):
    record = {"my-field": 5, "x": 0.5, "long": 10**30, "text": "{x}"}
    prompt, response = shown(tmp_path, record, prompt_template='{my-field} {x} {long} {text} {"a": {}}', response_template="{x}")
    assert prompt.text == f'5 0.5 {10**30} {{x}} {{"a": {{}}}}' and response == "0.5"


def test_records_of_comparisons_of_a_data_set_pass_the_same_checks():
    """Records come from TFDS as from files."""
    from data.records.record import Record

    with pytest.raises(UserError, match="example 2: response 0 is a number"):
        comparisons_of(
            "tfds:x",
            [Record({"prompt": "p", "responses": [value, "b"], "best": 1}, f"tfds:x: example {n}") for n, value in ((1, "a"), (2, 3))],
        )
