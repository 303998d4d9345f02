"""When a run ends: after a number of steps, or by the clock."""

from __future__ import annotations

import abc
import time

from sdvar_jax.training.config import RunConfig

# What a dispatch may take longer than the mean before it would overrun the clock.
_SAFETY = 1.02
# Share of the newest dispatch in the mean.
_NEWEST = 0.3
# Dispatches taken for granted before the first was measured.
_UNKNOWN = 1000


class Budget(abc.ABC):
    """Tells the steps of the whole run, as far as they are known by now."""

    @abc.abstractmethod
    def dispatched(self, steps: int, seconds: float) -> None:
        """Takes note of a dispatch: its steps and what they took."""

    @abc.abstractmethod
    def total(self, step: int, dispatch: int) -> int:
        """Steps of the whole run.

        Args:
          step: steps made so far.
          dispatch: steps that the next program call makes.

        Returns:
          At least ``step``; the run ends where it equals ``step``.
        """


class StepBudget(Budget):
    """A fixed number of steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def dispatched(self, steps: int, seconds: float) -> None:
        """Steps do not depend on the time they take."""

    def total(self, step: int, dispatch: int) -> int:
        """The number given."""
        del step, dispatch
        return self._steps


class TimeBudget(Budget):
    """As many dispatches as fit before a deadline.

    The total is measured anew at every dispatch, so that the learning rate reaches its end when
    the time does, however fast the machine is.
    """

    def __init__(self, deadline: float) -> None:
        """Takes the deadline as ``time.monotonic`` tells time."""
        self._deadline = deadline
        self._mean: float | None = None

    def dispatched(self, steps: int, seconds: float) -> None:
        """Keeps a moving mean of the time of a dispatch."""
        del steps
        old = seconds if self._mean is None else self._mean
        self._mean = (1.0 - _NEWEST) * old + _NEWEST * seconds

    def total(self, step: int, dispatch: int) -> int:
        """Steps that will have been made at the deadline, a whole number of dispatches."""
        left = self._deadline - time.monotonic()
        if self._mean is None:  # not measured yet: warm-up does not need to know
            return step + dispatch * _UNKNOWN if left > 0 else step
        return step + dispatch * max(0, int(left / (_SAFETY * self._mean)))


def make_budget(config: RunConfig, started: float) -> Budget:
    """The budget of a run that started at ``started`` (``time.monotonic``)."""
    if config.minutes is None:
        assert config.steps is not None
        return StepBudget(config.steps)
    return TimeBudget(started + 60.0 * config.minutes - config.reserve_seconds)
