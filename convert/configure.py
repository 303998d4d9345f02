"""Working out a model's configuration from the shapes of its tensors.

Every value is the one that most tensors agree on, so that a single missing or mis-shaped tensor
does not hide behind a configuration bent to fit it: it is named by the check that follows.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from convert.transforms import Shape
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.config import PYRAMID_256, PYRAMID_512, ScalePyramid, VARConfig, VQVAEConfig
from sdvar_jax.errors import SdvarError

_KNOWN_PYRAMIDS = (PYRAMID_256, PYRAMID_512)
_HEAD_DIM = 64
_MOST_SCALES = 1000
# Where every tensor that tells a value is missing, the official one lets the check name them.
_DEFAULT_VAR = VARConfig.of_depth(16)
_DEFAULT_VQVAE = VQVAEConfig()

StateDict = Mapping[str, LazyArray]


@dataclasses.dataclass(frozen=True)
class Overrides:
    """What the tensors leave open, or the user knows better.

    Attributes:
      heads: of a VAR without q/k normalisation, where no tensor tells; else width / 64.
      pyramid: where ``lvl_1L`` is missing and the position table fits no official pyramid.
      residual_ratio: of the quantizer's convolutions; the original's is 0.5.
    """

    heads: int | None = None
    pyramid: ScalePyramid | None = None
    residual_ratio: float | None = None


NO_OVERRIDES = Overrides()


def parse_pyramid(text: str) -> ScalePyramid:
    """Reads "256", "512" or the sides, as in "1-2-3-4" or "1,2,3,4"."""
    named = {"256": PYRAMID_256, "512": PYRAMID_512}
    if text in named:
        return named[text]
    parts = re.split(r"[-,\s]+", text.strip())
    if not all(part.isdecimal() for part in parts):
        raise SdvarError(f"cannot read the pyramid {text!r}; write 256, 512 or sides as in 1-2-3-4")
    return ScalePyramid(tuple(map(int, parts)))


def infer_var_config(state: StateDict, overrides: Overrides = NO_OVERRIDES) -> VARConfig:
    """The configuration of a VAR state dict.

    Raises:
      SdvarError: tensors that tell it are missing or contradict each other.
    """
    shapes = _shapes(state)
    blocks = _indices(shapes, r"blocks\.(\d+)\..*")
    if not blocks:
        raise SdvarError("the VAR has no transformer blocks (no key starts with 'blocks.0.')")
    depth = max(blocks) + 1
    width = _agreed("VAR width", _var_widths(shapes))
    hidden = [shape[0] for _, shape in _matching(shapes, r"blocks\.\d+\.ffn\.fc1\.bias", 1)]
    hidden += [shape[-1] for _, shape in _matching(shapes, r"blocks\.\d+\.ffn\.fc2\.weight", 2)]
    scale_muls = _matching(shapes, r"blocks\.\d+\.attn\.scale_mul_1H11", 4)
    heads = overrides.heads
    if scale_muls:
        told = _agreed("number of heads", (shape[1] for _, shape in scale_muls))
        if heads not in (None, told):
            raise SdvarError(f"{heads} heads were asked for, but the weights have {told}")
        heads = told
    elif heads is None:
        if width % _HEAD_DIM:
            raise SdvarError(f"no tensor tells the heads of this VAR (width {width}); give --heads")
        heads = width // _HEAD_DIM
    shared = any(key.startswith("shared_ada_lin.") or key.endswith(".ada_gss") for key in shapes)
    return VARConfig(
        depth=depth,
        width=width,
        heads=heads,
        pyramid=_var_pyramid(state, overrides.pyramid),
        vocab_size=_agreed(
            "vocabulary",
            _sizes(shapes, ("head.weight", 0), ("head.bias", 0)),
            _DEFAULT_VAR.vocab_size,
        ),
        latent_channels=_agreed(
            "latent channels",
            _sizes(shapes, ("word_embed.weight", 1)),
            _DEFAULT_VAR.latent_channels,
        ),
        num_classes=_agreed(
            "number of classes",
            _sizes(shapes, ("class_emb.weight", 0)),
            _DEFAULT_VAR.num_classes + 1,
        )
        - 1,
        mlp_ratio=_agreed("feed-forward width", hidden, 4 * width) / width,
        attn_l2_norm=bool(scale_muls),
        shared_aln=shared,
        drop_path_rate=VARConfig.of_depth(depth).drop_path_rate,
    )


def infer_vqvae_config(
    state: StateDict, overrides: Overrides = NO_OVERRIDES, pyramid: ScalePyramid | None = None
) -> VQVAEConfig:
    """The configuration of a VQVAE state dict.

    Args:
      state: key -> array.
      overrides: see ``Overrides``.
      pyramid: of the VAR that comes with it; the VQVAE's own tensors tell the number of scales at
        most.

    Raises:
      SdvarError: tensors that tell it are missing or contradict each other.
    """
    shapes = _shapes(state)
    channels = _agreed(
        "VQVAE channels",
        _sizes(
            shapes,
            ("encoder.conv_in.weight", 0),
            ("encoder.conv_in.bias", 0),
            ("decoder.norm_out.weight", 0),
            ("decoder.conv_out.weight", 1),
        ),
        _DEFAULT_VQVAE.channels,
    )
    levels = max(
        [
            *_indices(shapes, r"encoder\.down\.(\d+)\..*"),
            *_indices(shapes, r"decoder\.up\.(\d+)\..*"),
            -1,
        ]
    )
    widths = [
        _agreed(
            f"channels of resolution level {level}",
            (
                shape[0]
                for _, shape in _matching(
                    shapes, rf"(encoder\.down|decoder\.up)\.{level}\.block\.\d+\.conv2\.weight", 4
                )
            ),
        )
        for level in range(levels + 1)
    ]
    if not widths or any(width % channels for width in widths):
        raise SdvarError(
            f"the VQVAE's levels have {widths} channels, which are no multiples of {channels}"
        )
    ratio = overrides.residual_ratio
    options = {} if ratio is None else {"residual_ratio": ratio}
    return VQVAEConfig(
        pyramid=_vqvae_pyramid(shapes, overrides.pyramid or pyramid),
        vocab_size=_agreed(
            "codebook size",
            _sizes(shapes, ("quantize.embedding.weight", 0), ("quantize.ema_vocab_hit_SV", 1)),
            _DEFAULT_VQVAE.vocab_size,
        ),
        latent_channels=_agreed(
            "latent channels",
            _sizes(
                shapes,
                ("quantize.embedding.weight", 1),
                ("encoder.conv_out.bias", 0),
                ("quant_conv.bias", 0),
                ("post_quant_conv.bias", 0),
            ),
            _DEFAULT_VQVAE.latent_channels,
        ),
        channels=channels,
        channel_multipliers=tuple(width // channels for width in widths),
        residual_blocks=_agreed(
            "residual blocks",
            [
                1 + max(_indices(shapes, rf"encoder\.down\.{level}\.block\.(\d+)\..*"), default=-1)
                for level in range(levels + 1)
            ],
        ),
        shared_convolutions=_sharing(shapes),
        attention=any(re.match(r"(encoder\.down|decoder\.up)\.\d+\.attn\.", key) for key in shapes),
        mid_attention=any(".mid.attn_1." in key for key in shapes),
        **options,
    )


def _var_widths(shapes: Mapping[str, Shape]) -> Iterator[int]:
    yield from _sizes(
        shapes,
        ("pos_start", -1),
        ("pos_1LC", -1),
        ("class_emb.weight", -1),
        ("lvl_embed.weight", -1),
        ("word_embed.bias", 0),
        ("head.weight", -1),
    )
    for _, shape in _matching(shapes, r"blocks\.\d+\.attn\.(q_bias|v_bias|proj\.bias)", 1):
        yield shape[0]


def _var_pyramid(state: StateDict, asked: ScalePyramid | None) -> ScalePyramid:
    if "lvl_1L" in state:
        told = _pyramid_of_levels(state["lvl_1L"])
        if asked not in (None, told):
            raise SdvarError(
                f"the pyramid {asked} was asked for, but the weights' lvl_1L says {told}"
            )
        return told
    if asked is not None:
        return asked
    scales = state["lvl_embed.weight"].shape[0] if "lvl_embed.weight" in state else None
    length = state["pos_1LC"].shape[1] if _rank(state, "pos_1LC") == 3 else None
    for pyramid in _KNOWN_PYRAMIDS:
        if length == pyramid.total_length and scales in (None, pyramid.num_scales):
            return pyramid
    raise SdvarError(
        f"no tensor tells the pyramid: lvl_1L is missing, and {length} positions in {scales} "
        "scales are no official pyramid; give --pyramid, e.g. 1-2-3-4"
    )


def _pyramid_of_levels(levels: LazyArray) -> ScalePyramid:
    """The pyramid from the scale of every position, ``lvl_1L``."""
    values = levels.read().reshape(-1)
    if not np.issubdtype(values.dtype, np.integer) or values.size == 0:
        raise SdvarError(f"lvl_1L is no list of scales: {values.dtype} {list(levels.shape)}")
    scales, lengths = np.unique(values, return_counts=True)
    counted = scales.size <= _MOST_SCALES and np.array_equal(scales, np.arange(scales.size))
    if not counted or np.any(np.diff(values) < 0):
        raise SdvarError("lvl_1L does not number the scales 0, 0..1, 1..2 and so on")
    return ScalePyramid.from_lengths(int(length) for length in lengths)


def _vqvae_pyramid(shapes: Mapping[str, Shape], given: ScalePyramid | None) -> ScalePyramid:
    if given is not None:
        return given
    hits = shapes.get("quantize.ema_vocab_hit_SV")
    scales = hits[0] if hits else None
    if scales in (None, PYRAMID_256.num_scales):
        # The official VQVAE serves both pyramids of ten scales; 256 pixels is its own.
        return PYRAMID_256
    raise SdvarError(
        f"no tensor of the VQVAE tells its pyramid of {scales} scales; convert it together with "
        "its VAR or give --pyramid, e.g. 1-2-3-4"
    )


def _sharing(shapes: Mapping[str, Shape]) -> int:
    """``shared_convolutions`` from the names: one a scale, one for all, or some shared."""
    if any(key.startswith("quantize.quant_resi.qresi.") for key in shapes):
        return 1
    shared = _indices(shapes, r"quantize\.quant_resi\.qresi_ls\.(\d+)\..*")
    return max(shared) + 1 if shared else 0


def _shapes(state: StateDict) -> dict[str, Shape]:
    return {key: array.shape for key, array in state.items()}


def _rank(state: StateDict, key: str) -> int:
    return state[key].ndim if key in state else -1


def _matching(shapes: Mapping[str, Shape], pattern: str, rank: int) -> list[tuple[str, Shape]]:
    return [
        (key, shape)
        for key, shape in shapes.items()
        if len(shape) == rank and re.fullmatch(pattern, key)
    ]


def _sizes(shapes: Mapping[str, Shape], *axes: tuple[str, int]) -> Iterator[int]:
    for key, axis in axes:
        shape = shapes.get(key, ())
        if -len(shape) <= axis < len(shape):
            yield shape[axis]


def _indices(shapes: Mapping[str, Shape], pattern: str) -> set[int]:
    return {int(match[1]) for key in shapes if (match := re.fullmatch(pattern, key))}


def _agreed(what: str, values: Iterable[int], default: int | None = None) -> int:
    """The value that most tensors have; ``default`` where every such tensor is missing."""
    counts = collections.Counter(value for value in values if value > 0)
    if not counts and default is not None:
        return default
    if not counts:
        raise SdvarError(f"cannot tell the {what}: the tensors that have it are missing")
    return counts.most_common(1)[0][0]
