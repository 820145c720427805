"""Encoders of images, video and audio: one stack of the decoder's blocks that sees both ways, over rows into which media are packed.

Axes, beside those of the package:

    N  places of a row: patches, tubelets or frames      C  values of a place
    S  images, clips or recordings of a row              A  numbers that say where it lies: (t, y, x), (y, x) or (t)
    E  width of the encoder
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from model.attention.dispatch import Mask
from model.config import ModelConfig
from model.layers import ACTIVATIONS, Dense, FeedForward, Norm, Table, compute_dtype, constrain, dropout
from model.media.encoder_config import AudioEncoder, EncoderConfig, ImageEncoder, VideoEncoder
from model.stack import Context, CrossAttention, create_layers, run_layers


@functools.cache
def block_config(config: EncoderConfig) -> ModelConfig:
    """The config of an encoder's blocks, which are a decoder's."""
    same = (
        "num_layers",
        "embed_dim",
        "num_heads",
        "mlp_dim",
        "norm_epsilon",
        "activation",
        "dropout",
        "init_std",
        "scan",
        "remat",
        "dtype",
    )
    return ModelConfig(attention=config.kernel, **{name: getattr(config, name) for name in same})


def _normalised(config: EncoderConfig, patches_BNC):
    """Patches from -1 to 1 with the mean and standard deviation that the config asks for."""
    if not isinstance(config, ImageEncoder):
        return patches_BNC
    mean_3, std_3 = np.array(config.pixel_mean), np.array(config.pixel_std)
    scale_3, shift_3 = 0.5 / std_3, (0.5 - mean_3) / std_3
    if (scale_3 == 1.0).all() and (shift_3 == 0.0).all():
        return patches_BNC
    scale_C, shift_C = (np.tile(each, config.patch**2).astype(np.float32) for each in (scale_3, shift_3))
    return patches_BNC * scale_C + shift_C


class Encoder(nn.Module):
    """Encodes the media of packed rows: (patches_BNC, places_BNA, segments_BN) to hidden_BNE, which for audio has N / 2 places.

    Parameters: patches (the projection [C, E] of a place's values) or, where that is not all, stem; the tables of positions; token [E],
    the class token, if there is one; embedding_norm, if asked for; layers/..., each stacked over a leading axis `layers`; final_norm.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, patches_BNC, places_BNA, segments_BN, *, keys_B=None, masked_BN=None, mask_E=None):
        """patches_BNC: float32, or uint8, which becomes [-1, 1].
        places_BNA: int32, less than the config's extent; -1 along every axis marks a class token, whose values are not read.
        segments_BN: int32, the number of the image, clip or recording within its row, from 1; 0 is padding. Recordings begin at even
        places. keys_B: random keys, one a row, for dropout. masked_BN: bool, the hidden places whose values the vector mask_E replaces.
        """
        c, block = self.config, block_config(self.config)
        dtype = compute_dtype(block)
        if patches_BNC.dtype == jnp.uint8:
            patches_BNC = patches_BNC.astype(jnp.float32) / 127.5 - 1.0
        patches_BNC = _normalised(c, patches_BNC)
        if masked_BN is not None:  # nor may a convolution show them to their neighbours
            patches_BNC = jnp.where(masked_BN[..., None], 0, patches_BNC)
        if isinstance(c, AudioEncoder):
            x_BNE = ConvolutionStem(c, name="stem")(patches_BNC, segments_BN)
            places_BNA, segments_BN = encoded_places(c, places_BNA), encoded_segments(c, segments_BN)
        elif isinstance(c, ImageEncoder) and c.stem == "convolutions":
            x_BNE = PatchStem(c, name="stem")(patches_BNC, places_BNA, segments_BN)
        else:
            # The values of a patch are an axis like the hidden units of a feed-forward layer: nothing else on a mesh would divide it.
            std, bias = 1.0 / math.sqrt(c.patch_values), not isinstance(c, ImageEncoder) or c.patch_bias
            x_BNE = Dense((c.embed_dim,), ("mlp", "embed"), std, dtype, bias=bias, name="patches")(patches_BNC)
        if masked_BN is not None:
            x_BNE = jnp.where(masked_BN[..., None], mask_E.astype(dtype), x_BNE)
        vectors_BNE = self._positions(places_BNA)
        if c.pool == "token":
            token_BN1 = places_BNA[..., :1] < 0
            token_E = self.param("token", nn.with_logical_partitioning(nn.initializers.normal(c.init_std), ("embed",)), (c.embed_dim,))
            x_BNE = jnp.where(token_BN1, token_E.astype(dtype), x_BNE)
            vectors_BNE = vectors_BNE if _has_token_position(c) else jnp.where(token_BN1, 0, vectors_BNE)
        x_BNE += vectors_BNE.astype(dtype)
        if isinstance(c, ImageEncoder) and c.embedding_norm:
            x_BNE = Norm(block.norm, block.norm_epsilon, block.bias, name="embedding_norm")(x_BNE)
        x_BNE = constrain(dropout(x_BNE, c.dropout, keys_B, 0), "batch", "length", "residual")
        contexts = tuple(Context(Mask(causal=False, query_segments_BT=seen), keys_B=keys_B) for seen in _seen(c, places_BNA, segments_BN))
        if self.is_initializing():
            x_BNE = create_layers(block, x_BNE, contexts[0])
        else:
            x_BNE, *_ = run_layers(block, self.variables["params"], x_BNE, contexts)
        return Norm(block.norm, block.norm_epsilon, block.bias, name="final_norm")(x_BNE)

    def _positions(self, places_BNA):
        """The learned vectors of places, float32 [B, N, E]; of a class token, which lies at -1, only where it has one of its own."""
        c, std = self.config, 1.0 / math.sqrt(self.config.embed_dim)
        token_BN, places_BNA = places_BNA[..., 0] < 0, jnp.maximum(places_BNA, 0)

        def table(rows, name):
            return constrain(Table(rows, c.embed_dim, ("positions", "embed"), std, name=name)(), "positions", "residual")

        if c.positions == "learned":
            number_BN, own = _number(places_BNA, c.extent), int(_has_token_position(c))
            number_BN = jnp.where(token_BN, 0, number_BN + 1) if own else number_BN
            return table(math.prod(c.extent) + own, "positions")[number_BN]
        tables = [table(rows, f"positions_{axis}") for axis, rows in zip(c.axes, c.extent, strict=True)]
        return sum(table_PE[places_BNA[..., axis]] for axis, table_PE in enumerate(tables))


