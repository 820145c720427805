"""BERT (Devlin et al. 2019) and MiniLM, RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019) and ALBERT (Lan et al. 2020).

Whether there is a pooler, and a head that predicts masked tokens, a file decides by what it holds.
"""

from collections.abc import Collection, Mapping
from typing import Any

from model.convert.blocks import block, norm, projection
from model.convert.family import ACTIVATIONS, Family, Layout, Tensor, one_of, require, their_activation
from model.text_encoder_config import TextEncoderConfig

Settings = Mapping[str, Any]


def _found(names: Collection[str]) -> dict[str, Any]:
    return {
        "pooler": any("pooler." in name for name in names),
        "prediction_head": any(part in name for name in names for part in ("predictions.", "lm_head.", "vocab_transform.")),
    }


def _heads(config: TextEncoderConfig, pooler: str, dense: str, head_norm: str, bias: str) -> list[Tensor]:
    """Pooler and prediction head, as far as the model has them."""
    found = projection(pooler, "pooler/dense", "d z -> z d", "d -> d") if config.pooler else []
    if config.prediction_head:
        found += projection(dense, "prediction/dense", "e d -> d e", "e -> e")
        found += [*norm(head_norm, "prediction/norm", "e"), Tensor(bias, "prediction/bias", "v -> v")]
    return found


# --------------------------------------------------------------------------------------------------------- BERT and RoBERTa


def _shared(theirs: Settings) -> dict[str, Any]:
    require(theirs, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False, tie_word_embeddings=True)
    return {
        "vocab_size": theirs["vocab_size"],
        "context_length": theirs["max_position_embeddings"],
        "num_layers": theirs["num_hidden_layers"],
        "embed_dim": theirs["hidden_size"],
        "num_heads": theirs["num_attention_heads"],
        "mlp_dim": theirs["intermediate_size"],
        "norm_position": "post",
        "norm_epsilon": theirs.get("layer_norm_eps", 1e-12),
        "activation": one_of(theirs, "hidden_act", ACTIVATIONS, "gelu"),
        "token_types": theirs.get("type_vocab_size", 2),
    }


