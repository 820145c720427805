"""The decoder once more, in NumPy and float64, one row and one head at a time: slow, plain, and independent of the real one."""

import math

import numpy as np


def _norm(x, params, config, kind=None):
    if (kind or config.norm) == "layernorm":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_epsilon) * params["scale"]
    return x + params.get("bias", 0.0)


def _activation(x, config):
    if config.activation == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    if config.activation == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return np.maximum(x, 0) ** 2 if config.activation == "relu_squared" else x / (1 + np.exp(-x))


def frequency(number, half, config):
    """Radians a position of pair `number` of `half`, one at a time."""
    base, factor, context = config.rotary_base, config.rotary_factor, config.rotary_original_context
    plain = base ** (-number / half)
    turns = context * plain / (2 * math.pi)
    if config.rotary_scaling == "ntk":
        return (base * factor ** (half / (half - 1))) ** (-number / half)
    if config.rotary_scaling == "llama3":
        wavelength = 2 * math.pi / plain
        if wavelength < context / 4:
            return plain
        if wavelength > context:
            return plain / factor
        return (4 - turns) / 3 * plain / factor + (turns - 1) / 3 * plain
    if config.rotary_scaling == "yarn":
        # Where turns(pair) crosses 32 and 1, found by solving context * base^(-pair / half) = 2 pi times.
        first, last = (half * math.log(context / (2 * math.pi * times), base) for times in (32, 1))
        first, last = max(math.floor(first), 0), min(math.ceil(last), 2 * half - 1)
        share = min(max((number - first) / (last - first), 0), 1)
        return share * plain / factor + (1 - share) * plain
    return plain / factor


def _rotate(vector, position, config):
    """Each pair (k, k + K/2) as a complex number, turned by its angle."""
    half = len(vector) // 2
    pair = vector[:half] + 1j * vector[half:]
    pair = pair * np.exp(1j * position * np.array([frequency(number, half, config) for number in range(half)]))
    if config.rotary_scaling == "yarn":
        pair = pair * (0.1 * math.log(config.rotary_factor) + 1)
    return np.concatenate([pair.real, pair.imag])


def hidden_states(params, config, tokens, segments=None):
    """Hidden states [T, D] of one row; positions restart with each segment."""
    length = len(tokens)
    segments = np.ones(length, int) if segments is None else np.asarray(segments)
    positions = [int((segments[:t] == segments[t]).sum()) for t in range(length)]
    x = np.asarray(params["embedding"]["table"], np.float64)[np.asarray(tokens)]
    x = x * math.sqrt(config.embed_dim) if config.embed_scale else x
    if config.positions == "learned":
        x = x + np.asarray(params["positions"]["table"], np.float64)[positions]

    def at(tree, layer):
        return {k: at(v, layer) if isinstance(v, dict) else np.asarray(v[layer], np.float64) for k, v in tree.items()}

    def project(x, p):
        return np.tensordot(x, p["kernel"], 1) + p.get("bias", 0.0)

    for layer in range(config.num_layers):
        p = at(params["layers"], layer)
        is_local = config.window and not (config.global_every and layer % config.global_every == config.global_every - 1)
        reach = config.window if is_local else length
        h = _norm(x, p["attention_norm"], config)
        q, k, v = (project(h, p["attention"][name]) for name in ("query", "key", "value"))
        if config.qk_norm:
            q = _norm(q, p["attention"]["query_norm"], config, "rmsnorm")
            k = _norm(k, p["attention"]["key_norm"], config, "rmsnorm")
        y = np.zeros((length, config.num_heads, config.head_width))
        for head in range(config.num_heads):
            group = head // (config.num_heads // config.kv_heads)
            for t in range(length):
                query, scores = q[t, head], []
                seen = [s for s in range(t + 1) if segments[s] == segments[t] and s > t - reach]
                if config.positions == "rotary":
                    query = _rotate(query, positions[t], config)
                for s in seen:
                    key = _rotate(k[s, group], positions[s], config) if config.positions == "rotary" else k[s, group]
                    score, cap = query @ key / math.sqrt(config.head_width), config.attention_softcap
                    scores.append(cap * math.tanh(score / cap) if cap else score)
                weight = np.exp(np.array(scores) - max(scores))
                y[t, head] = (weight / weight.sum()) @ v[seen, group]
        y = np.tensordot(y, p["attention"]["out"]["kernel"], 2) + p["attention"]["out"].get("bias", 0.0)
        x = x + (_norm(y, p["attention_post_norm"], config) if config.norm_position == "both" else y)
        h = h if config.parallel else _norm(x, p["feed_forward_norm"], config)
        up = project(h, p["feed_forward"]["up"])
        h = _activation(project(h, p["feed_forward"]["gate"]), config) * up if config.gated else _activation(up, config)
        y = project(h, p["feed_forward"]["down"])
        x = x + (_norm(y, p["feed_forward_post_norm"], config) if config.norm_position == "both" else y)
    final = {name: np.asarray(value, np.float64) for name, value in params["final_norm"].items()}
    return _norm(x, final, config)
