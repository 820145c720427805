"""The families that are known, and which one a model is of."""

from typing import Any

from model.convert import bert, clip, gemma, gpt2, gpt_neox, llama, qwen, t5, vit, whisper
from model.convert.family import Family, attempted

FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    llama.FAMILY,
    qwen.QWEN2,
    qwen.QWEN3,
    gemma.GEMMA2,
    gemma.GEMMA3,
    gpt_neox.FAMILY,
    bert.ROBERTA,
    bert.BERT,
    bert.DISTILBERT,
    bert.ALBERT,
    t5.FAMILY,
    vit.FAMILY,
    clip.FAMILY,
    whisper.FAMILY,
)
"""The first that can say a config of ours is the one that it is exported as."""

MODEL_TYPES = {name: family for family in FAMILIES for name in family.model_types}


def family_of(config) -> tuple[Family, dict[str, Any]]:
    """The family that a config of ours is exported as, and its config.json; ValueError where none has all of its settings."""
    tried = [(family, *found) for family in FAMILIES if (found := attempted(family, config))]
    for family, settings, lost in tried:
        if not lost:
            return family, settings
    nearest = min(tried, key=lambda one: len(one[2]), default=None)
    why = f"; the nearest, {nearest[0].model_types[0]}, has no {', '.join(nearest[2])}" if nearest else ""
    raise ValueError(f"no published family has all of this model's settings{why}; known: {', '.join(MODEL_TYPES)}")
