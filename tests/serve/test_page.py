"""The chat page in a real browser, where there is one."""

import json
import time

import pytest

from serve.programs import Programs
from tests.serve.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser():
    found = Browser()
    yield found
    found.close()


@pytest.fixture
def page(browser, address):
    browser.open(f"{address}/")
    browser.run("localStorage.clear()")
    browser.open(f"{address}/?")
    browser.log.clear()
    yield browser
    assert not browser.log


def set_options(page, **values) -> None:
    for name, value in values.items():
        page.run(f"document.getElementById('{name}').value = '{value}'")


def say(page, text: str) -> None:
    page.run("document.getElementById('input').focus()")
    page.type(text)
    page.press("Enter")


def show(page, answer: str) -> None:
    """A talk as if the model had answered that."""
    page.run(f"turns = [{{role: 'user', content: 'x'.repeat(300)}}, {{role: 'assistant', content: {json.dumps(answer)}}}]; draw()")


ANSWERED = "!running && turns.length && turns.at(-1).role === 'assistant'"


def test_a_talk_is_streamed_shown_and_kept(page, address):
    set_options(page, max_tokens=12, temperature=0)
    say(page, "hello")
    page.until(ANSWERED)
    answer = page.run("turns.at(-1).content")
    assert answer and page.run("document.querySelectorAll('article').length") == 2
    assert "tokens" in page.run("document.querySelector('article.assistant .note').textContent")
    page.open(f"{address}/?again")
    assert page.run("turns.map(turn => turn.content)") == ["hello", answer]


def test_an_answer_can_be_stopped_and_asked_for_again_and_a_turn_edited(page, monkeypatch):
    set_options(page, max_tokens=5, temperature=0)
    say(page, "one")
    page.until(ANSWERED)
    first = page.run("turns.at(-1).content")
    page.run("[...document.querySelectorAll('button')].find(button => button.textContent === 'Again').click()")
    page.until(ANSWERED)
    assert page.run("turns.at(-1).content") == first and page.run("turns.length") == 2
    page.run("[...document.querySelectorAll('button')].find(button => button.textContent === 'Edit').click()")
    assert page.run("document.getElementById('input').value") == "one" and page.run("turns.length") == 0
    go_on = Programs.go_on

    def slowly(*arguments):
        time.sleep(0.05)
        return go_on(*arguments)

    monkeypatch.setattr("serve.engine.MOST_STEPS", 1)
    monkeypatch.setattr(Programs, "go_on", slowly)
    set_options(page, max_tokens=100)
    page.press("Enter")
    page.until("running !== null && turns.at(-1).content")
    page.press("Escape")
    page.until(ANSWERED)
    assert page.run("turns.at(-1).note") == "stopped" and 0 < len(page.run("turns.at(-1).content")) < 100


def test_mistakes_are_shown(page):
    set_options(page, max_tokens=100000)
    say(page, "x")
    page.until(ANSWERED)
    assert "do not fit behind" in page.run("document.querySelector('[role=alert]').textContent")
    page.log.clear()  # the browser notes that the server refused


def test_what_a_model_writes_is_never_html(page):
    show(page, "<img src=x onerror=alert(1)> **bold** `<b>` [x](javascript:alert(1))\n\n```\n<i>a</i>\n```")
    assert page.run("document.querySelectorAll('article img, article i, article b, article a').length") == 0
    assert page.run("document.querySelector('article strong').textContent") == "bold"
    assert page.run("document.querySelector('article pre code').textContent") == "<i>a</i>"


def test_markdown_is_laid_out(page):
    show(page, "# Head\n\n- one\n- two\n\n1. a\n2. b\n\n> said\n\n| x | y |\n|---|---|\n| 1 | 2 |")
    assert [page.run(f"document.querySelectorAll('article {tag}').length") for tag in ("h2", "ul li", "ol li", "blockquote", "td")] == [
        1,
        2,
        2,
        1,
        2,
    ]


def test_probabilities_are_on_the_tokens(page):
    set_options(page, max_tokens=6, temperature=0)
    page.run("document.getElementById('probabilities').checked = true")
    say(page, "hi")
    page.until(ANSWERED)
    titles = page.run("[...document.querySelectorAll('.token')].map(token => token.title)")
    assert titles and all("%" in title for title in titles)


def test_it_can_be_used_by_keyboard_and_by_those_who_listen(page):
    page.press("Enter")
    assert page.run("turns.length") == 0  # nothing to send
    assert page.run("document.activeElement.id") == "input"
    assert page.run(
        "[...document.querySelectorAll('button, textarea, input')].every(one => one.textContent || one.labels?.length || one.ariaLabel)"
    )
    assert page.run("document.getElementById('talk').getAttribute('aria-live')") == "polite"
    page.run("document.getElementById('settings').click()")
    page.until("document.getElementById('dialog').open")
    page.run("document.querySelector('dialog button').click()")
    page.until("!document.getElementById('dialog').open")


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(address, dark):
    phone = Browser(390, 700, dark)
    try:
        phone.open(f"{address}/")
        show(phone, "y" * 300 + "\n\n```\n" + "z" * 300 + "\n```")
        assert phone.run("document.documentElement.scrollWidth <= 390")
        ground = phone.run("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") != dark
    finally:
        phone.close()


def test_what_an_application_rests_on_is_shown_as_text(page):
    """How sure it is, its quotes and links to the web alone; what is written there is never run."""
    found = {
        "route": "retrieved",
        "intent": "opening_hours",
        "confidence": 0.914,
        "missing_slots": ["order"],
        "citations": [
            {"id": 1, "link": "https://a.example/1", "quote": "<b>from nine</b> to five"},
            {"id": 2, "link": "javascript:alert(1)", "quote": "never"},
        ],
    }
    page.run(f"turns = [{{role: 'user', content: 'x'}}, {{role: 'assistant', content: 'said', omnia: {json.dumps(found)}}}]; draw()")
    box = "document.querySelector('article.assistant details')"
    assert page.run(f"{box}.querySelector('summary').textContent") == "retrieved · opening hours · 91 % sure"
    assert page.run(f"[...{box}.querySelectorAll('a')].map(one => one.href)") == ["https://a.example/1"]
    assert page.run(f"[...{box}.querySelectorAll('blockquote')].map(one => one.textContent)") == ["<b>from nine</b> to five", "never"]
    assert page.run(f"{box}.open") and page.run(f"{box}.querySelectorAll('b, script').length") == 0
    assert "order" in page.run(f"{box}.textContent")
    page.run("delete turns[1].omnia.confidence; turns[1].omnia.confidence = null; draw()")
    assert "sure" not in page.run(f"{box}.querySelector('summary').textContent")


def test_code_is_copied(page):
    show(page, "see:\n\n```python\nprint(1)\nprint(2)\n```")
    page.run("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.run("document.querySelector('article pre button').click()")
    page.until("document.querySelector('article pre button').textContent === 'Copied'")
    assert page.run("window.copied").rstrip("\n") == "print(1)\nprint(2)"


def test_nothing_that_is_written_into_the_page_runs(page):
    """Its policy names its own script and style alone."""
    page.run("document.body.appendChild(document.createElement('script')).textContent = 'window.ran = 1'")
    page.run("document.body.insertAdjacentHTML('beforeend', '<p id=styled style=\\'color: red\\'>x</p><img src=x onerror=\\'ran=1\\'>')")
    assert page.run("window.ran") is None and page.run("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
    page.log.clear()  # where the browser says so
