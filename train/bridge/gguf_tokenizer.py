"""The tokenizer of a GGUF file as a Hugging Face tokenizer.json, and the reverse.

A GGUF file holds the vocabulary, the merges or scores, and names the rest: which regular expression cuts a text into words, say.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens (gguf.TokenType)."""
SPACE = "\u2581"

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "llama-bpe": _WORDS.format(numbers=r"\p{N}{1,3}"),
    "qwen2": _WORDS.format(numbers=r"\p{N}"),
    "deepseek-r1-qwen": _WORDS.format(numbers=r"\p{N}"),
}
"""Regular expressions that cut a text into words, by `tokenizer.ggml.pre`."""
GPT2_SPLIT = ("gpt-2", "default", "", "smollm")
"""Those that cut as GPT-2 does; smollm takes digits apart first."""


def tokenizer_json(metadata: Mapping[str, Any], where: str) -> bytes:
    """metadata: values under `tokenizer.ggml.`, that prefix left out. UserError for a kind that is not known."""
    kind = metadata.get("model")
    kinds = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _word_piece}
    if kind not in kinds:
        raise UserError(f"{where}: its tokenizer is of the kind {kind!r}", f"Known: {', '.join(kinds)}.")
    tokens = metadata["tokens"]
    types = metadata.get("token_type") or [NORMAL] * len(tokens)
    while types[-1] == UNUSED and re.fullmatch(r"\[PAD\d+\]", tokens[-1]):  # rows of the table that no token has
        tokens, types = tokens[:-1], types[:-1]
    parts = kinds[kind](metadata, tokens, types, where)
    special = {metadata.get(f"{role}_token_id") for role in ("bos", "eos", "unknown", "padding", "seperator", "mask", "cls")}
    added = [
        {"id": i, "content": token, "special": kind_of_token != USER_DEFINED}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, (token, kind_of_token) in enumerate(zip(tokens, types, strict=True))
        if kind_of_token in (CONTROL, USER_DEFINED) or (kind_of_token == UNKNOWN and i in special)
    ]
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "post_processor": None}
    return json.dumps(whole | parts, ensure_ascii=False).encode()


def _starts_with(metadata: Mapping[str, Any], tokens: Sequence[str], default: bool) -> dict[str, Any] | None:
    """A post-processor that puts the first token before a text, where the file says that the model was trained so."""
    first = metadata.get("bos_token_id")
    if first is None or not metadata.get("add_bos_token", default):
        return None
    return template_processing({tokens[first]: first}, before=tokens[first])


def template_processing(ids: Mapping[str, int], before: str, after: str = "") -> dict[str, Any]:
    """The post-processor that puts one token before a text, and another behind each of one or two. ids: of both."""
    begin: dict[str, Any] = {"SpecialToken": {"id": before, "type_id": 0}}
    one, other = (
        [{"Sequence": {"id": side, "type_id": number}}, *([{"SpecialToken": {"id": after, "type_id": number}}] if after else [])]
        for number, side in enumerate("AB")
    )
    special = {text: {"id": text, "ids": [ids[text]], "tokens": [text]} for text in (before, after) if text}
    return {"type": "TemplateProcessing", "single": [begin, *one], "pair": [begin, *one, *other], "special_tokens": special}


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], where: str) -> dict[str, Any]:
    """Byte-level BPE (Radford et al. 2019)."""
    pre = metadata.get("pre", "")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pre not in SPLITS}
    if pre in SPLITS:
        cut = {"type": "Split", "pattern": {"Regex": SPLITS[pre]}, "behavior": "Isolated", "invert": False}
        before: dict[str, Any] = {"type": "Sequence", "pretokenizers": [cut, byte_level]}
    elif pre == "smollm":
        before = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]}
    elif pre in GPT2_SPLIT:
        before = byte_level
    else:
        raise UserError(f"{where}: its tokenizer cuts words as {pre!r} does", f"Known: {', '.join(filter(None, (*SPLITS, *GPT2_SPLIT)))}.")
    model = _bpe(tokens, [merge.split(" ") for merge in metadata.get("merges", ())]) | {"ignore_merges": pre == "llama-bpe"}
    parts: dict[str, Any] = {"model": model, "pre_tokenizer": before, "decoder": byte_level}
    if SPLITS.get(pre) == SPLITS["qwen2"]:
        parts["normalizer"] = {"type": "NFC"}
    return parts | {"post_processor": _starts_with(metadata, tokens, pre == "llama-bpe")}


