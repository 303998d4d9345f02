"""``sdvar info``: what a checkpoint is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdvar_jax.cli.options import DEFAULT_MODEL
from sdvar_jax.cli.terminal import in_bytes, say, show_table

if TYPE_CHECKING:
    from sdvar_jax.checkpoint import CheckpointInfo, PartInfo
    from sdvar_jax.sampling import SamplingConfig

_MEANINGS = {"var": "target", "vqvae": "VQVAE", "draft": "draft"}
_FEW_CLASSES = 40


def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help="A checkpoint directory, the name of a model that comes with sdvar, or "
            "hf:OWNER/NAME.",
        ),
    ] = DEFAULT_MODEL,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, for programs.")
    ] = False,
    classes: Annotated[
        bool, typer.Option("--classes", help="List all classes with their numbers.")
    ] = False,
) -> None:
    """Tell what a checkpoint is.

    Its models, their shapes and sizes, its classes, the sampling settings that suit it, and where
    it came from. Reads no weights.
    """
    from sdvar_jax.loading import read_model_info

    path, found = read_model_info(model)
    if as_json:
        say(json.dumps({"directory": str(path), **found.to_dict()}, indent=2))
        return
    names = _class_names(found)
    if classes:
        for number, name in enumerate(names):
            say(f"{number:>4}  {name}")
        return
    show_table(_rows(str(path), found))
    if 0 < len(names) <= _FEW_CLASSES:
        say("classes")
        for number, name in enumerate(names):
            say(f"  {number:>3}  {name}")
    elif names:
        say(f"{len(names)} classes; list them with --classes")


def _class_names(found: CheckpointInfo) -> tuple[str, ...]:
    from sdvar_jax.labels import default_names

    var = found.var_config or found.draft_config
    if var is None:
        return ()
    return found.class_names or default_names(var.num_classes)


def _rows(path: str, found: CheckpointInfo) -> list[tuple[str, str]]:
    rows = [
        ("checkpoint", path),
        ("written by", found.created_by or "unknown"),
        ("stored as", f"{found.storage}, format {found.format_version}"),
    ]
    rows += [(_MEANINGS[name], _described(part)) for name, part in found.parts.items()]
    config: Any = next(iter(found.parts.values())).config
    rows.append(("scales", f"{config.pyramid} ({config.pyramid.total_length} tokens)"))
    rows.append(("codebook", f"{config.vocab_size} entries of {config.latent_channels} channels"))
    if found.vqvae_config is not None:
        side = found.vqvae_config.image_side
        rows.append(("pictures", f"{side}x{side} pixels"))
    if (found.var_config or found.draft_config) is not None:
        rows.append(("sampled with", _sampled(found.sampling)))
    rows += [
        ("converted from", f"{source.name}, {in_bytes(source.size)}, SHA-256 {source.sha256}")
        for source in found.sources
    ]
    return rows


def _sampled(named: SamplingConfig | None) -> str:
    """The settings that `sdvar sample` uses where the user gives none."""
    from sdvar_jax.sampling import SamplingConfig

    used = SamplingConfig() if named is None else named
    told = [f"cfg {used.cfg:g}", f"top-k {used.top_k or 'all'}", f"top-p {used.top_p or 'all'}"]
    if used.guidance_schedule != SamplingConfig().guidance_schedule:
        told.append(f"{used.guidance_schedule} guidance")
    if used.guidance_until is not None:
        told.append(f"guidance until scale {used.guidance_until}")
    return ", ".join(told) + (" (the package's settings)" if named is None else "")


def _described(part: PartInfo) -> str:
    config: Any = part.config
    told = [f"{part.parameters / 1e6:.1f} M parameters", part.dtype, in_bytes(part.size)]
    if hasattr(config, "depth"):
        told.append(f"depth {config.depth}, width {config.width}, {config.heads} heads")
        told += ["shared AdaLN"] if config.shared_aln else []
        told += [] if config.attn_l2_norm else ["no q/k normalisation"]
    return ", ".join(told)
