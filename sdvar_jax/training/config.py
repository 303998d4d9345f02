"""Settings that every kind of training shares."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config.dtypes import DTypePolicy
from sdvar_jax.config.validation import require

SCHEDULES = ("cosine", "linear", "constant")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, its learning rate over the run, and clipping.

    Attributes:
      learning_rate: the peak.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      weight_decay: decoupled, on matrices and convolution kernels only.
      warmup_steps: steps over which the rate grows linearly from 0.
      schedule: "cosine" or "linear" fall to ``final_share`` at the end; "constant" stays.
      final_share: the last rate in units of the peak.
      clip_norm: largest global norm of the gradient; 0 does not clip.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.05
    warmup_steps: int = 100
    schedule: str = "cosine"
    final_share: float = 0.0
    clip_norm: float = 2.0

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        require(0 <= self.beta1 < 1, f"beta1 must lie in 0..1, got {self.beta1}")
        require(0 <= self.beta2 < 1, f"beta2 must lie in 0..1, got {self.beta2}")
        require(self.weight_decay >= 0, f"weight_decay must not be negative: {self.weight_decay}")
        require(self.warmup_steps >= 0, f"warmup_steps must not be negative: {self.warmup_steps}")
        require(
            self.schedule in SCHEDULES,
            f"unknown schedule {self.schedule!r}; use one of {', '.join(SCHEDULES)}",
        )
        require(0 <= self.final_share <= 1, f"final_share must lie in 0..1: {self.final_share}")
        require(self.clip_norm >= 0, f"clip_norm must not be negative, got {self.clip_norm}")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How long a run is and what it writes on the way.

    Attributes:
      batch_size: pictures a step, over all devices together.
      steps: length of the run; give this or ``minutes``.
      minutes: length of the run by the clock, from the call on: compiling, measuring and the last
        evaluation included. The learning rate follows the share of it that has passed.
      steps_per_dispatch: steps made in one program call.
      seed: of the weights, the order of the pictures and all noise of training.
      ema_decay: of the averaged weights that the run gives back; 0 gives back the last weights.
      compute: dtype of the arithmetic, "float32" or "bfloat16"; weights are float32.
      pictures: sheets of pictures drawn on the way, evenly over the run.
      evaluations: measurements on held-out pictures on the way, evenly over the run; one more is
        made at the end.
      checkpoint_every: steps between checkpoints to resume from; 0 writes one at the end alone.
      keep_checkpoints: how many are kept.
      warm_observers: compile evaluation and pictures in the background while training starts.
      reserve_seconds: part of ``minutes`` kept for what follows the last step.
    """

    batch_size: int = 64
    steps: int | None = None
    minutes: float | None = None
    steps_per_dispatch: int = 10
    seed: int = 0
    ema_decay: float = 0.999
    compute: str = "float32"
    pictures: int = 0
    evaluations: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    warm_observers: bool = False
    reserve_seconds: float = 5.0

    def __post_init__(self) -> None:
        require(
            (self.steps is None) != (self.minutes is None),
            "give either the steps or the minutes of a run",
        )
        require(self.steps is None or self.steps >= 1, f"steps must be positive, got {self.steps}")
        require(
            self.minutes is None or self.minutes > 0,
            f"minutes must be positive, got {self.minutes}",
        )
        for name in ("batch_size", "steps_per_dispatch", "keep_checkpoints"):
            require(getattr(self, name) >= 1, f"{name} must be positive, got {getattr(self, name)}")
        for name in ("seed", "pictures", "evaluations", "checkpoint_every", "reserve_seconds"):
            require(getattr(self, name) >= 0, f"{name} must not be negative: {getattr(self, name)}")
        require(0 <= self.ema_decay < 1, f"ema_decay must lie in 0..1, got {self.ema_decay}")
        _ = self.dtypes

    @property
    def dtypes(self) -> DTypePolicy:
        """Float32 weights, arithmetic in ``compute``."""
        return DTypePolicy(param="float32", compute=self.compute)
