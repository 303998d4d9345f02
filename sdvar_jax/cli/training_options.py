"""Options that every kind of training shares, and the settings they become."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    from sdvar_jax.training import OptimizerConfig, RunConfig

LENGTH, OPTIMIZER, SHAPE, LOGS, RESULT = (
    "Length of the run (one of these)",
    "Learning",
    "Model",
    "On the way",
    "Output",
)
_FROM_PRESET = "the preset's"


class ComputeDType(enum.StrEnum):
    """Dtype of a training run's arithmetic."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class Balance(enum.StrEnum):
    """How often pictures are drawn."""

    NONE = "none"
    GLYPH = "glyph"
    CLASS = "class"


DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="Training pictures: a file that `sdvar data` made, or a folder with one sub-folder of "
        "pictures a class.",
    ),
]
OutputOption = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Checkpoint directory to make.",
        rich_help_panel=RESULT,
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace a checkpoint that is already there.",
        rich_help_panel=RESULT,
    ),
]
StatsOption = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        metavar="FILE.json",
        help="Write settings, versions, device, times and what was measured.",
        rich_help_panel=RESULT,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=RESULT),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", help="Steps.", rich_help_panel=LENGTH),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        metavar="T",
        help="By the clock, compiling and the last measurement included.",
        rich_help_panel=LENGTH,
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        metavar="N",
        help="Pictures a step, over all devices together.",
        show_default=_FROM_PRESET,
        rich_help_panel=OPTIMIZER,
    ),
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        "--lr",
        metavar="R",
        help="The peak.",
        show_default=_FROM_PRESET,
        rich_help_panel=OPTIMIZER,
    ),
]
WeightDecayOption = Annotated[
    float | None,
    typer.Option(
        "--weight-decay",
        metavar="W",
        help="Of AdamW, on matrices and kernels.",
        show_default=_FROM_PRESET,
        rich_help_panel=OPTIMIZER,
    ),
]
WarmupOption = Annotated[
    int | None,
    typer.Option(
        "--warmup",
        metavar="STEPS",
        help="Steps over which the learning rate grows.",
        show_default=_FROM_PRESET,
        rich_help_panel=OPTIMIZER,
    ),
]
BalanceOption = Annotated[
    Balance | None,
    typer.Option(
        "--balance",
        help="How often pictures are drawn: all alike, each glyph alike, or each class alike.",
        show_default=_FROM_PRESET,
        rich_help_panel=OPTIMIZER,
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        "-s",
        metavar="N",
        min=0,
        help="Of weights, order and noise.",
        rich_help_panel=OPTIMIZER,
    ),
]
ComputeOption = Annotated[
    ComputeDType,
    typer.Option(
        "--dtype",
        help="Of the arithmetic; weights are float32. auto is bfloat16 on a GPU or TPU, float32 on "
        "a CPU.",
        rich_help_panel=OPTIMIZER,
    ),
]
LogsOption = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="DIR",
        help="Write metrics (TensorBoard and JSON lines), pictures and checkpoints to resume from.",
        rich_help_panel=LOGS,
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on from the newest checkpoint in --logs.", rich_help_panel=LOGS
    ),
]
CheckpointEveryOption = Annotated[
    int,
    typer.Option(
        "--checkpoint-every",
        metavar="STEPS",
        min=0,
        help="Steps between checkpoints in --logs; 0 writes one at the end.",
        rich_help_panel=LOGS,
    ),
]
EvaluationsOption = Annotated[
    int | None,
    typer.Option(
        "--evaluations",
        metavar="N",
        min=0,
        help="Measurements on held-out pictures on the way; one more is made at the end.",
        show_default=_FROM_PRESET,
        rich_help_panel=LOGS,
    ),
]
PicturesOption = Annotated[
    int | None,
    typer.Option(
        "--pictures",
        metavar="N",
        min=0,
        help="Sheets of pictures drawn into --logs on the way.",
        show_default=_FROM_PRESET,
        rich_help_panel=LOGS,
    ),
]


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """What the user said about a run; None where nothing was said.

    Attributes:
      steps: length of the run.
      minutes: length of the run by the clock.
      batch_size: pictures a step.
      learning_rate: the peak.
      weight_decay: of AdamW.
      warmup: steps.
      seed: of everything.
      dtype: of the arithmetic.
      logs: directory for what is written on the way.
      resume: go on from ``logs``.
      checkpoint_every: steps between checkpoints.
      evaluations: on the way.
      pictures: on the way.
    """

    steps: int | None
    minutes: float | None
    batch_size: int | None
    learning_rate: float | None
    weight_decay: float | None
    warmup: int | None
    seed: int
    dtype: ComputeDType
    logs: Path | None
    resume: bool
    checkpoint_every: int
    evaluations: int | None
    pictures: int | None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise SdvarError("say how long to train with one of --steps and --minutes")
        if self.resume and self.logs is None:
            raise SdvarError("--resume needs --logs DIR, the directory with the checkpoints")
        if self.checkpoint_every and self.logs is None:
            raise SdvarError("--checkpoint-every needs --logs DIR, where checkpoints are written")
        if self.pictures and self.logs is None:
            raise SdvarError("--pictures needs --logs DIR, where the sheets are written")

    def run(self, preset: RunConfig | None = None) -> RunConfig:
        """The run's settings: what was said, else the preset's."""
        from sdvar_jax.loading import choose_dtypes
        from sdvar_jax.training import RunConfig

        changes: dict[str, Any] = {
            "steps": self.steps,
            "minutes": self.minutes,
            "seed": self.seed,
            "compute": choose_dtypes(str(self.dtype)).compute,
            "checkpoint_every": self.checkpoint_every,
        }
        for name in ("batch_size", "evaluations", "pictures"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if self.logs is None:
            changes["pictures"] = 0
        return RunConfig(**changes) if preset is None else dataclasses.replace(preset, **changes)

    def optimizer(self, preset: OptimizerConfig) -> OptimizerConfig:
        """The optimizer's settings: what was said, else the preset's."""
        said: dict[str, Any] = {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "warmup_steps": self.warmup,
        }
        return dataclasses.replace(
            preset, **{name: value for name, value in said.items() if value is not None}
        )

    def applied(self, config: Any, **changes: Any) -> Any:
        """A training configuration with everything that was said, and other changes."""
        said = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(
            config,
            run=self.run(config.run),
            optimizer=self.optimizer(config.optimizer),
            **said,
        )

    @property
    def writing(self) -> dict[str, Any]:
        """Arguments of the training functions about ``logs``."""
        return {"output": self.logs, "resume": self.resume}
