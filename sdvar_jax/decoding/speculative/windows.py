"""Which windows of scales are drafted and checked: fixed, by schedule, or chosen as it goes."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config.validation import require
from sdvar_jax.decoding.window import Window

CALLS_ALONE = 3
"""Scales that the target makes alone in one turn; so many forwards are compiled a start scale."""


@dataclasses.dataclass(frozen=True)
class CheckWindow:
    """A window the target checks in one forward.

    Attributes:
      window: the scales of the forward.
      drafted: how many of them, from the first, hold drafts; the rest (one at most) is the bonus.
    """

    window: Window
    drafted: int

    @property
    def drafted_stop(self) -> int:
        """The scale behind the last drafted one."""
        return self.window.start + self.drafted

    @property
    def drafted_scales(self) -> range:
        """The drafted ones."""
        return range(self.window.start, self.drafted_stop)

    @property
    def has_bonus(self) -> bool:
        """Whether its last scale is drawn from the target without a draft."""
        return self.window.start + self.drafted < self.window.stop


def check_window(start: int, gamma: int, limit: int, bonus: bool) -> CheckWindow:
    """The window that drafts ``gamma`` scales from ``start``.

    The bonus scale rides in the same forward: its input is known once the scale before it is
    drafted. At the end of the pyramid it takes the place of the last draft.

    Args:
      start: first scale.
      gamma: scales to draft; 0 lets the target make one scale itself.
      limit: scale behind the last that is checked.
      bonus: add a bonus scale.
    """
    if gamma == 0:
        return CheckWindow(Window(start, start + 1), 0)
    stop = min(start + gamma + int(bonus), limit)
    return CheckWindow(Window(start, stop), min(gamma, stop - start - int(bonus)))


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Every window that may be checked, laid out for ``lax.switch``.

    Attributes:
      windows: by start scale, then by choice; the same number of choices at every start.
      choices: number of choices a start scale.
      limit: scale behind the last that is checked.
    """

    windows: tuple[CheckWindow, ...]
    choices: int
    limit: int

    def at(self, start: int, choice: int) -> CheckWindow:
        """The window of a start scale and a choice."""
        return self.windows[start * self.choices + choice]

    @property
    def drafted_stop(self) -> int:
        """The scale behind the last that is drafted to be checked."""
        return max(checked.drafted_stop for checked in self.windows)

    def asked_of_draft(self, num_scales: int) -> int:
        """The scale behind the last that the draft makes: not a bonus at the pyramid's end."""
        return self.drafted_stop if self.limit == num_scales else num_scales

    @property
    def leaves_undrafted(self) -> bool:
        """Whether the target makes scales that the draft has not seen, a bonus among them."""
        return any(checked.drafted_stop < checked.window.stop for checked in self.windows)

    def decided_until(self, num_scales: int, *, keeps_drafts: bool) -> int:
        """The scale behind the last that anything is decided of.

        The scales behind the last checked one are drafted in one go where the draft has seen all
        that is committed by then, or all but the last scale. Where each window reaches to the last
        checked scale, no more than the bonus at its end is missing.

        Args:
          num_scales: of the pyramid.
          keeps_drafts: whether accepted scales keep the draft's own tokens, and all proposals are
            drafts; the draft's cache would hold other ones.
        """
        reaching = all(checked.window.stop == self.limit for checked in self.windows)
        known = keeps_drafts and (reaching or not self.leaves_undrafted)
        return self.limit if known else num_scales

    def turn(self, start: int, choice: int) -> tuple[CheckWindow, ...]:
        """The windows that follow each other in one turn of the loop.

        Scales that the target makes alone are made a few at a time: what a turn costs besides
        (on a GPU, waiting for the host to read which branch is next) is then shared by them.
        """
        windows = [self.at(start, choice)]
        while (
            windows[-1].drafted == 0
            and len(windows) < CALLS_ALONE
            and windows[-1].window.stop < self.limit
            and self.at(windows[-1].window.stop, choice).drafted == 0
        ):
            windows.append(self.at(windows[-1].window.stop, choice))
        return tuple(windows)


def plan_windows(gammas: tuple[tuple[int, ...], ...], limit: int, bonus: bool) -> WindowPlan:
    """Lays out the windows.

    Args:
      gammas: for each start scale below ``limit`` the choices of gamma.
      limit: scale behind the last that is checked.
      bonus: add a bonus scale.
    """
    choices = len(gammas[0])
    require(
        all(len(options) == choices for options in gammas),
        "every start scale needs the same number of gamma choices",
    )
    windows = [
        check_window(start, gamma, limit, bonus)
        for start, options in enumerate(gammas[:limit])
        for gamma in options
    ]
    return WindowPlan(tuple(windows), choices, limit)


def plan_alone(num_scales: int) -> WindowPlan:
    """The plan in which the target makes each scale itself."""
    return plan_windows(((0,),) * num_scales, num_scales, bonus=False)