def _bpe(tokens: Sequence[str], merges: Sequence[Sequence[str]]) -> dict[str, Any]:
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return {"type": "BPE", **plain, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": list(map(list, merges))}


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], where: str) -> dict[str, Any]:
    """SentencePiece's BPE: of two neighbours that make a token, those with the best score are joined first."""
    gemma = SPACE * 2 not in tokens and "  " in tokens  # which stores runs of spaces as they are, and scores that say nothing
    tokens = [token.replace(" ", SPACE) if gemma and not token.strip(" ") else token for token in tokens]
    scores = [-float(i) for i in range(len(tokens))] if gemma else metadata["scores"]
    unknown = metadata.get("unknown_token_id")
    model = _bpe(tokens, _merges(tokens, scores)) | {"fuse_unk": True, "byte_fallback": True}
    model["unk_token"] = tokens[unknown] if unknown is not None else "<unk>" if "<unk>" in tokens else None
    prefix = metadata.get("add_space_prefix", True)
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "model": model,
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first" if prefix else "never", "split": False},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "post_processor": _starts_with(metadata, tokens, True),
    }


def _merges(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every pair that makes a token, by falling score; of one token in the order of the pieces' ids, the shorter first."""
    ids = {token: i for i, token in enumerate(tokens)}
    found = []
    for token, score in zip(tokens, scores, strict=True):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = sorted((ids[left], ids[right], left, right) for left, right in pairs if left in ids and right in ids)
        found += [(score, left, right) for _, _, left, right in known]
    return [(left, right) for _, left, right in sorted(found, key=lambda one: (one[0], len(one[1]), len(one[2])), reverse=True)]


def _word_piece(metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], where: str) -> dict[str, Any]:
    """WordPiece (Devlin et al. 2019). The file marks what begins a word, BERT's vocabulary what does not."""
    named = [i for i, token in enumerate(tokens) if token.startswith("[") and token.endswith("]")]
    spelled = [
        token if i in named else token.removeprefix(SPACE) if token.startswith(SPACE) else f"##{token}" for i, token in enumerate(tokens)
    ]
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    ids = [metadata[f"{role}_token_id"] for role in ("cls" if "cls_token_id" in metadata else "bos", "seperator")]
    first, last = (spelled[i] for i in ids)
    vocabulary = {token: i for i, token in enumerate(spelled)}
    return {
        "normalizer": bert | {"lowercase": not any(re.search("[A-Z]", token) for i, token in enumerate(spelled) if i not in named)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template_processing({first: ids[0], last: ids[1]}, before=first, after=last),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


# --------------------------------------------------------------------------------------------------------------- the reverse


def gguf_tokenizer(content: bytes, vocab_size: int) -> dict[str, Any]:
    """Values under `tokenizer.ggml.` for a tokenizer.json: what `tokenizer_json` reads, but for the ids of special tokens.

    UserError for a tokenizer that llama.cpp has no word for.
    """
    whole = json.loads(content)
    model, steps = whole["model"], _steps(whole.get("pre_tokenizer"))
    unknown = UserError("llama.cpp has no word for this tokenizer", "Export with --format hf.")
    if model["type"] == "WordPiece":
        found: dict[str, Any] = {"model": "bert", "pre": "jina-v2-en"}
    elif model["type"] != "BPE":
        raise unknown
    elif model.get("byte_fallback"):
        prefix = any(step.get("prepend_scheme", "never") != "never" for step in steps) or "Prepend" in json.dumps(whole.get("normalizer"))
        found = {"model": "llama", "pre": "default", "add_space_prefix": prefix}
    else:
        found = {"model": "gpt2", "pre": _pre(steps)}
        if not found["pre"]:
            raise unknown
    vocabulary = dict(model["vocab"]) | {token["content"]: token["id"] for token in whole.get("added_tokens") or ()}
    tokens, types = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, i in vocabulary.items():
        tokens[i], types[i] = token, BYTE if found["model"] == "llama" and re.fullmatch("<0x[0-9A-F]{2}>", token) else NORMAL
    for token in whole.get("added_tokens") or ():
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", ())]
    if found["model"] == "llama":
        ranks: dict[str, int] = {}
        for rank, merge in enumerate(merges):
            ranks.setdefault(merge.replace(" ", ""), rank)
        found["scores"] = [-float(ranks.get(token, len(merges))) if types[i] == NORMAL else 0.0 for i, token in enumerate(tokens)]
        if model.get("unk_token") in vocabulary:
            types[vocabulary[model["unk_token"]]] = UNKNOWN
    elif found["model"] == "gpt2":
        found["merges"] = merges
    else:
        tokens = [
            token if kind != NORMAL or re.fullmatch(r"\[.*\]", token) else token[2:] if token.startswith("##") else SPACE + token
            for token, kind in zip(tokens, types, strict=True)
        ]
        roles = {"[CLS]": "cls", "[SEP]": "seperator", "[MASK]": "mask", "[UNK]": "unknown", "[PAD]": "padding"}
        found |= {f"{role}_token_id": vocabulary[token] for token, role in roles.items() if token in vocabulary}
    return found | {"tokens": tokens, "token_type": types}


def _steps(setting: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if setting is None else setting["pretokenizers"] if setting["type"] == "Sequence" else [setting]


def _pre(steps: Sequence[dict[str, Any]]) -> str:
    """llama.cpp's name of how a byte-level tokenizer cuts words; "" where it has none."""
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        return next((name for name, pattern in SPLITS.items() if steps[0]["pattern"] == {"Regex": pattern}), "")
    return ""
