"""Text to ids and back: byte, character, SentencePiece and Hugging Face tokenizers behind one face.

A tokenizer is its files: `tokenizer.json` (kind, special ids) and, for some kinds, the model beside it; for media, their codebooks.
Their digest is its identity. Special ids lie above the base vocabulary and are never made from ordinary text.
"""

import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import xxhash

from data.errors import UserError
from data.files import storage
from data.media.codes import MediaCodes, read_codes
from data.media.kinds import Kind

FORMAT = 1
SPECIALS = ("document_end", "padding", "mask", "fim_prefix", "fim_middle", "fim_suffix", *(f"spare_{i}" for i in range(64)))
_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>", "[SEP]")
_OWN_NAMES = {
    "start": ("[CLS]", "<s>", "<bos>", "<|begin_of_text|>"),
    "padding": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Special tokens of foreign vocabularies that have a part here; a start, where there is one, stands before a document instead of an end."""
_ESCAPED_SPACE = "\u2581"  # what SentencePiece writes for a space
_GIVE = "Give a tokenizer.json of Omnia or Hugging Face, or a SentencePiece .model file."
_LOST = "\0lost"  # stands in a copy of a vocabulary, to count with
_LINE_START = re.compile(r"(?<=[^\n])(?=\n)")


class Tokenizer:
    """What every kind has in common. `files` maps names to bytes; `pieces` lists the bytes of each base id.

    Attributes: kind; base_size (ids of ordinary text); specials {name: id}; codes {kind of media: its codes}; size (all ids); digest;
    unknown (the id of what the vocabulary lacks, None where there is none); lost (characters so far that no id could stand for, and
    that were left out); switched_off (settings of a foreign file not obeyed); refuses (whether characters without an id are a UserError).
    """

    kind: str
    refuses: bool = False
    unknown: int | None = None
    lost: int = 0
    switched_off: tuple[str, ...] = ()

    def __init__(self, files: dict[str, bytes], base_size: int):
        header = json.loads(files["tokenizer.json"])
        self.files = files
        self.base_size = base_size
        self.specials: dict[str, int] = header["specials"]
        self.codes = {kind: read_codes(kind, one, files[_codes_file(kind)]) for kind, one in header.get("codes", {}).items()}
        self.size = max(base_size, 1 + max(self.specials.values()), *(codes.ids[1] for codes in self.codes.values()))
        self.digest = _digest(files)
        self._names = {i: name for name, i in self.specials.items()}
        self._pieces: list[bytes] = []

    @property
    def document_start(self) -> int:
        """The id before a document's first token: its own, or the one that ends documents."""
        return self.specials.get("start", self.specials["document_end"])

    def encode(self, text: str) -> np.ndarray:
        """int32 ids of a text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        raise NotImplementedError

    def encode_inside(self, text: str) -> np.ndarray:
        """int32 ids of a text that stands behind others: some tokenizers put a space before the first alone."""
        return self.encode(text)

    def encode_stream(self, chunks: Iterable[str]) -> Iterator[np.ndarray]:
        """Ids of one document that comes in chunks of text: the same as those of the whole."""
        held = ""
        for chunk in chunks:
            held += chunk
            cut = self.safe_cut(held)
            if cut:
                yield self.encode(held[:cut])
                held = held[cut:]
        if held:
            yield self.encode(held)

    def safe_cut(self, text: str) -> int:
        """The last place where a text that goes on can be cut without changing any id; 0 if none is known."""
        return 0

    @property
    def pieces(self) -> list[bytes]:
        """The bytes of each id, as it stands behind others: at the beginning of a text some tokenizers leave a space out."""
        if not self._pieces:
            self._pieces = self._list_pieces()
        return self._pieces

    def decode(self, ids, specials: bool = False) -> str:
        """The text of ids. Special ids are left out, or shown as `<document_end>` and the like."""
        return self.decode_bytes(ids, specials).decode("utf-8", "replace")

    def decode_bytes(self, ids, specials: bool = False) -> bytes:
        """The bytes of ids. A stream of ids can end inside a character: the caller holds its bytes back."""
        pieces = self.pieces
        return b"".join(
            pieces[i] if 0 <= i < self.base_size and i not in self._names else f"<{self._names.get(i, i)}>".encode() if specials else b""
            for i in np.asarray(ids).reshape(-1).tolist()
        )

    def save(self, folder: str) -> None:
        """Writes the tokenizer's files into a local folder."""
        os.makedirs(folder, exist_ok=True)
        for name in sorted(self.files, reverse=True):  # tokenizer.json last: with it the folder is whole
            storage.write_atomically(os.path.join(folder, name), self.files[name])

    def _list_pieces(self) -> list[bytes]:
        raise NotImplementedError


class Bytes(Tokenizer):
    """One id for each UTF-8 byte."""

    kind = "byte"

    def __init__(self, files):
        super().__init__(files, 256)

    def encode_batch(self, texts):
        return [np.frombuffer(utf8(text), np.uint8).astype(np.int32) for text in texts]

    def safe_cut(self, text):
        return len(text)

    def _list_pieces(self):
        return [bytes([i]) for i in range(256)]


class Characters(Tokenizer):
    """One id for each character of a fixed alphabet, in the order of code points."""

    kind = "char"
    refuses = True

    def __init__(self, files):
        self.characters: str = json.loads(files["tokenizer.json"])["characters"]
        self._codes = _code_points(self.characters)
        super().__init__(files, len(self.characters))

    def encode_batch(self, texts):
        return [self._encode(text) for text in texts]

    def safe_cut(self, text):
        return len(text)

    def _encode(self, text):
        codes = _code_points(text)
        ids = np.minimum(np.searchsorted(self._codes, codes), self.base_size - 1)
        unknown = np.flatnonzero(self._codes[ids] != codes)
        if unknown.size:
            raise UserError(
                f"character {text[unknown[0]]!r} is not among the {self.base_size} of this tokenizer.",
                "Leave it out, or prepare the corpus again with a text that has it.",
            )
        return ids.astype(np.int32)

    def _list_pieces(self):
        return [character.encode() for character in self.characters]


class SentencePiece(Tokenizer):
    """A SentencePiece model. One trained here (`by_line`) keeps every text as it is.

    Such a model has no piece with anything but white space before a line feed, so that a text is cut at the line feeds that
    follow something else, and each line is encoded by itself: ids do not depend on what stands lines before.
    """

    kind = "sentencepiece"

    def __init__(self, files):
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor(model_proto=files["sentencepiece.model"])
        self.by_line: bool = json.loads(files["tokenizer.json"])["by_line"]
        super().__init__(files, self._model.vocab_size())
        self.unknown = None if self.by_line else self._model.unk_id()
        if self.by_line:
            self._escaped = [self._model.piece_to_id(f"<0x{byte:02X}>") for byte in _ESCAPED_SPACE.encode()]

    def encode_batch(self, texts):
        if not self.by_line:
            return [np.array(ids, np.int32) for ids in self._model.encode([_whole(text) for text in texts], num_threads=1)]
        lines, ends = [], []
        for text in texts:
            lines += _LINE_START.split(_whole(text))
            ends.append(len(lines))
        encoded = self._model.encode([line.replace(_ESCAPED_SPACE, "") for line in lines], num_threads=1)
        if any(_ESCAPED_SPACE in text for text in texts):
            encoded = [self._encode_escaped(line) if _ESCAPED_SPACE in line else ids for line, ids in zip(lines, encoded, strict=True)]
        return [np.array([i for ids in encoded[start:end] for i in ids], np.int32) for start, end in itertools.pairwise([0, *ends])]

    def safe_cut(self, text):
        cut = 0
        if self.by_line:
            line = len(text)
            while (line := text.rfind("\n", 0, line)) > 0:
                if text[line - 1] != "\n":
                    return line
        return cut

    def decode_bytes(self, ids, specials=False):
        content = super().decode_bytes(ids, specials)
        return content if self.by_line or not self._adds_space() else content.removeprefix(b" ")

    def _encode_escaped(self, line):
        """Encodes text with the sign that the model uses for spaces: the sign itself becomes three byte pieces."""
        ids = []
        for i, between in enumerate(self._model.encode(line.split(_ESCAPED_SPACE))):
            ids += (self._escaped if i else []) + between
        return ids

    def _adds_space(self):
        return self._model.encode_as_pieces("a")[:1] in ([_ESCAPED_SPACE + "a"], [_ESCAPED_SPACE])

    def _list_pieces(self):
        model, pieces = self._model, []
        for i in range(model.vocab_size()):
            piece = model.id_to_piece(i)
            pieces.append(
                bytes([int(piece[3:5], 16)])
                if model.is_byte(i)
                else b""
                if model.is_control(i)
                else piece.replace(_ESCAPED_SPACE, " ").encode()
            )
        return pieces


class HuggingFace(Tokenizer):
    """A `tokenizer.json` of the Hugging Face library; special tokens written in a text are ordinary text."""

    kind = "huggingface"

    def __init__(self, files):
        self._json = json.loads(files["huggingface.json"])
        self._model = _hugging_face(files["huggingface.json"])
        super().__init__(files, 1 + max(self._model.get_vocab().values()))
        self._end = self.specials["document_end"]
        stripping = self._free_added_tokens()
        self._model.encode_special_tokens = True
        self.switched_off = (*_switch_off(self._model), *stripping)
        self.unknown = self._unknown()
        self._counter = self._losing()

    def encode_batch(self, texts):
        whole = [_whole(text) for text in texts]
        try:
            encoded = self._model.encode_batch_fast(whole, add_special_tokens=False)
            counted = self._counter.encode_batch_fast(whole, add_special_tokens=False) if self._counter else []
        except Exception as error:  # of a foreign library, which has no class for them
            raise UserError(
                f"the tokenizer cannot encode a text: {error}.", "Use one with an unknown token, or one that covers every byte."
            ) from None
        if counted:
            lost = self._counter.token_to_id(_LOST)
            self.lost += sum(one.ids.count(lost) for one in counted)
        return [self._without_end(np.array(one.ids, np.int32)) for one in encoded]

    def encode_inside(self, text):
        return self._inside.encode(text)

    @functools.cached_property
    def _inside(self) -> "HuggingFace":
        changed = json.loads(self.files["huggingface.json"])
        first = [step for step in _steps(changed.get("pre_tokenizer"), "pretokenizers") if step.get("prepend_scheme") == "first"]
        for step in first:
            step["prepend_scheme"] = "never"
        return HuggingFace(self.files | {"huggingface.json": json.dumps(changed).encode()}) if first else self

    def _free_added_tokens(self) -> list[str]:
        """Makes the end ordinary text in a text, and keeps the spaces around added tokens; returns what was switched off for that."""
        end, found, changed = self._model.id_to_token(self._end), [], False
        for token in self._json.get("added_tokens") or ():
            if not token["special"] and token["content"] == end:
                token["special"] = changed = True
            elif not token["special"] and (token["lstrip"] or token["rstrip"]):
                found.append(token["content"])
                token["lstrip"] = token["rstrip"] = False
        if found or changed:
            self._model = _hugging_face(json.dumps(self._json).encode())
        return [f"added tokens that strip spaces: {', '.join(found)}"] if found else []

    def _unknown(self) -> int | None:
        model = self._json["model"]
        unknown = model.get("unk_id")
        if unknown is None and model.get("unk_token"):
            unknown = self._model.token_to_id(model["unk_token"])
        return None if unknown == self._end else unknown  # then it is left out, as no text may have the end in it

    def _losing(self):
        """A model that writes _LOST for each character that BPE without an unknown token leaves out; None where nothing can be."""
        model = self._json["model"]
        if type(self._model.model).__name__ != "BPE" or model.get("unk_token"):
            return None
        whole = [f"<0x{byte:02X}>" for byte in range(256)] if model.get("byte_fallback") else []
        if "ByteLevel" in _types(self._json.get("pre_tokenizer"), "pretokenizers") | _types(self._json.get("normalizer"), "normalizers"):
            whole = list(_bytes_of_byte_level())
        if whole and set(whole) <= set(model["vocab"]):
            return None
        vocabulary = model["vocab"] | {_LOST: 1 + max(model["vocab"].values(), default=-1)}
        losing = self._json | {"model": model | {"vocab": vocabulary, "unk_token": _LOST, "fuse_unk": False}}
        counter = _hugging_face(json.dumps(losing).encode())
        counter.encode_special_tokens = True
        _switch_off(counter)
        return counter

    def _without_end(self, ids):
        """Replaces document ends that the model read in the text by the ids of their characters."""
        places = np.flatnonzero(ids == self._end)
        if not places.size:
            return ids
        spelled = self._spelled_end()
        self.lost += spelled.count(None) * places.size
        kept = np.array([i for i in spelled if i is not None], np.int32)
        return np.concatenate([piece for i in ids for piece in (kept if i == self._end else [i],)]).astype(np.int32)

    def _spelled_end(self) -> list[int | None]:
        """Ids of the end as text, one or more for each character; None for a character that has none."""
        model, vocabulary = self._json["model"], self._model.get_vocab(with_added_tokens=False)
        name = self._model.id_to_token(self._end)
        if model.get("unk_token") == name or (model.get("unk_id") == self._end):
            return [None]  # what was unknown, and no name
        prefix, suffix, found = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or "", []
        for place, character in enumerate(name):
            piece = (prefix if place else "") + character + (suffix if place == len(name) - 1 else "")
            fallback = [vocabulary.get(f"<0x{byte:02X}>") for byte in character.encode()] if model.get("byte_fallback") else [None]
            ids = [vocabulary[piece]] if piece in vocabulary else [self.unknown] if None in fallback else fallback
            found += [None if i == self._end else i for i in ids]
        return found

    def decode(self, ids, specials=False):
        if self._styles() & {"ByteLevel"}:
            return super().decode(ids, specials)
        text, run = [], []
        for i in [*np.asarray(ids).reshape(-1).tolist(), None]:
            if i is not None and 0 <= i < self.base_size and i not in self._names:
                run.append(i)
                continue
            text.append(self._model.decode(run, skip_special_tokens=not specials))
            text.append(f"<{self._names.get(i, i)}>" if specials and i is not None else "")
            run = []
        return "".join(text)

    def decode_bytes(self, ids, specials=False):
        """As for the other kinds; but a WordPiece model does not keep the bytes: then those of the decoded text."""
        if self._keeps_bytes():
            return super().decode_bytes(ids, specials)
        return self.decode(ids, specials).encode()

    @property
    def pieces(self):
        if not self._pieces and not self._keeps_bytes():
            self._pieces = [self.decode([i]).encode() for i in range(self.base_size)]
        return super().pieces

    def _keeps_bytes(self) -> bool:
        return bool(self._styles() & {"ByteLevel", "ByteFallback", "Metaspace"})

    def _styles(self) -> set[str]:
        return _types(self._json.get("decoder"), "decoders")

    def _space(self) -> str:
        """What the pieces have in place of a space."""
        steps = [*_steps(self._json.get("decoder"), "decoders"), *_steps(self._json.get("pre_tokenizer"), "pretokenizers")]
        return next((step["replacement"] for step in steps if step.get("type") == "Metaspace"), _ESCAPED_SPACE)

    def _list_pieces(self):
        pieces = [b""] * self.base_size
        of_character = _bytes_of_byte_level() if "ByteLevel" in self._styles() else None
        space = self._space()
        for piece, i in self._model.get_vocab(with_added_tokens=False).items():
            if of_character:
                pieces[i] = b"".join(of_character.get(c, c.encode()) for c in piece)
            elif re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
                pieces[i] = bytes([int(piece[3:5], 16)])
            else:
                pieces[i] = piece.replace(space, " ").encode()
        for i, token in self._model.get_added_tokens_decoder().items():
            pieces[i] = b"" if token.special else token.content.encode()
        return pieces


_KINDS = {kind.kind: kind for kind in (Bytes, Characters, SentencePiece, HuggingFace)}


def byte_tokenizer() -> Tokenizer:
    return Bytes(_files("byte", 256))


def character_tokenizer(characters: Iterable[str]) -> Tokenizer:
    alphabet = "".join(sorted(set(characters)))
    return Characters(_files("char", len(alphabet), characters=alphabet))


def sentencepiece_tokenizer(model: bytes, by_line: bool = False) -> Tokenizer:
    """A tokenizer from the bytes of a `.model` file."""
    import sentencepiece

    loaded = sentencepiece.SentencePieceProcessor(model_proto=model)
    return SentencePiece(
        _files("sentencepiece", loaded.vocab_size(), {"document_end": loaded.eos_id()}, by_line=by_line, **{"sentencepiece.model": model})
    )


def hugging_face_tokenizer(content: bytes, end_name: str = "") -> Tokenizer:
    """A tokenizer from the bytes of a Hugging Face `tokenizer.json`. end_name: of the token that ends a document, where it has none of the
    usual names; those come first, since what a chat model's files name ends a turn."""
    vocabulary = _hugging_face(content).get_vocab()
    end = next((vocabulary[name] for name in (*_END_NAMES, end_name) if name in vocabulary), -1)
    special = {token["content"] for token in json.loads(content).get("added_tokens") or () if token["special"]}
    own = {"document_end": end}
    for part, names in _OWN_NAMES.items():
        number = next((vocabulary[name] for name in names if name in special & vocabulary.keys()), end)
        own |= {part: number} if number != end else {}
    return HuggingFace(_files("huggingface", 1 + max(vocabulary.values()), own, **{"huggingface.json": content}))


def with_codes(tokenizer: Tokenizer, added: dict[Kind, MediaCodes]) -> Tokenizer:
    """The tokenizer with media in its vocabulary too; the ids of codes, wherever they were, come after all that it has."""
    header, files, first = json.loads(tokenizer.files["tokenizer.json"]), dict(tokenizer.files), tokenizer.size
    header["codes"] = dict(header.get("codes", {}))
    for kind, codes in added.items():
        if kind in tokenizer.codes:
            raise UserError(f"the tokenizer already has codes for {kind}.", "Start from one that has none.")
        codes = dataclasses.replace(codes, first=first)
        header["codes"][kind], files[_codes_file(kind)] = codes.header(), codes.content()
        first = codes.ids[1]
    header["files"] = sorted(set(files) - {"tokenizer.json"})
    return _KINDS[header["kind"]](files | {"tokenizer.json": json.dumps(header, indent=1).encode()})


def _codes_file(kind: str) -> str:
    return f"codes_{kind}.npz"


def load_tokenizer(path: str) -> Tokenizer:
    """Open a saved tokenizer, the tokenizer of a corpus or run, a SentencePiece `.model` or a Hugging Face `tokenizer.json`."""
    path = str(path)
    for header_path in (storage.join(path, "tokenizer/tokenizer.json"), storage.join(path, "tokenizer.json"), path):
        content = None if os.path.isdir(header_path) else storage.read_bytes(header_path)
        if content is not None:
            break
    else:
        raise UserError(
            f"{path}: no tokenizer there.",
            _mend(path, "Give byte, char, sentencepiece:SIZE, a .model file, a tokenizer.json, or a directory that holds one."),
        )
    if header_path.endswith(".model"):
        return _opened(header_path, sentencepiece_tokenizer, content, path)
    try:
        header = json.loads(content)
        if "kind" not in header:
            return _opened(header_path, hugging_face_tokenizer, content, path)
        if header["format"] > FORMAT:
            raise UserError(
                f"{header_path}: format {header['format']}, newer than this program's {FORMAT}.", "Use a newer version of Omnia."
            )
        files = {"tokenizer.json": content}
        for name in header["files"]:
            beside = storage.read_bytes(storage.join(os.path.dirname(header_path), name))
            if beside is None:
                raise UserError(f"{header_path}: {name} is missing beside it.", _mend(path, "Copy the whole tokenizer directory."))
            files[name] = beside
        return _opened(header_path, _KINDS[header["kind"]], files, path)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{header_path}: not a tokenizer ({error!r}).",
            _mend(path, _GIVE),
        ) from None