def _has_token_position(config: EncoderConfig) -> bool:
    return isinstance(config, ImageEncoder) and config.token_position


def _number(places_BNA, extent: tuple[int, ...]):
    """The number of a place when those of a grid are counted row by row."""
    number_BN = places_BNA[..., 0]
    for axis in range(1, len(extent)):
        number_BN = number_BN * extent[axis] + places_BNA[..., axis]
    return number_BN


def _seen(config: EncoderConfig, places_BNA, segments_BN) -> list:
    """Numbers [B, N] of what sees one another, for the layers that take turns; 0 on padding."""
    if not isinstance(config, VideoEncoder) or config.attention == "joint":
        return [segments_BN]
    times, rows, columns = config.extent
    frame_BN = segments_BN * times + places_BNA[..., 0]
    column_BN = segments_BN * rows * columns + _number(places_BNA[..., 1:], (rows, columns))
    return [jnp.where(segments_BN == 0, 0, seen_BN) for seen_BN in (frame_BN, column_BN)]


def encoded_segments(config: EncoderConfig, segments_BN):
    """The segments of an encoder's hidden places."""
    return segments_BN[:, ::2] if isinstance(config, AudioEncoder) else segments_BN


def encoded_places(config: EncoderConfig, places_BNA):
    """Where an encoder's hidden places lie."""
    return places_BNA[:, ::2] // 2 if isinstance(config, AudioEncoder) else places_BNA


class ConvolutionStem(nn.Module):
    """Two convolutions of width 3 over frames, each before a GELU; the second takes every other frame. Maps [B, N, C] to [B, N / 2, E].

    What belongs to another segment counts as the zeros beyond the end. Parameters: kernels [3 * C, E] and [3 * E, E], the earlier
    frame first.
    """

    config: AudioEncoder

    @nn.compact
    def __call__(self, frames_BNC, segments_BN):
        if frames_BNC.shape[1] % 2:
            raise ValueError(f"rows of audio need an even number of frames; there are {frames_BNC.shape[1]}")
        c, gelu, dtype = self.config, ACTIVATIONS["gelu"], compute_dtype(block_config(self.config))

        def convolve(windows, name):
            std = 1.0 / math.sqrt(windows.shape[-1])
            return gelu(Dense((c.embed_dim,), ("mlp", "embed"), std, dtype, bias=True, name=name)(windows))

        x_BNE = convolve(_windows(frames_BNC, segments_BN), "first")
        return convolve(_windows(x_BNE, segments_BN)[:, ::2], "second")


