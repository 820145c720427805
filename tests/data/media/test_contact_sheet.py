"""Contact sheets show what the model is fed."""

import numpy as np
import pytest

from data.errors import UserError
from data.media.contact_sheet import Cell, cells_of_batch, cells_of_split, draw_sheet
from data.media.kinds import Part, Sample
from data.media.shards import write_media
from data.media.world import World
from tests.data.media.media_files import audio_file, image_file, video_file
from tests.data.media.media_rows import SHAPES, TOKENIZER, batches, with_facts


def test_the_cells_of_a_batch_are_its_samples():
    world, made = World(scenes=60), batches(seed=0)
    cells = cells_of_batch(made, 0, 6)
    rows, _, numbers = made.samples(0, 6)
    assert len(cells) == len(rows)
    kinds = set()
    for cell, number in zip(cells, numbers, strict=True):
        pieces, _ = world.samples("train", np.array([number]), SHAPES, TOKENIZER, None)[0]
        assert cell.learned == TOKENIZER.decode(pieces[-1].content)
        assert cell.read.strip().endswith("?") and len(cell.pictures) == {"text": 0, "image": 1, "video": 4, "audio": 1}[pieces[0].kind]
        kinds.add(pieces[0].kind)
        if pieces[0].kind == "image":
            assert cell.pictures[0].shape == (16, 16, 3) and (cell.pictures[0] != 24).any()
    assert kinds == {"text", "image", "video", "audio"}


def test_the_cells_of_a_folder_are_its_files_and_what_is_wrong_with_them(tmp_path):
    samples = [
        Sample((Part("image", image_file()), Part("text", "waves", learned=True)), label=1),
        Sample((Part("video", video_file()), Part("text", "what?"))),
        Sample((Part("audio", audio_file()),)),
        Sample((Part("image", image_file()[:300]),)),
    ]
    split = write_media(str(tmp_path), {"train": map(with_facts, samples)}, classes=["a", "b"]).split("train")
    cells = cells_of_split(split, np.arange(4), ["a", "b"])
    assert [len(cell.pictures) for cell in cells if "cannot" not in cell.title and cell.pictures] == [1, 4, 1]
    assert cells[0].title == "0: b" and cells[0].learned == "waves" and cells[1].read == "what?"
    assert cells[3].title.startswith("3: ")


def test_a_sheet_has_room_for_all_cells():
    cells = [Cell(str(number), (np.full((8, 12, 3), 200, np.uint8),) * (1 + number % 4), "word " * number, "said") for number in range(8)]
    sheet = draw_sheet(cells, columns=3)
    assert sheet.width > 3 * 176 and sheet.height > 3 * 176
    with pytest.raises(UserError, match="nothing to show"):
        draw_sheet([])
