"""``sdvar train``: a VQVAE, a VAR, a draft distilled from a target."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdvar_jax.cli.outputs import check_outputs, write_json
from sdvar_jax.cli.terminal import in_seconds, note, say, show_table
from sdvar_jax.cli.training_options import (
    OPTIMIZER,
    SHAPE,
    BalanceOption,
    BatchSizeOption,
    CheckpointEveryOption,
    ComputeDType,
    ComputeOption,
    DataArgument,
    EvaluationsOption,
    LearningRateOption,
    LogsOption,
    MinutesOption,
    OutputOption,
    OverwriteOption,
    PicturesOption,
    QuietOption,
    ResumeOption,
    SeedOption,
    StatsOption,
    StepsOption,
    TrainingOptions,
    WarmupOption,
    WeightDecayOption,
)
from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    from sdvar_jax.config import VARConfig, VQVAEConfig
    from sdvar_jax.data import ImageSource
    from sdvar_jax.sampling import SamplingConfig
    from sdvar_jax.training import DistillConfig, VARTrainingConfig, VQVAETrainingConfig

OFFICIAL, EMOJI, EMOJI_TARGET, EMOJI_DRAFT = "official", "emoji", "emoji-target", "emoji-draft"

app = typer.Typer(rich_markup_mode="markdown")


@app.callback()
def _group() -> None:
    """Train models: first a VQVAE, then a VAR on it, then a draft for the VAR."""


@app.command("vqvae")
def train_vqvae_command(
    data: DataArgument,
    output: OutputOption,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Shapes and settings to start from: official (256 px) or emoji (64 px).",
            rich_help_panel=SHAPE,
        ),
    ] = OFFICIAL,
    pyramid: Annotated[
        str | None,
        typer.Option(
            "--pyramid",
            metavar="SIDES",
            help="Sides of the token maps, such as 1-2-3-4.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            "--vocab-size",
            metavar="N",
            help="Codebook entries.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    latent_channels: Annotated[
        int | None,
        typer.Option(
            "--latent-channels",
            metavar="N",
            help="Channels of a codebook entry.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            "--channels",
            metavar="N",
            help="Channels at full resolution, a multiple of 32.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    channel_multipliers: Annotated[
        str | None,
        typer.Option(
            "--channel-multipliers",
            metavar="N,N,...",
            help="Channels of each resolution in units of --channels; each but the last halves "
            "the side, so these and the pyramid decide the size of the pictures.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    weight_decay: WeightDecayOption = None,
    warmup: WarmupOption = None,
    balance: BalanceOption = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Read pictures as they are needed, for sets that do not fit the device.",
            rich_help_panel=OPTIMIZER,
        ),
    ] = False,
    seed: SeedOption = 0,
    dtype: ComputeOption = ComputeDType.AUTO,
    logs: LogsOption = None,
    resume: ResumeOption = False,
    checkpoint_every: CheckpointEveryOption = 0,
    evaluations: EvaluationsOption = None,
    pictures: PicturesOption = None,
    overwrite: OverwriteOption = False,
    stats: StatsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a VQVAE, which turns pictures into tokens and back."""
    job = _Job(data, output, overwrite, stats, quiet)
    options = TrainingOptions(
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
        dtype=dtype,
        logs=logs,
        resume=resume,
        checkpoint_every=checkpoint_every,
        evaluations=evaluations,
        pictures=pictures,
    )
    from sdvar_jax.training import train_vqvae

    shape = {
        "pyramid": None if pyramid is None else _pyramid(pyramid),
        "vocab_size": vocab_size,
        "latent_channels": latent_channels,
        "channels": channels,
        "channel_multipliers": None
        if channel_multipliers is None
        else _numbers(channel_multipliers, "--channel-multipliers"),
    }
    config = vqvae_training(preset, options, shape, None if balance is None else str(balance))
    train, heldout = job.begin(config.model.image_side)
    made = train_vqvae(
        train,
        config,
        heldout=heldout,
        stream=stream,
        started=job.started,
        progress=not quiet,
        **options.writing,
    )
    job.finish("train vqvae", config, made, class_names=train.class_names, vqvae=made.model)


