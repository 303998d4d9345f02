"""The scale pyramid: the sides of the K token maps that make one image."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from functools import cached_property

from sdvar_jax.config.validation import require


@dataclasses.dataclass(frozen=True)
class ScalePyramid:
    """Sides p_1 < ... < p_K of the token maps r_1..r_K (VAR, section 3.2).

    Attributes:
      sides: side of every token map, coarsest first; scale k holds ``sides[k] ** 2`` tokens.
    """

    sides: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sides", tuple(int(side) for side in self.sides))
        require(len(self.sides) >= 2, f"a scale pyramid needs at least 2 scales, got {self.sides}")
        require(min(self.sides) >= 1, f"scale sides must be positive, got {self.sides}")
        require(
            all(a < b for a, b in itertools.pairwise(self.sides)),
            f"scale sides must grow from one scale to the next, got {self.sides}",
        )
        require(
            self.sides[0] == 1,
            f"the first scale must be 1x1 (the class embedding is its input), got {self.sides}",
        )

    @property
    def num_scales(self) -> int:
        """Number of scales, K."""
        return len(self.sides)

    @property
    def latent_side(self) -> int:
        """Side of f_hat, p_K."""
        return self.sides[-1]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale, p_k squared."""
        return tuple(side * side for side in self.sides)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each scale's first token; one entry more than scales, the last the total."""
        return tuple(itertools.accumulate(self.lengths, initial=0))

    @property
    def total_length(self) -> int:
        """Tokens of all scales together, L."""
        return self.offsets[-1]

    @property
    def first_length(self) -> int:
        """Tokens of the first scale: how many start positions the transformer has."""
        return self.lengths[0]

    def window(self, start: int, stop: int) -> slice:
        """Positions of the scales ``start`` to ``stop`` (exclusive) in the token sequence."""
        if not 0 <= start < stop <= self.num_scales:
            raise ValueError(f"no window {start}..{stop} in a pyramid of {self.num_scales} scales")
        return slice(self.offsets[start], self.offsets[stop])

    def first_scales(self, scales: int) -> ScalePyramid:
        """The pyramid of the first ``scales`` scales (at least 2) alone."""
        require(
            2 <= scales <= self.num_scales,
            f"the first {scales} scales were asked for, of a pyramid of {self.num_scales}",
        )
        return ScalePyramid(self.sides[:scales])

    @classmethod
    def from_lengths(cls, lengths: Iterable[int]) -> ScalePyramid:
        """The pyramid whose scales hold ``lengths`` tokens (each a square number)."""
        sides = []
        for length in lengths:
            side = round(length**0.5)
            require(side * side == length, f"a scale of {length} tokens is not square")
            sides.append(side)
        return cls(tuple(sides))

    def __str__(self) -> str:
        return "-".join(map(str, self.sides))


PYRAMID_256 = ScalePyramid((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
PYRAMID_512 = ScalePyramid((1, 2, 3, 4, 6, 9, 13, 18, 24, 32))
