"""Pictures, videos and recordings in requests: what is written of them is what the run itself writes, and what is no medium is refused."""

import base64
import dataclasses
import functools
import io
import urllib.request
import wave

import jax
import numpy as np
import openai
import pytest
from PIL import Image

from data.errors import UserError
from model.decoding.sampling import Sampling
from model.stack import unstack_layers
from serve.jobs import Job
from serve.media import MediaPrompts
from serve.programs import Programs
from serve.protocol import Refused
from serve.served import Served
from tests.data.media.media_files import video_file
from tests.serve.browser import CHROMIUM, Browser
from tests.serve.conftest import run
from tests.train.media.conftest import CROSS, EXPERIMENT, parameters
from train.generation.about_media import MediaWriter
from train.generation.chat import Chat
from train.generation.text import TextGenerator
from train.kinds import realise
from train.sources.dataset import dataset_of

SIZE = EXPERIMENT.model.context_length


def picture(seed: int, size: int = 40) -> bytes:
    found = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)).save(found, "PNG")
    return found.getvalue()


def recording(seed: int, seconds: float = 0.5) -> bytes:
    found = io.BytesIO()
    with wave.open(found, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.random.default_rng(seed).integers(-9000, 9000, int(16000 * seconds), np.int16).tobytes())
    return found.getvalue()


def image_part(content: bytes) -> dict:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(content).decode()}}


def audio_part(content: bytes) -> dict:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": "wav"}}


def video_part(content: bytes) -> dict:
    return {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + base64.b64encode(content).decode()}}


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


@pytest.fixture(scope="module")
def tokenizer():
    return dataset_of(EXPERIMENT).open()[0].tokenizer()


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return MediaPrompts(EXPERIMENT, tokenizer)


@functools.cache
def with_open_gates(experiment):
    """Parameters of a model that is sure of something, and lets through what it attends to."""
    made = parameters(6.0, experiment)
    return jax.tree_util.tree_map_with_path(lambda path, x: x + 0.7 if "gate" in path[-1].key else x, made)


@pytest.fixture(scope="module")
def params():
    return with_open_gates(EXPERIMENT)


