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


def _rotate(vector, position, config):
    """Each pair (k, k + K/2) as a complex number, turned by its angle."""
    half = len(vector) // 2
    pair = vector[:half] + 1j * vector[half:]
    pair = pair * np.exp(1j * position * config.rotary_base ** (-np.arange(half) / half))
    return np.concatenate([pair.real, pair.imag])


def hidden_states(params, config, tokens, segments=None):
    """Hidden states [T, D] of one row; positions restart with each segment."""
    length = len(tokens)
    segments = np.ones(length, int) if segments is None else np.asarray(segments)
    positions = [int((segments[:t] == segments[t]).sum()) for t in range(length)]
    x = np.asarray(params["embedding"]["table"], np.float64)[np.asarray(tokens)]
    if config.positions == "learned":
        x = x + np.asarray(params["positions"]["table"], np.float64)[positions]

    def at(tree, layer):
        return {k: at(v, layer) if isinstance(v, dict) else np.asarray(v[layer], np.float64) for k, v in tree.items()}

    def project(x, p):
        return np.tensordot(x, p["kernel"], 1) + p.get("bias", 0.0)

    for layer in range(config.num_layers):
        p = at(params["layers"], layer)
        h = _norm(x, p["attention_norm"], config)
        q, k, v = (project(h, p["attention"][name]) for name in ("query", "key", "value"))
        if config.qk_norm:
            q = _norm(q, p["attention"]["query_norm"], config, "rmsnorm")
            k = _norm(k, p["attention"]["key_norm"], config, "rmsnorm")
        y = np.zeros((length, config.num_heads, config.head_width))
        for head in range(config.num_heads):
            group = head // (config.num_heads // config.kv_heads)
            for t in range(length):
                query, scores, seen = q[t, head], [], [s for s in range(t + 1) if segments[s] == segments[t]]
                if config.positions == "rotary":
                    query = _rotate(query, positions[t], config)
                for s in seen:
                    key = _rotate(k[s, group], positions[s], config) if config.positions == "rotary" else k[s, group]
                    scores.append(query @ key / math.sqrt(config.head_width))
                weight = np.exp(np.array(scores) - max(scores))
                y[t, head] = (weight / weight.sum()) @ v[seen, group]
        x = x + np.tensordot(y, p["attention"]["out"]["kernel"], 2) + p["attention"]["out"].get("bias", 0.0)
        h = _norm(x, p["feed_forward_norm"], config)
        up = project(h, p["feed_forward"]["up"])
        h = _activation(project(h, p["feed_forward"]["gate"]), config) * up if config.gated else _activation(up, config)
        x = x + project(h, p["feed_forward"]["down"])
    final = {name: np.asarray(value, np.float64) for name, value in params["final_norm"].items()}
    return _norm(x, final, config)