class PatchStem(nn.Module):
    """Convolutions over whole pictures that are packed as patches (after Xiao et al. 2021): [B, N, P * P * 3] to [B, N, E].

    The first has stride 4; then, while more than 2 x 2 of a patch is left and can be halved, come others of stride 2, each after a ReLU;
    then as many residual ones of stride 1 as the config says: x + convolution(ReLU(RMSNorm(x))). Windows are one wider than their stride
    and reach upwards and to the left; those of every other residual one reach downwards and to the right, so that two see as far on all
    sides. Beyond the edges of a picture are zeros. Parameters: kernels [windows, outputs] of convolution_0, convolution_1, ...,
    residual_0, ..., and out, over what is left of a patch; norm_0, ....
    """

    config: ImageEncoder

    @nn.compact
    def __call__(self, patches_BNC, places_BNA, segments_BN):
        c, block = self.config, block_config(self.config)
        dtype = compute_dtype(block)
        above, below = ((side, [_neighbours(places_BNA, segments_BN, -side * y, -side * x) for y, x in _SIDES]) for side in (-1, 1))

        def convolve(x, stride, width, name, towards):
            windows = _windows_of_pictures(x, stride, *towards)
            return Dense((width,), ("mlp", "embed"), math.sqrt(2.0 / windows.shape[-1]), dtype, bias=True, name=name)(windows)

        x = patches_BNC.reshape(*patches_BNC.shape[:2], c.patch, c.patch, 3)
        strides = [4]
        while (size := c.patch // math.prod(strides)) > 2 and size % 2 == 0:
            strides.append(2)
        for number, stride in enumerate(strides):
            width = max(8, c.embed_dim >> (len(strides) - 1 - number))
            x = convolve(jax.nn.relu(x) if number else x, stride, width, f"convolution_{number}", above)
        for number in range(c.stem_layers):
            h = jax.nn.relu(Norm("rmsnorm", block.norm_epsilon, name=f"norm_{number}")(x))
            x += convolve(h, 1, x.shape[-1], f"residual_{number}", below if number % 2 else above)
        x = x.reshape(*x.shape[:2], -1)
        return Dense((c.embed_dim,), ("mlp", "embed"), math.sqrt(2.0 / x.shape[-1]), dtype, bias=True, name="out")(x)


_SIDES = ((1, 0), (0, 1), (1, 1))
"""The three neighbours that a window reaches into: in the same column, in the same row, and across."""


def _windows_of_pictures(x, stride: int, side: int, neighbours):
    """Windows of (stride + 1) x (stride + 1) that reach one place up and to the left (side -1) or down and to the right (1):
    [B, N, S, S, C] to [B, N, S / stride, S / stride, W].

    For one matrix product: gradients of convolutions with strides are slow on a CPU, and the copies cost little where what lies together
    stays together. neighbours: the patches that lie there (`_neighbours`), in the order of _SIDES.
    """
    *most, size, _, channels = x.shape
    across = size // stride
    edge = slice(-1, None) if side < 0 else slice(1)
    edges = x[:, :, edge], x[:, :, :, edge], x[:, :, edge, edge]
    column, row, corner = (_of_neighbours(part, number_BN) for part, number_BN in zip(edges, neighbours, strict=True))
    strip, middle = jnp.concatenate([corner, row][::-side], 2), jnp.concatenate([column, x][::-side], 2)
    padded = jnp.concatenate([strip, middle][::-side], 3)
    windows = []
    for number in range(stride + 1):
        band = padded[:, :, number : number + size : stride]
        windows += [band[:, :, :, :-1].reshape(*most, across, across, stride * channels), band[:, :, :, stride::stride]]
    return jnp.concatenate(windows, -1)


def _neighbours(places_BNA, segments_BN, up: int, left: int):
    """int32 [B, N]: the number of the patch of the same picture that lies so far away; -1 where there is none."""
    wanted_BNA = places_BNA - jnp.array([up, left])
    there_BNN = (wanted_BNA[:, :, None] == places_BNA[:, None]).all(-1) & (segments_BN[:, :, None] == segments_BN[:, None])
    there_BNN &= ((segments_BN > 0) & (places_BNA >= 0).all(-1))[:, None]  # neither padding nor a class token
    return jnp.where(there_BNN.any(-1), there_BNN.argmax(-1), -1)


def _of_neighbours(x, number_BN):
    """What belongs to other patches, [B, N, ...]; zeros where there is none."""
    shape = (*number_BN.shape, *(1,) * (x.ndim - 2))
    found = jnp.take_along_axis(x, jnp.maximum(number_BN, 0).reshape(shape), axis=1)
    return jnp.where(number_BN.reshape(shape) >= 0, found, 0)


def _windows(x_BNC, segments_BN):
    """Each place between its neighbours: [B, N, 3 * C], zeros for neighbours of another segment."""
    edges = jnp.pad(segments_BN, ((0, 0), (1, 1)))
    padded = jnp.pad(x_BNC, ((0, 0), (1, 1), (0, 0)))
    before = jnp.where((edges[:, :-2] == segments_BN)[..., None], padded[:, :-2], 0)
    after = jnp.where((edges[:, 2:] == segments_BN)[..., None], padded[:, 2:], 0)
    return jnp.concatenate([before, x_BNC, after], -1)


def segment_means(x_BNE, segments_BN, count: int):
    """The mean over the places of each of the segments 1 to `count`: [B, S, E], zeros for those that a row does not have."""
    belongs_BSN = segments_BN[:, None, :] == jnp.arange(1, count + 1)[:, None]
    share_BSN = belongs_BSN / jnp.maximum(belongs_BSN.sum(-1, keepdims=True), 1)
    return (share_BSN @ x_BNE.astype(jnp.float32)).astype(x_BNE.dtype)


def segment_sums(x_BNE, segments_BN, count: int):
    """The sum over the places of each of the segments 1 to `count`: float32 [B, S, E], zeros for those that a row does not have."""
    belongs_BSN = segments_BN[:, None, :] == jnp.arange(1, count + 1)[:, None]
    return belongs_BSN.astype(jnp.float32) @ x_BNE.astype(jnp.float32)


def segment_lasts(x_BNE, segments_BN, count: int):
    """What stands at the last place of each of the segments 1 to `count`: [B, S, E], zeros for those that a row does not have."""
    belongs_BSN = segments_BN[:, None, :] == jnp.arange(1, count + 1)[:, None]
    last_BS = jnp.where(belongs_BSN, jnp.arange(segments_BN.shape[1]), -1).max(-1)
    found_BSE = jnp.take_along_axis(x_BNE, jnp.maximum(last_BS, 0)[..., None], axis=1)
    return jnp.where(last_BS[..., None] >= 0, found_BSE, 0)


class Pool(nn.Module):
    """One vector for each image, clip or recording: hidden_BNE to pooled_BSE, zeros for those that a row does not have.

    Parameters, of attention only: probe [E], the one query of all (Zhai et al. 2022), attention, norm, feed_forward.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(self, hidden_BNE, segments_BN, count: int, places_BNA=None):
        """segments_BN: of the hidden places (`encoded_segments`). count: S, segments 1 to S are pooled. places_BNA: for class tokens."""
        c, block = self.config, block_config(self.config)
        if c.pool == "mean":
            return segment_means(hidden_BNE, segments_BN, count)
        if c.pool == "token":
            if places_BNA is None:
                raise ValueError("a class token is found by its place: give places_BNA")
            return segment_means(hidden_BNE, jnp.where(places_BNA[..., 0] < 0, segments_BN, 0), count)
        numbers_S = jnp.arange(1, count + 1)
        present_BS1 = (segments_BN[:, None, :] == numbers_S[:, None]).any(-1, keepdims=True)
        init = nn.with_logical_partitioning(nn.initializers.normal(1.0 / math.sqrt(c.embed_dim)), ("embed",))
        probe_E = self.param("probe", init, (c.embed_dim,))
        shape = (*present_BS1.shape[:2], c.embed_dim)
        mask = Mask(causal=False, query_segments_BT=jnp.broadcast_to(numbers_S, shape[:2]), key_segments_BS=segments_BN)
        probe_BSE = jnp.broadcast_to(probe_E.astype(hidden_BNE.dtype), shape)
        x_BSE = CrossAttention(block, name="attention")(probe_BSE, hidden_BNE, mask)
        h_BSE = Norm(block.norm, block.norm_epsilon, block.bias, name="norm")(x_BSE)
        x_BSE += FeedForward(block, name="feed_forward")(h_BSE)
        return jnp.where(present_BS1, x_BSE, 0)
