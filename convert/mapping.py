"""Which PyTorch key is which Flax parameter: the table, and both directions.

A rule pairs a template of the PyTorch key with a template of the Flax path. Fields in braces stand
for what both sides share (layer numbers, encoder or decoder). A template must match a whole key,
and every key is matched by exactly one rule, so the table is a bijection.

Some keys of the original are not parameters. *Derived* buffers follow from the configuration: they
are checked on the way in and computed on the way out. *Kept* buffers are stored beside the
parameters, for the way out alone.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from convert.transforms import CONV, IDENTITY, LINEAR, Shape, Transform, drop_ones
from sdvar_jax.checkpoint.assembly import abstract_arrays, flatten, nest
from sdvar_jax.config import VARConfig, VQVAEConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.models.var import block_causal_mask, scale_of_position

Config = VARConfig | VQVAEConfig

_FIELDS = {
    "i": r"\d+",
    "j": r"\d+",
    "half": "encoder|decoder",
    "level": r"encoder\.down\.\d+|decoder\.up\.\d+",
    "n": "1|2",
    "edge": "in|out",
    "post": "|post_",
    "proj": "qkv|proj_out",
    "sample": "downsample|upsample",
    "fc": "fc1|fc2",
    "qv": "q|v",
}
_FIELD = re.compile(r"\\\{(\w+)\\\}")


def _compile(template: str) -> re.Pattern[str]:
    return re.compile(
        _FIELD.sub(lambda m: f"(?P<{m[1]}>{_FIELDS[m[1]]})", re.escape(template)), re.ASCII
    )


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
      torch: template of the PyTorch key.
      flax: template of the Flax path, dotted.
      transform: change of layout between the two.
      when: whether models of a configuration name the parameter this way. Needed only where
        several PyTorch names stand for one parameter (the quantizer's sharing).
    """

    torch: str
    flax: str
    transform: Transform = IDENTITY
    when: Callable[[Any], bool] = lambda config: True

    @functools.cached_property
    def torch_pattern(self) -> re.Pattern[str]:
        """Matches the PyTorch keys of this rule."""
        return _compile(self.torch)

    @functools.cached_property
    def flax_pattern(self) -> re.Pattern[str]:
        """Matches the Flax paths of this rule."""
        return _compile(self.flax)


@dataclasses.dataclass(frozen=True)
class Match:
    """A PyTorch key with its Flax path and the change of layout between them."""

    torch: str
    flax: str
    transform: Transform


def _weight_and_bias(torch: str, flax: str, transform: Transform, weight: str) -> list[Rule]:
    return [
        Rule(f"{torch}.weight", f"{flax}.{weight}", transform),
        Rule(f"{torch}.bias", f"{flax}.bias"),
    ]


def _linear(torch: str, flax: str) -> list[Rule]:
    return _weight_and_bias(torch, flax, LINEAR, "kernel")


def _conv(torch: str, flax: str | None = None) -> list[Rule]:
    return _weight_and_bias(torch, flax or torch, CONV, "kernel")


def _norm(path: str) -> list[Rule]:
    return _weight_and_bias(path, path, IDENTITY, "scale")


VAR_RULES: tuple[Rule, ...] = (
    Rule("pos_start", "pos_start", drop_ones(1)),
    Rule("pos_1LC", "pos_embed", drop_ones(1)),
    Rule("class_emb.weight", "class_embed"),
    Rule("lvl_embed.weight", "scale_embed"),
    *_linear("word_embed", "word_embed"),
    *_linear("shared_ada_lin.1", "shared_ada_lin"),
    Rule("blocks.{i}.ada_gss", "blocks.{i}.ada_gss", drop_ones(2)),
    *_linear("blocks.{i}.ada_lin.1", "blocks.{i}.ada_lin"),
    Rule("blocks.{i}.attn.scale_mul_1H11", "blocks.{i}.attn.scale_mul", drop_ones(1, 2)),
    Rule("blocks.{i}.attn.{qv}_bias", "blocks.{i}.attn.{qv}_bias"),
    Rule("blocks.{i}.attn.mat_qkv.weight", "blocks.{i}.attn.qkv_kernel", LINEAR),
    *_linear("blocks.{i}.attn.proj", "blocks.{i}.attn.proj"),
    *_linear("blocks.{i}.ffn.{fc}", "blocks.{i}.ffn.{fc}"),
    *_linear("head_nm.ada_lin.1", "head_ada_lin"),
    Rule("head.weight", "head_kernel", LINEAR),
    Rule("head.bias", "head_bias"),
)