def _mend(path: str, otherwise: str) -> str:
    """How to mend the tokenizer of a corpus or a run, given by its own path or that of its tokenizer."""
    folder = os.path.dirname(path) if os.path.basename(path) == "tokenizer" else path
    if storage.read_bytes(storage.join(folder, "manifest.json")) is not None:
        return f"Run `omnia prepare text --output {folder} --repair`."
    if storage.read_bytes(storage.join(folder, "config.json")) is not None:
        return f"Bring the folder {storage.join(folder, 'tokenizer')} back from a copy of it."
    return otherwise


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start} of the text is half of a surrogate pair, which is no character.",
            "Read the text again with the encoding that it is written in.",
        ) from None


def _whole(text):
    utf8(text) if not text.isascii() else None
    return text


def _files(kind, base_size, own: dict[str, int] | None = None, **rest) -> dict[str, bytes]:
    """The files of a new tokenizer. own: special ids that its vocabulary has, -1 for none. Bytes in `rest` are files beside tokenizer.json,
    the others entries in it."""
    beside = {name: value for name, value in rest.items() if isinstance(value, bytes)}
    own = {name: number for name, number in (own or {}).items() if number >= 0}
    specials = own | {name: base_size + i for i, name in enumerate(name for name in SPECIALS if name not in own)}
    header = {
        "format": FORMAT,
        "kind": kind,
        "specials": specials,
        "files": sorted(beside),
        **{name: value for name, value in rest.items() if name not in beside},
    }
    return {"tokenizer.json": json.dumps(header, indent=1).encode(), **beside}