def programs_of(experiment, params, prompts, guesses: int = 0):
    chunk = 16
    made = Programs(
        prompts.model(realise(experiment.model), params),
        unstack_layers(params),
        widths=(3,),
        size=-(-(SIZE + guesses) // chunk) * chunk,
        chunk=chunk,
        rows=2,
        exact=True,
        reader=prompts,
        guesses=guesses,
    )
    made.compile()
    return made


@pytest.fixture(scope="module")
def programs(params, prompts):
    return programs_of(EXPERIMENT, params, prompts)


@pytest.fixture(scope="module")
def reader(params, prompts, tokenizer):
    generator = TextGenerator(realise(EXPERIMENT.model), params, tokenizer, tokenizer.specials["document_end"])
    return Served("reader", generator, tokenizer, Chat(), size=SIZE, reader=prompts)


def asked() -> list[list[dict]]:
    return [
        [text_part("ab"), image_part(picture(1)), text_part("c?")],
        [image_part(picture(2, 17)), text_part("what?")],
        [text_part("x"), audio_part(recording(3)), text_part("?")],
        [text_part("no medium")],
        [audio_part(recording(4)), image_part(picture(5))],
        [video_part(video_file()), text_part("!")],
    ]


def contents(part: dict) -> tuple[str, str | bytes]:
    """What a part holds, as a run's own writer takes it."""
    if part["type"] == "text":
        return "text", part["text"]
    inner = part[part["type"]]
    return part["type"].split("_")[part["type"] == "input_audio"], base64.b64decode(inner.get("data") or inner["url"].split(",")[1])


@pytest.mark.parametrize("case", ["tokens", "across", "across, with guesses"])
def test_answers_are_those_of_the_run(case, request, prompts, tokenizer, make_engine):
    """Beside what the run's own writer draws, which pads prompts on the left and reads them together; alone and beside others."""
    experiment, guesses = EXPERIMENT if case == "tokens" else CROSS, 2 * case.endswith("guesses")
    params, end = with_open_gates(experiment), tokenizer.specials["document_end"]
    if case == "tokens":
        reader, programs = prompts, request.getfixturevalue("programs")
    else:
        reader = MediaPrompts(experiment, tokenizer)
        programs = programs_of(experiment, params, reader, guesses)
    writer = MediaWriter(experiment, tokenizer, params)
    for sampling in (Sampling(temperature=0.0), Sampling(temperature=0.8)):
        pieces = [writer.read([contents(part) for part in parts]) for parts in asked()]
        expected = [writer.ids([one], tokens=8, sampling=sampling, seed=5)[0] for one in pieces]
        made = [reader.prompt(parts, "messages") for parts in asked()]
        stopping = Sampling(temperature=sampling.temperature, stop_ids=(end,))
        with make_engine(programs=programs) as parts:
            found = run(parts.engine, [Job(one.ids, stopping, 5, 8, whole=one.whole) for one in made])
            (again, *_) = run(parts.engine, [Job(made[0].ids, stopping, 5, 8, whole=made[0].whole)])
        assert [ids for ids, *_ in found] == expected
        assert again == found[0]
    assert len({tuple(ids) for ids in expected}) > 2


def test_more_media_than_tokens_are_refused_by_name(tokenizer):
    many = dataclasses.replace(CROSS, data=dataclasses.replace(CROSS.data, images=60))
    with pytest.raises(UserError, match="attend to .* places of media"):
        MediaPrompts(many, tokenizer).model(realise(many.model), with_open_gates(CROSS))


@pytest.mark.parametrize(
    "parts, said",
    [
        ([{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}], "no address is fetched"),
        ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], "no address is fetched"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}], "must be base64"),
        ([{"type": "input_audio", "input_audio": {}}], "must be base64"),
        ([{"type": "video_url", "video_url": {"url": "http://example.com/a.mp4"}}], "no address is fetched"),
        ([video_part(b"no video")], "cannot be decoded"),
        ([image_part(b"no picture")], "cannot be decoded"),
        ([image_part(picture(1)[:200])], "cannot be decoded"),
        ([image_part(picture(1))] * 9, "fewer or smaller media"),
        ([text_part("x" * 5000)], "the context has"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_medium_is_refused(prompts, parts, said):
    with pytest.raises(Refused, match=said) as refused:
        prompts.prompt(parts, "messages")
    assert refused.value.param == "messages" and refused.value.status == 400


def test_a_bomb_is_refused_by_its_header(prompts):
    """A picture of 2.5 thousand million pixels in a few kilobytes is never decoded."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    with pytest.raises(Refused, match="too large: more than|larger than is read"):
        prompts.prompt([image_part(bomb)], "messages")


def test_a_client_sends_media_and_is_told_what_is_wrong_with_them(listen, programs, reader):
    with listen({"programs": programs}, served=reader) as (address, _, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)

        def said(*parts) -> str:
            how = {"model": "tiny", "messages": [{"role": "user", "content": [*parts]}], "max_tokens": 8, "temperature": 0}
            (choice,) = client.chat.completions.create(**how).choices
            return choice.message.content

        pictures, sounds = (
            [said(image_part(picture(n)), text_part("?")) for n in range(4)],
            [said(audio_part(recording(n))) for n in (1, 2)],
        )
        assert len({*pictures}) > 1 and pictures[1] == said(image_part(picture(1)), text_part("?"))
        assert all(isinstance(text, str) for text in (*sounds, said(video_part(video_file()), text_part("!"))))
        for part in (image_part(b"no picture"), {"type": "image_url", "image_url": {"url": "http://a/b.png"}}, audio_part(b"")):
            with pytest.raises(openai.BadRequestError) as error:
                said(part)
            assert error.value.param == "messages" and error.value.code == "invalid_media"


def test_messages_become_parts_in_their_order(reader, prompts, tokenizer):
    from serve.protocol import chat_request

    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [image_part(picture(1)), text_part("c?")]}]
    found = reader.conversation(chat_request({"messages": messages}))
    expected = prompts.prompt([text_part("s"), text_part("\n"), image_part(picture(1)), text_part("c?")], "messages")
    assert found.ids == expected.ids
    for one, other in zip(found.whole.image, expected.whole.image, strict=True):
        np.testing.assert_array_equal(one, other)
    assert reader.prompt("hi").ids == reader.prompt(tokenizer.encode("hi").tolist()).ids


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_takes_pictures_and_recordings(listen, programs, reader):
    """By drop, by file and by microphone; a photograph larger than is useful is made smaller."""
    drop = """{const bytes = Uint8Array.from(atob('%s'), letter => letter.charCodeAt(0)), data = new DataTransfer()
        data.items.add(new File([bytes], 'a', {type: '%s'}))
        document.dispatchEvent(new DragEvent('drop', {dataTransfer: data}))}"""
    browser = Browser()
    try:
        with listen({"programs": programs}, served=reader) as (address, _, _):
            browser.open(f"{address}/")
            assert browser.run("['attach', 'record'].every(name => !document.getElementById(name).hidden)")
            browser.run(drop % (base64.b64encode(picture(1)).decode(), "image/png"))
            browser.until("held.length === 1")
            assert browser.run("held[0].image_url.url") == image_part(picture(1))["image_url"]["url"]
            browser.run("document.querySelector('#held button').click()")
            assert browser.run("held.length") == 0
            browser.run(drop % (base64.b64encode(picture(1, 2000)).decode(), "image/png"))
            browser.until("held.length === 1")
            content = base64.b64decode(browser.run("held[0].image_url.url").split(",")[1])
            assert Image.open(io.BytesIO(content)).size == (1536, 1536)
            browser.run("document.querySelector('#held button').click()")
            browser.run(drop % (base64.b64encode(recording(2)).decode(), "audio/wav"))
            browser.until("held.length === 1")
            with wave.open(io.BytesIO(base64.b64decode(browser.run("held[0].input_audio.data")))) as file:
                sent = np.frombuffer(file.readframes(file.getnframes()), np.int16)
                assert (file.getframerate(), file.getnchannels()) == (16000, 1)
            with wave.open(io.BytesIO(recording(2))) as file:
                given = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            assert len(sent) == len(given) and np.abs(sent.astype(int) - given).max() <= 1
            browser.run(drop % (base64.b64encode(video_file()).decode(), "video/mp4"))
            browser.until("held.length === 2")
            assert browser.run("held[1].video_url.url") == video_part(video_file())["video_url"]["url"]
            browser.run("document.getElementById('max_tokens').value = 4")
            browser.run("document.getElementById('input').focus()")
            browser.type("what?")
            browser.press("Enter")
            browser.until("!running && turns.length === 2")
            assert browser.run("turns[1].error") is None and browser.run("document.querySelectorAll('article.user audio').length") == 1
            assert browser.run("document.querySelectorAll('article.user video').length") == 1
            browser.run("document.getElementById('record').click()")
            browser.until("recorder !== null")
            browser.run("new Promise(done => setTimeout(done, 400))")
            browser.run("document.getElementById('record').click()")
            browser.until("held.length === 1 && recorder === null")
            with wave.open(io.BytesIO(base64.b64decode(browser.run("held[0].input_audio.data")))) as file:
                assert 0.2 < file.getnframes() / file.getframerate() < 3
            browser.run(drop % ("AAAA", "image/png"))
            browser.until("!!document.querySelector('[role=alert]')")
            assert "cannot be attached" in browser.run("document.querySelector('[role=alert]').textContent")
            assert not browser.log
    finally:
        browser.close()


def test_the_page_of_a_model_of_text_offers_no_media(address):
    with urllib.request.urlopen(address) as page:
        assert 'data-media=""' in page.read().decode()