def _their_shared(config: TextEncoderConfig, kind: str, names: tuple[str, str]) -> dict[str, Any]:
    """names: of the classes with the prediction head and without."""
    if not config.token_types:
        raise ValueError("a model without types of tokens is a DistilBERT")
    return {
        "architectures": [names[0 if config.prediction_head else 1]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": their_activation(config.activation),
        "type_vocab_size": config.token_types,
    }


def bert_config(theirs: Settings) -> TextEncoderConfig:
    return TextEncoderConfig(**_shared(theirs))


def their_bert(config: TextEncoderConfig) -> dict[str, Any]:
    return _their_shared(config, "bert", ("BertForMaskedLM", "BertModel"))


def _bert_trunk(prefix: str, skip: int = 0) -> list[Tensor]:
    layer = f"{prefix}.encoder.layer.{{layer}}."
    names = {part: f"{layer}attention.self.{part}" for part in ("query", "key", "value")}
    names |= {"out": layer + "attention.output.dense", "attention_norm": layer + "attention.output.LayerNorm"}
    names |= {"up": layer + "intermediate.dense", "down": layer + "output.dense", "feed_forward_norm": layer + "output.LayerNorm"}
    return [*_embeddings(prefix, skip), *block(names)]


def _embeddings(prefix: str, skip: int = 0) -> list[Tensor]:
    return [
        Tensor(f"{prefix}.embeddings.word_embeddings.weight", "embedding/table", "v e -> v e"),
        Tensor(f"{prefix}.embeddings.position_embeddings.weight", "positions/table", "p e -> p e", skip=skip),
        Tensor(f"{prefix}.embeddings.token_type_embeddings.weight", "token_types/table", "y e -> y e"),
        *norm(f"{prefix}.embeddings.LayerNorm", "embedding_norm", "e"),
    ]


def bert_tensors(config: TextEncoderConfig, layout: Layout, settings: Settings) -> list[Tensor]:
    """A GGUF file has neither pooler nor prediction head."""
    if layout == "gguf":
        return _bert_trunk("bert")
    head = "cls.predictions."
    names = {"dense": head + "transform.dense", "head_norm": head + "transform.LayerNorm", "bias": head + "bias"}
    return [*_bert_trunk("bert"), *_heads(config, "bert.pooler.dense", **names)]


RESERVED = 2
"""Rows of RoBERTa's table of positions that no position has: they are counted from the padding's id on."""


def roberta_config(theirs: Settings) -> TextEncoderConfig:
    require(theirs, hidden_act="gelu", pad_token_id=RESERVED - 1)
    shared = _shared(theirs)
    return TextEncoderConfig(**shared | {"context_length": shared["context_length"] - RESERVED})


def their_roberta(config: TextEncoderConfig) -> dict[str, Any]:
    if config.token_types != 1:
        raise ValueError("with types of tokens that differ it is a BERT")
    shared = _their_shared(config, "roberta", ("RobertaForMaskedLM", "RobertaModel"))
    return shared | {"max_position_embeddings": config.context_length + RESERVED, "pad_token_id": RESERVED - 1}


def roberta_tensors(config: TextEncoderConfig, layout: Layout, settings: Settings) -> list[Tensor]:
    names = {"dense": "lm_head.dense", "head_norm": "lm_head.layer_norm", "bias": "lm_head.bias"}
    return [*_bert_trunk("roberta", RESERVED), *_heads(config, "roberta.pooler.dense", **names)]


# --------------------------------------------------------------------------------------------------------------- DistilBERT


def distilbert_config(theirs: Settings) -> TextEncoderConfig:
    require(theirs, tie_word_embeddings=True)
    return TextEncoderConfig(
        vocab_size=theirs["vocab_size"],
        context_length=theirs["max_position_embeddings"],
        num_layers=theirs["n_layers"],
        embed_dim=theirs["dim"],
        num_heads=theirs["n_heads"],
        mlp_dim=theirs["hidden_dim"],
        norm_position="post",
        norm_epsilon=1e-12,
        activation=one_of(theirs, "activation", ACTIVATIONS, "gelu"),
        token_types=0,
        pooler=False,
    )


def their_distilbert(config: TextEncoderConfig) -> dict[str, Any]:
    if config.pooler:
        raise ValueError("a DistilBERT has no pooler")
    return {
        "architectures": ["DistilBertForMaskedLM" if config.prediction_head else "DistilBertModel"],
        "model_type": "distilbert",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "n_layers": config.num_layers,
        "dim": config.embed_dim,
        "n_heads": config.num_heads,
        "hidden_dim": config.mlp_width,
        "activation": their_activation(config.activation),
    }


def distilbert_tensors(config: TextEncoderConfig, layout: Layout, settings: Settings) -> list[Tensor]:
    layer = "distilbert.transformer.layer.{layer}."
    names = {part: f"{layer}attention.{part[0]}_lin" for part in ("query", "key", "value")}
    names |= {"out": layer + "attention.out_lin", "attention_norm": layer + "sa_layer_norm"}
    names |= {"up": layer + "ffn.lin1", "down": layer + "ffn.lin2", "feed_forward_norm": layer + "output_layer_norm"}
    heads = _heads(config, "", "vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
    trunk = [tensor for tensor in _embeddings("distilbert") if not tensor.paths[0].startswith("token_types")]
    return [*trunk, *block(names), *heads]


# ------------------------------------------------------------------------------------------------------------------- ALBERT


def albert_config(theirs: Settings) -> TextEncoderConfig:
    require(theirs, inner_group_num=1)
    narrow = theirs["embedding_size"]
    own = {"layer_groups": theirs.get("num_hidden_groups", 1), "embedding_dim": narrow, "pooler": True}
    if narrow == theirs["hidden_size"]:
        raise ValueError("embedding_size is hidden_size: a projection between equal widths cannot be read")
    return TextEncoderConfig(**_shared({"hidden_act": "gelu_new", **theirs}) | own)


def their_albert(config: TextEncoderConfig) -> dict[str, Any]:
    own = {"embedding_size": config.embedding_width, "num_hidden_groups": config.own_layers, "inner_group_num": 1}
    return _their_shared(config, "albert", ("AlbertForMaskedLM", "AlbertModel")) | own


def albert_tensors(config: TextEncoderConfig, layout: Layout, settings: Settings) -> list[Tensor]:
    layer = "albert.encoder.albert_layer_groups.{layer}.albert_layers.0."
    names = {part: f"{layer}attention.{part}" for part in ("query", "key", "value")}
    names |= {"out": layer + "attention.dense", "attention_norm": layer + "attention.LayerNorm"}
    names |= {"up": layer + "ffn", "down": layer + "ffn_output", "feed_forward_norm": layer + "full_layer_layer_norm"}
    heads = _heads(config, "albert.pooler", "predictions.dense", "predictions.LayerNorm", "predictions.bias")
    mapping = projection("albert.encoder.embedding_hidden_mapping_in", "embedding_projection", "d e -> e d", "d -> d")
    return [*_embeddings("albert"), *mapping, *block(names), *heads]


BERT = Family(
    ("bert",),
    "BertForMaskedLM",
    bert_config,
    their_bert,
    bert_tensors,
    prefix="bert.",
    gguf="bert",
    spare=r"^cls\.(predictions\.decoder|seq_relationship)\.",
    found=_found,
)
ROBERTA = Family(
    ("roberta",),
    "RobertaForMaskedLM",
    roberta_config,
    their_roberta,
    roberta_tensors,
    prefix="roberta.",
    spare=r"^lm_head\.decoder\.",
    found=_found,
)
DISTILBERT = Family(
    ("distilbert",),
    "DistilBertForMaskedLM",
    distilbert_config,
    their_distilbert,
    distilbert_tensors,
    prefix="distilbert.",
    spare=r"^vocab_projector\.weight$",
    found=_found,
)
ALBERT = Family(
    ("albert",),
    "AlbertForMaskedLM",
    albert_config,
    their_albert,
    albert_tensors,
    prefix="albert.",
    spare=r"^(predictions\.decoder|sop_classifier\.classifier)\.",
    found=_found,
)