def _digest(files) -> str:
    state = xxhash.xxh3_128()
    for name, content in sorted(files.items()):
        state.update(f"{name} {len(content)}\n".encode())
        state.update(content)
    return state.hexdigest()


def _code_points(text):
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _hugging_face(content: bytes):
    try:
        import tokenizers
    except ImportError:
        raise UserError("a Hugging Face tokenizer needs the package `tokenizers`.", "pip install omnia[hf]") from None
    return tokenizers.Tokenizer.from_buffer(content)


def _steps(setting: dict | None, several: str) -> list[dict]:
    """The steps of a setting of a tokenizer.json, which is one, or a sequence of them under the name `several`."""
    setting = setting or {}
    return [step for one in setting[several] for step in _steps(one, several)] if several in setting else [setting]


def _types(setting: dict | None, several: str) -> set[str]:
    return {step["type"] for step in _steps(setting, several) if "type" in step}


def _switch_off(model) -> list[str]:
    """Undo what the file of a tokenizer says for the batches of its former owner: a document is encoded whole, and always alike."""
    found = []
    if model.truncation is not None:
        found.append(f"truncation to {model.truncation['max_length']} tokens")
        model.no_truncation()
    if model.padding is not None:
        found.append("padding")
        model.no_padding()
    if getattr(model.model, "dropout", None):
        found.append(f"dropout {model.model.dropout:g}")
        model.model.dropout = None
    return found


def _opened(header_path, kind, content, path):
    """Models are parsed by foreign libraries, whose errors have no common class."""
    try:
        return kind(content)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{header_path}: not a tokenizer ({error}).", _mend(path, _GIVE)) from None


def _bytes_of_byte_level() -> dict[str, bytes]:
    """The printable character that byte-level BPE writes for each byte (Radford et al. 2019), inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): bytes([byte]) for byte in printable} | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}