def _quantizer_convolutions() -> list[Rule]:
    """phi: one a scale, one for all, or some shared, each under a name of its own."""
    names: list[tuple[str, str, Callable[[VQVAEConfig], bool]]] = [
        ("quantize.quant_resi.{i}", "{i}", lambda config: config.shared_convolutions == 0),
        ("quantize.quant_resi.qresi", "0", lambda config: config.shared_convolutions == 1),
        ("quantize.quant_resi.qresi_ls.{i}", "{i}", lambda config: config.shared_convolutions > 1),
    ]
    return [
        dataclasses.replace(rule, when=when)
        for torch, index, when in names
        for rule in _conv(torch, f"quantizer.convolutions.{index}")
    ]


VQVAE_RULES: tuple[Rule, ...] = (
    *_conv("{half}.conv_{edge}"),
    *_norm("{half}.norm_out"),
    *_norm("{level}.block.{j}.norm{n}"),
    *_conv("{level}.block.{j}.conv{n}"),
    *_conv("{level}.block.{j}.nin_shortcut", "{level}.block.{j}.shortcut"),
    *_norm("{level}.attn.{j}.norm"),
    *_conv("{level}.attn.{j}.{proj}"),
    *_conv("{level}.{sample}.conv"),
    *_norm("{half}.mid.block_{i}.norm{n}"),
    *_conv("{half}.mid.block_{i}.conv{n}"),
    *_norm("{half}.mid.attn_1.norm"),
    *_conv("{half}.mid.attn_1.{proj}"),
    *_conv("{post}quant_conv"),
    Rule("quantize.embedding.weight", "quantizer.codebook"),
    *_quantizer_convolutions(),
)

DERIVED_BUFFERS = {
    "var": re.compile(r"lvl_1L|attn_bias_for_masking|blocks\.\d+\.attn\.zero_k_bias", re.ASCII),
    "vqvae": re.compile(r"(?!)"),
}
KEPT_BUFFERS = {"var": (), "vqvae": ("quantize.ema_vocab_hit_SV",)}


def kind_of(config: Config) -> str:
    """The kind of model, "var" or "vqvae"."""
    return "var" if isinstance(config, VARConfig) else "vqvae"


def rules_of(kind: str) -> tuple[Rule, ...]:
    """The table of "var" or "vqvae"."""
    return {"var": VAR_RULES, "vqvae": VQVAE_RULES}[kind]


def match_torch_key(key: str, kind: str) -> tuple[Match, ...]:
    """Every rule's match of a PyTorch key: one for a parameter, none for anything else."""
    return tuple(
        Match(key, rule.flax.format(**match.groupdict()), rule.transform)
        for rule in rules_of(kind)
        if (match := rule.torch_pattern.fullmatch(key))
    )


