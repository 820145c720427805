"""Pictures and recordings in requests: what is written of them is what the run itself writes, and what is no medium is refused."""

import base64
import io
import wave

import numpy as np
import pytest
from PIL import Image

from model.decoding.sampling import Sampling
from model.stack import unstack_layers
from serve.jobs import Job
from serve.media import MediaPrompts
from serve.programs import Programs
from serve.protocol import Refused
from serve.served import Served
from tests.serve.conftest import run
from tests.train.media.conftest import EXPERIMENT, parameters
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


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


@pytest.fixture(scope="module")
def tokenizer():
    return dataset_of(EXPERIMENT).open()[0].tokenizer()


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return MediaPrompts(EXPERIMENT, tokenizer)


@pytest.fixture(scope="module")
def params():
    return parameters(6.0, EXPERIMENT)


@pytest.fixture(scope="module")
def programs(params, prompts):
    chunk = 16
    made = Programs(
        realise(EXPERIMENT.model),
        unstack_layers(params),
        widths=(3,),
        size=-(-SIZE // chunk) * chunk,
        chunk=chunk,
        rows=2,
        exact=True,
        media=prompts.empty,
    )
    made.compile()
    return made


def asked() -> list[list[dict]]:
    return [
        [text_part("ab"), image_part(picture(1)), text_part("c?")],
        [image_part(picture(2, 17)), text_part("what?")],
        [text_part("x"), audio_part(recording(3)), text_part("?")],
        [text_part("no medium")],
        [audio_part(recording(4)), image_part(picture(5))],
    ]


def test_answers_are_those_of_the_run(programs, prompts, params, tokenizer, make_engine):
    """Beside what the run's own writer draws, which pads prompts on the left and reads them together; alone and beside others."""
    writer, end = MediaWriter(EXPERIMENT, tokenizer, params), tokenizer.specials["document_end"]
    kinds = {"text": "text", "image_url": "image", "input_audio": "audio"}
    contents = {"text": lambda part: part["text"], "image_url": lambda part: base64.b64decode(part["image_url"]["url"].split(",")[1])}
    contents["input_audio"] = lambda part: base64.b64decode(part["input_audio"]["data"])
    for sampling in (Sampling(temperature=0.0), Sampling(temperature=0.8)):
        pieces = [writer.read([(kinds[part["type"]], contents[part["type"]](part)) for part in parts]) for parts in asked()]
        expected = [writer.ids([one], tokens=8, sampling=sampling, seed=5)[0] for one in pieces]
        made = [prompts.prompt(parts, "messages") for parts in asked()]
        stopping = Sampling(temperature=sampling.temperature, stop_ids=(end,))
        with make_engine(programs=programs) as parts:
            found = run(parts.engine, [Job(one.ids, stopping, 5, 8, media=one.media) for one in made])
            (again, *_) = run(parts.engine, [Job(made[0].ids, stopping, 5, 8, media=made[0].media)])
        assert [ids for ids, *_ in found] == expected
        assert again == found[0]
    assert len({tuple(ids) for ids in expected}) > 2


@pytest.mark.parametrize(
    "parts, said",
    [
        ([{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}], "no address is fetched"),
        ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], "no address is fetched"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}], "must be base64"),
        ([{"type": "input_audio", "input_audio": {}}], "must be base64"),
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
    with pytest.raises(Refused, match="larger than is read|cannot be decoded"):
        prompts.prompt([image_part(bomb)], "messages")


def test_messages_become_parts_in_their_order(prompts, tokenizer, params):
    from serve.protocol import chat_request

    generator = TextGenerator(realise(EXPERIMENT.model), params, tokenizer, tokenizer.specials["document_end"])
    served = Served("reader", generator, tokenizer, Chat(), size=SIZE, media=prompts)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [image_part(picture(1)), text_part("c?")]}]
    found = served.conversation(chat_request({"messages": messages}))
    expected = prompts.prompt([text_part("s"), text_part("\n"), image_part(picture(1)), text_part("c?")], "messages")
    assert found.ids == expected.ids
    for one, other in zip(found.media.image, expected.media.image, strict=True):
        np.testing.assert_array_equal(one, other)
    assert served.prompt("hi").ids == served.prompt(tokenizer.encode("hi").tolist()).ids
