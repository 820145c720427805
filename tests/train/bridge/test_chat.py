"""Conversations: as the template says, and nothing that a person writes becomes a special token."""

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from data.tokenizer import hugging_face_tokenizer
from tests.train.bridge.published_models import SPECIALS, TEMPLATE, byte_level
from train.generation.chat import Chat, load_chat
from train.verbs.generate import USUAL, Generate, filters_of

CHAT = Chat(TEMPLATE, {"eos_token": "<|im_end|>"}, {text: i for i, text in enumerate(SPECIALS)}, (), (2,), {"temperature": 0.5})
TOKENIZER = hugging_face_tokenizer(byte_level().to_str().encode())


def said(*contents: str) -> list[dict]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def test_pieces_are_the_text_of_the_template():
    messages = said("Hi", "Hello {{ 1 + 1 }}", "How\n are you?")
    expected = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE).render(messages=messages)
    assert "".join(text for text, _ in CHAT.render(messages, reply=False)) == expected
    assert CHAT.encode(messages, TOKENIZER, reply=False) == byte_level().encode(expected).ids


@given(
    st.lists(st.lists(st.sampled_from([*SPECIALS, "<|im_", "end|>", "a", "\ue000", "0", "\ue0011\ue001", " "])).map("".join), min_size=1)
)
def test_no_message_has_special_tokens(contents):
    """Their number is the template's, whatever is said; and what is said is all there."""
    messages = said(*contents)
    pieces = CHAT.render(messages, reply=False)
    assert [i for _, i in pieces if i is not None] == [1, 2] * len(messages)
    assert "".join(text for text, _ in pieces) == "".join(
        f"<|im_start|>{one['role']}\n{one['content'].strip()}<|im_end|>\n" for one in messages
    )
    ids = CHAT.encode(messages, TOKENIZER, reply=False)
    assert [i for i in ids if i < len(SPECIALS)] == [1, 2] * len(messages)


@pytest.mark.parametrize(
    "template, words",
    [
        ("{{ raise_exception('no system here') }}", "no system here"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% for", "refuses"),
        ("{{ messages.append(1) }}", "unsafe|safely"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_can_refuse_and_do_no_harm(template, words):
    with pytest.raises(UserError, match=words):
        Chat(template).render(said("Hi"))


def test_a_template_finds_what_the_library_gives_it():
    """No tools, no documents, a tag around replies, and JSON with the words of Python's."""
    template = (
        "{% if tools is not none or documents is not none %}TOOLS{% endif %}{% for message in messages %}\n  {%- generation %}\n"
        "[{{ message | tojson(separators=(',', ':'), sort_keys=true) }}]\n  {% endgeneration %}\n{% endfor %}"
    )
    assert "".join(text for text, _ in Chat(template).render(said("<é"), reply=False)) == '[{"content":"<é","role":"user"}]\n'


def test_sampling_is_the_users_then_the_authors():
    options = Generate("run", temperature=0.8, top_k=0)
    found = filters_of(options, {"temperature": 0.5, "top_k": 5, "top_p": 0.9})
    assert found == USUAL | {"temperature": 0.8, "top_k": 0, "top_p": 0.9}


def test_a_chat_is_read_as_it_was_written(tmp_path):
    assert load_chat(tmp_path) == Chat()
    CHAT.save(tmp_path)
    assert load_chat(tmp_path) == CHAT
    (tmp_path / "chat.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        load_chat(tmp_path)