@app.command("var")
def train_var_command(
    data: DataArgument,
    output: OutputOption,
    vqvae: Annotated[
        str,
        typer.Option(
            "--vqvae",
            metavar="MODEL",
            help="Checkpoint with the VQVAE whose tokens are learnt; it goes into the output too.",
        ),
    ],
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Shapes and settings to start from: d16, d20, d24, d30, d36, emoji-target or "
            "emoji-draft. Scales and vocabulary are the VQVAE's, classes the data's.",
            rich_help_panel=SHAPE,
        ),
    ] = "d16",
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            metavar="N",
            help="Blocks.",
            show_default="the preset's",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            "--width",
            metavar="N",
            help="Channels.",
            show_default="the preset's, or 64 a block where --depth is given",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(
            "--heads",
            metavar="N",
            help="Attention heads.",
            show_default="the preset's, or one a block where --depth is given",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="MODEL",
            help="Checkpoint with a VAR to go on from; its shapes are taken.",
            show_default="random weights",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    weight_decay: WeightDecayOption = None,
    warmup: WarmupOption = None,
    balance: BalanceOption = None,
    token_noise: Annotated[
        float | None,
        typer.Option(
            "--token-noise",
            metavar="SHARE",
            help="Largest share of disturbed tokens in the input, which teaches the model to "
            "correct itself. Tokens that the model draws itself are apart from it: 0 leaves them "
            "as --own-tokens or the preset says.",
            show_default="the preset's",
            rich_help_panel=OPTIMIZER,
        ),
    ] = None,
    own_tokens: Annotated[
        float | None,
        typer.Option(
            "--own-tokens",
            metavar="SHARE",
            help="Largest share of tokens of scales 2 to 5 in the input that the model draws "
            "itself, so that it learns to make one picture of what it drew (scheduled sampling).",
            show_default="the preset's",
            rich_help_panel=OPTIMIZER,
        ),
    ] = None,
    scales: Annotated[
        int | None,
        typer.Option(
            "--scales",
            metavar="N",
            help="Train on the first N scales alone: several times faster, and most of what is "
            "seen. Go on from the result with --init on all of them.",
            show_default="all",
            rich_help_panel=OPTIMIZER,
        ),
    ] = None,
    seed: SeedOption = 0,
    dtype: ComputeOption = ComputeDType.AUTO,
    logs: LogsOption = None,
    resume: ResumeOption = False,
    checkpoint_every: CheckpointEveryOption = 0,
    evaluations: EvaluationsOption = None,
    pictures: PicturesOption = None,
    overwrite: OverwriteOption = False,
    stats: StatsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a VAR, which makes the tokens of pictures."""
    job = _Job(data, output, overwrite, stats, quiet)
    options = TrainingOptions(
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
        dtype=dtype,
        logs=logs,
        resume=resume,
        checkpoint_every=checkpoint_every,
        evaluations=evaluations,
        pictures=pictures,
    )
    from sdvar_jax.config import FLOAT32
    from sdvar_jax.loading import find_var, find_vqvae, read_model_info
    from sdvar_jax.sampling import SamplingConfig
    from sdvar_jax.training import train_var
    from sdvar_jax.training.pictures import sample_sheet

    files = find_vqvae(vqvae)
    start = None if init is None else find_var(init)
    shape = {"depth": depth, "width": width, "heads": heads}
    check_var_preset(preset)
    named = None if init is None else read_model_info(init)[1].sampling
    sampling = named or preset_sampling(preset)
    train, heldout = job.begin(files.config.image_side)
    config = var_training(
        preset,
        options,
        files.config,
        len(train.class_names),
        shape=shape,
        balance=None if balance is None else str(balance),
        token_noise=token_noise,
        own_tokens=own_tokens,
        scales=scales,
        start=None if start is None else start.config,
    )
    # Training keeps float32 weights, whatever the arithmetic.
    tokenizer = files.load(dataclasses.replace(config.run.dtypes, param="float32"))
    made = train_var(
        train,
        tokenizer,
        config,
        heldout=heldout,
        initial=None if start is None else start.load(FLOAT32),
        picture=lambda model: sample_sheet(
            model, tokenizer, train.class_names, sampling or SamplingConfig()
        ),
        started=job.started,
        progress=not quiet,
        **options.writing,
    )
    job.finish(
        "train var",
        config,
        made,
        class_names=train.class_names,
        sampling=sampling,
        var=made.model,
        vqvae=files.weights(),
    )


@app.command("distill")
def distill_command(
    data: DataArgument,
    output: OutputOption,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Checkpoint with the target and its VQVAE."
        ),
    ],
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft",
            metavar="MODEL",
            help="Checkpoint with the draft to start from.",
            show_default="the draft in --model",
        ),
    ] = None,
    steps: StepsOption = None,
    minutes: MinutesOption = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Settings to start from: official or emoji.",
            rich_help_panel=OPTIMIZER,
        ),
    ] = OFFICIAL,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    weight_decay: WeightDecayOption = None,
    warmup: WarmupOption = None,
    balance: BalanceOption = None,
    own_share: Annotated[
        float | None,
        typer.Option(
            "--own-share",
            metavar="SHARE",
            help="Share of the pictures that the target draws itself.",
            show_default="the preset's",
            rich_help_panel=OPTIMIZER,
        ),
    ] = None,
    own_samples: Annotated[
        int | None,
        typer.Option(
            "--own-samples",
            metavar="N",
            help="Pictures that the target draws for it.",
            show_default="the preset's",
            rich_help_panel=OPTIMIZER,
        ),
    ] = None,
    measured: Annotated[
        int | None,
        typer.Option(
            "--measured",
            metavar="N",
            help="Pictures on which agreement is measured before and after.",
            show_default="the preset's",
            rich_help_panel=OPTIMIZER,
        ),
    ] = None,
    seed: SeedOption = 0,
    dtype: ComputeOption = ComputeDType.AUTO,
    logs: LogsOption = None,
    resume: ResumeOption = False,
    checkpoint_every: CheckpointEveryOption = 0,
    evaluations: EvaluationsOption = None,
    pictures: PicturesOption = None,
    overwrite: OverwriteOption = False,
    stats: StatsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a draft to draw what a target draws, for speculative decoding.

    The output holds the target, the VQVAE and the draft, ready for `sdvar sample`. The target draws
    with the sampling settings of its checkpoint, else the preset's.
    """
    job = _Job(data, output, overwrite, stats, quiet)
    options = TrainingOptions(
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        seed=seed,
        dtype=dtype,
        logs=logs,
        resume=resume,
        checkpoint_every=checkpoint_every,
        evaluations=evaluations,
        pictures=pictures,
    )
    from sdvar_jax.loading import find_models
    from sdvar_jax.training import distill
    from sdvar_jax.training.pictures import sample_sheet

    files = find_models(model, draft=draft)
    if files.draft is None:
        raise SdvarError(
            f"{model} holds no draft to start from; train a small VAR (`sdvar train var`) and name "
            "it with --draft"
        )
    config = distillation(
        preset,
        options,
        balance=None if balance is None else str(balance),
        own_share=own_share,
        own_samples=own_samples,
        measured=measured,
        sampling=files.sampling,
    )
    train, heldout = job.begin(files.vqvae.config.image_side)
    pipeline = files.load(dataclasses.replace(config.run.dtypes, param="float32"))
    assert pipeline.draft is not None
    made = distill(
        train,
        pipeline.vqvae,
        pipeline.target,
        pipeline.draft,
        config,
        heldout=heldout,
        picture=lambda model: sample_sheet(
            model, pipeline.vqvae, files.class_names, config.sampling
        ),
        started=job.started,
        progress=not quiet,
        **options.writing,
    )
    job.finish(
        "train distill",
        config,
        made,
        class_names=files.class_names,
        sampling=files.sampling or preset_sampling(preset),
        var=files.target.weights(),
        vqvae=files.vqvae.weights(),
        draft=made.model,
    )


def preset_sampling(preset: str) -> SamplingConfig | None:
    """The sampling settings that suit models of a preset; None for the package's."""
    from sdvar_jax.training.presets import EMOJI_SAMPLING

    return EMOJI_SAMPLING if preset in (EMOJI, EMOJI_TARGET, EMOJI_DRAFT) else None


def vqvae_training(
    preset: str, options: TrainingOptions, shape: Mapping[str, Any], balance: str | None = None
) -> VQVAETrainingConfig:
    """The settings of a VQVAE's training from a preset and what the user said.

    Raises:
      SdvarError: the preset is unknown, or a setting is out of range.
    """
    from sdvar_jax.config import VQVAEConfig
    from sdvar_jax.training import VQVAETrainingConfig
    from sdvar_jax.training.presets import emoji_vqvae_training

    if preset == EMOJI:
        base = emoji_vqvae_training(1.0)
    elif preset == OFFICIAL:
        base = VQVAETrainingConfig(model=VQVAEConfig(), run=options.run())
    else:
        raise _unknown_preset(preset, (OFFICIAL, EMOJI))
    said = _said(shape)
    if "pyramid" in said:
        scales = said["pyramid"].num_scales
        said = {"shared_convolutions": min(base.model.shared_convolutions, scales), **said}
    model = dataclasses.replace(base.model, **said)
    config: VQVAETrainingConfig = options.applied(base, model=model, balance=balance)
    return config


def check_var_preset(preset: str) -> None:
    """Refuses an unknown preset of a VAR."""
    from sdvar_jax.config import PRESETS

    if preset not in (*PRESETS, EMOJI_TARGET, EMOJI_DRAFT):
        raise _unknown_preset(preset, (*PRESETS, EMOJI_TARGET, EMOJI_DRAFT))


def var_training(
    preset: str,
    options: TrainingOptions,
    vqvae: VQVAEConfig,
    num_classes: int,
    *,
    shape: Mapping[str, Any],
    balance: str | None = None,
    token_noise: float | None = None,
    own_tokens: float | None = None,
    scales: int | None = None,
    start: VARConfig | None = None,
) -> VARTrainingConfig:
    """The settings of a VAR's training from a preset and what the user said.

    Args:
      preset: name of the shapes and settings to start from.
      options: what the user said about the run.
      vqvae: decides scales, vocabulary and channels of f_hat.
      num_classes: of the data.
      shape: depth, width and heads, None where not said.
      balance: how often pictures are drawn.
      token_noise: largest share of disturbed tokens.
      own_tokens: largest share of tokens that the model draws itself.
      scales: to train on, from the first one on; None for what the preset says.
      start: shapes of the model to go on from; they are taken as they are.

    Raises:
      SdvarError: the preset is unknown, or a setting is out of range.
    """
    from sdvar_jax.config import PRESETS, VARConfig
    from sdvar_jax.training import VARTrainingConfig
    from sdvar_jax.training.presets import emoji_draft_training, emoji_target_training

    check_var_preset(preset)
    if preset == EMOJI_TARGET:
        base = emoji_target_training(1.0, num_classes)
    elif preset == EMOJI_DRAFT:
        base = emoji_draft_training(1.0, num_classes)
    else:
        base = VARTrainingConfig(model=PRESETS[preset], run=options.run())
    said = _said(shape)
    if start is not None:
        if said:
            raise SdvarError(
                "--init takes the shapes of the model it names; leave --depth, "
                "--width and --heads away"
            )
        model = start
    else:
        if "depth" in said and not preset.startswith("emoji"):
            by_rule = VARConfig.of_depth(said["depth"])
            said = {"width": by_rule.width, "heads": by_rule.heads, **said}
        model = dataclasses.replace(
            base.model,
            pyramid=vqvae.pyramid,
            vocab_size=vqvae.vocab_size,
            latent_channels=vqvae.latent_channels,
            num_classes=num_classes,
            **said,
        )
    noise = dataclasses.replace(
        base.token_noise, **_said({"share": token_noise, "own_share": own_tokens})
    )
    config: VARTrainingConfig = options.applied(
        base, model=model, balance=balance, token_noise=noise, scales=scales
    )
    return config


def distillation(
    preset: str, options: TrainingOptions, balance: str | None = None, **said: Any
) -> DistillConfig:
    """The settings of a distillation from a preset and what was said; None where nothing was.

    Raises:
      SdvarError: the preset is unknown, or a setting is out of range.
    """
    from sdvar_jax.training import DistillConfig
    from sdvar_jax.training.presets import emoji_distillation

    if preset == EMOJI:
        base = emoji_distillation(1.0)
    elif preset == OFFICIAL:
        base = DistillConfig(run=options.run())
    else:
        raise _unknown_preset(preset, (OFFICIAL, EMOJI))
    config: DistillConfig = options.applied(base, balance=balance, **said)
    return config


@dataclasses.dataclass
class _Job:
    """What the three commands do alike before and after training."""

    data: Path
    output: Path
    overwrite: bool
    stats: Path | None
    quiet: bool

    def __post_init__(self) -> None:
        from sdvar_jax.checkpoint.info import INFO_FILE
        from sdvar_jax.runtime.atomic import check_directory_destination
        from sdvar_jax.runtime.compilation_cache import enable_compilation_cache

        self.started = time.monotonic()
        check_directory_destination(self.output, overwrite=self.overwrite, marker=INFO_FILE)
        check_outputs({"--stats": self.stats})
        enable_compilation_cache()

    def begin(self, side: int) -> tuple[ImageSource, ImageSource | None]:
        """Training pictures and, where there are any, held-out ones; none is decoded yet."""
        from sdvar_jax.data import load_dataset

        train = load_dataset(self.data, "train", size=side)
        try:
            heldout = load_dataset(self.data, "heldout", size=side)
        except SdvarError as error:
            note(f"nothing is measured on held-out pictures: {error}")
            return train, None
        return train, heldout

    def finish(
        self,
        command: str,
        config: Any,
        made: Any,
        *,
        class_names: Any,
        sampling: SamplingConfig | None = None,
        **models: Any,
    ) -> None:
        """Writes the checkpoint and tells what came out."""
        from sdvar_jax.checkpoint import save_checkpoint
        from sdvar_jax.cli.report import device, versions

        save_checkpoint(
            self.output,
            class_names=class_names or None,
            sampling=sampling,
            overwrite=self.overwrite,
            **models,
        )
        measured = {"heldout": dict(made.heldout)}
        for name in ("before", "after"):
            if hasattr(made, name):
                measured[name] = dict(getattr(made, name))
        seconds = time.monotonic() - self.started
        if self.stats is not None:
            told = {
                "command": command,
                "versions": versions(),
                "device": device(),
                "settings": dataclasses.asdict(config),
                "steps": int(made.fit.state.step),
                "seconds": seconds,
                "seconds_per_step": made.fit.seconds_per_step,
                **measured,
            }
            write_json(self.stats, _plain(told))
        rows = [
            ("steps", str(int(made.fit.state.step))),
            ("a step", in_seconds(made.fit.seconds_per_step)),
            ("in all", in_seconds(seconds)),
        ]
        for group, values in measured.items():
            rows += [
                (f"{group} {name}", f"{value:.4g}")
                for name, value in values.items()
                if isinstance(value, float)
            ]
        if not self.quiet:
            show_table(rows)
        for path in (self.output, self.stats):
            if path is not None:
                say(f"wrote {path}")


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _unknown_preset(preset: str, known: tuple[str, ...]) -> SdvarError:
    return SdvarError(f"unknown preset {preset!r}; use one of {', '.join(known)}")


def _numbers(text: str, option: str, separator: str = ",") -> tuple[int, ...]:
    """Whole numbers with a separator between."""
    try:
        return tuple(int(item) for item in text.split(separator))
    except ValueError:
        raise SdvarError(
            f"{option} is whole numbers with {separator!r} between, got {text!r}"
        ) from None


def _pyramid(text: str) -> Any:
    from sdvar_jax.config import ScalePyramid

    return ScalePyramid(_numbers(text, "--pyramid", "-"))


def _plain(value: Any) -> Any:
    """A value that JSON can hold; what it cannot is told in words."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