def match_flax_path(path: str, config: Config) -> Match:
    """The PyTorch key of a dotted Flax path."""
    found = [
        Match(rule.torch.format(**match.groupdict()), path, rule.transform)
        for rule in rules_of(kind_of(config))
        if rule.when(config) and (match := rule.flax_pattern.fullmatch(path))
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rules for the parameter {path}; there must be one")
    return found[0]


def is_derived(key: str, kind: str) -> bool:
    """Whether a PyTorch key is a buffer that follows from the configuration."""
    return DERIVED_BUFFERS[kind].fullmatch(key) is not None


def is_known(key: str, kind: str) -> bool:
    """Whether a PyTorch key belongs to a model of this kind, of whatever configuration."""
    return (
        is_derived(key, kind) or key in KEPT_BUFFERS[kind] or len(match_torch_key(key, kind)) == 1
    )


@functools.lru_cache(maxsize=32)
def parameter_matches(config: Config) -> Mapping[str, Match]:
    """PyTorch key -> match of every parameter of a model, in the order of the Flax paths."""
    matches = [match_flax_path(path, config) for path in abstract_arrays(config)]
    return {match.torch: match for match in matches}


def parameter_shapes(config: Config) -> dict[str, Shape]:
    """PyTorch key -> PyTorch shape of every parameter of a model."""
    arrays = abstract_arrays(config)
    return {
        key: match.transform.torch_shape(arrays[match.flax].shape)
        for key, match in parameter_matches(config).items()
    }


def buffer_shapes(config: Config) -> dict[str, Shape]:
    """PyTorch key -> shape of every derived and kept buffer of a model."""
    if isinstance(config, VQVAEConfig):
        return {"quantize.ema_vocab_hit_SV": (config.pyramid.num_scales, config.vocab_size)}
    length = config.pyramid.total_length
    return {
        "lvl_1L": (1, length),
        "attn_bias_for_masking": (1, 1, length, length),
        **{f"blocks.{i}.attn.zero_k_bias": (config.width,) for i in range(config.depth)},
    }


def derived_buffer(key: str, config: VARConfig) -> np.ndarray:
    """The value of a derived buffer as the original's constructor makes it.

    Returns:
      ``lvl_1L`` int64 [1, L], ``attn_bias_for_masking`` float32 [1, 1, L, L] (0 or -inf),
      ``zero_k_bias`` float32 [width].
    """
    if key == "lvl_1L":
        return scale_of_position(config.pyramid).astype(np.int64)[None]
    if key == "attn_bias_for_masking":
        seen = block_causal_mask(config.pyramid)
        return np.where(seen, np.float32(0), np.float32(-np.inf))[None, None]
    return np.zeros((config.width,), np.float32)


def to_flax(state_dict: Mapping[str, np.ndarray], config: Config) -> dict[str, Any]:
    """The parameters of a PyTorch state dict, laid out for the Flax model.

    Args:
      state_dict: PyTorch key -> array (NumPy or ml_dtypes), without prefixes. Buffers are checked
        by ``check_keys`` and otherwise left out.
      config: of the model.

    Returns:
      A nested dict that mirrors ``nnx.state(model)``, with views of the arrays given.

    Raises:
      SdvarError: naming every key that is missing, unexpected or mis-shaped.
    """
    check_keys({key: value.shape for key, value in state_dict.items()}, config)
    return nest(
        {
            match.flax: match.transform.to_flax(state_dict[key])
            for key, match in parameter_matches(config).items()
        }
    )


def to_torch(
    params: Mapping[str, Any], config: Config, kept: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The inverse of ``to_flax``, with derived buffers computed and kept ones added.

    Args:
      params: nested dict as ``to_flax`` returns it.
      config: of the model.
      kept: PyTorch key -> value of the kept buffers.

    Returns:
      PyTorch key -> array.
    """
    flat = flatten(params)
    state = {
        key: match.transform.to_torch(np.asarray(flat[match.flax]))
        for key, match in parameter_matches(config).items()
    }
    if isinstance(config, VARConfig):
        state |= {key: derived_buffer(key, config) for key in buffer_shapes(config)}
    return state | dict(kept or {})


def key_problems(shapes: Mapping[str, Shape], config: Config) -> list[str]:
    """Every way in which the keys and shapes of a state dict differ from the model's."""
    required = parameter_shapes(config)
    optional = buffer_shapes(config)
    allowed = required | optional
    missing = [key for key in required if key not in shapes]
    unexpected = [key for key in shapes if key not in allowed]
    wrong = [
        f"{key} {_shape(shapes[key])} instead of {_shape(allowed[key])}"
        for key in shapes
        if key in allowed and tuple(shapes[key]) != tuple(allowed[key])
    ]
    problems = []
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", wrong)):
        if keys:
            problems.append(f"{len(keys)} {title}: {', '.join(keys)}")
    return problems


def check_keys(shapes: Mapping[str, Shape], config: Config) -> None:
    """Raises ``SdvarError`` naming every missing, unexpected and mis-shaped key, if there is one.

    Args:
      shapes: PyTorch key -> shape. Buffers may be missing.
      config: of the model.
    """
    problems = key_problems(shapes, config)
    if problems:
        name = "VAR" if kind_of(config) == "var" else "VQVAE"
        raise SdvarError(f"the weights do not fit the {name} model; {'; '.join(problems)}")


def _shape(shape: Iterable[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


__all__ = [
    "Config",
    "Match",
    "Rule",
    "buffer_shapes",
    "check_keys",
    "derived_buffer",
    "is_derived",
    "is_known",
    "key_problems",
    "kind_of",
    "match_flax_path",
    "match_torch_key",
    "parameter_matches",
    "parameter_shapes",
    "to_flax",
    "to_torch",
]
