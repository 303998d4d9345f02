"""The pipeline's own compiled programs, held by the hand so that they can be timed bare."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from sdvar_jax import programs
from sdvar_jax.decoding import Decoder, Request
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.programs import Run, needed_bytes
from sdvar_jax.sampling import SamplingConfig

Lowered = tuple[Any, dict[str, Any]]
"""What was lowered, and the arguments that every call gets."""

Lower = Callable[[], Lowered]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program and the arguments that stay the same.

    Attributes:
      executable: takes ``fixed`` and the arguments of ``__call__``.
      fixed: arguments that stay the same.
      lower_seconds: time to trace and lower.
      compile_seconds: time to compile, or to read the compiled program from the cache.
    """

    executable: Any
    fixed: dict[str, Any]
    lower_seconds: float
    compile_seconds: float

    def __call__(self, **arguments: Any) -> Any:
        """Runs it; the result may not be ready yet."""
        return self.executable(**self.fixed, **arguments)

    @property
    def memory_bytes(self) -> int | None:
        """Device memory while it runs: arguments, results and temporaries."""
        if isinstance(self.executable, Run):
            return self.executable.memory_bytes
        return needed_bytes(self.executable)

    @property
    def weight_bytes(self) -> int:
        """Device memory of the weights that it is called with."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.fixed["weights"]))

    def compile_fields(self) -> dict[str, float | int | None]:
        """As a result's fields."""
        return {
            "lower_seconds": self.lower_seconds,
            "compile_seconds": self.compile_seconds,
            "program_bytes": self.memory_bytes,
        }


def compile_program(lower: Lower) -> Program:
    """Lowers and compiles here and now."""
    start = time.perf_counter()
    program, fixed = lower()
    return compiled(program, fixed, time.perf_counter() - start)


def compiled(program: Any, fixed: dict[str, Any], lower_seconds: float) -> Program:
    """Compiles what was lowered."""
    start = time.perf_counter()
    executable = programs.compiled(program)
    return Program(executable, fixed, lower_seconds, time.perf_counter() - start)


def lower_whole(
    pipeline: Pipeline, decoder: Decoder, sampling: SamplingConfig, request: Request
) -> Lowered:
    """From class labels to tokens and images, as ``Pipeline.sample`` runs it."""
    compiled_in = pipeline.prepare(decoder, sampling, float(request.threshold))
    program, weights = pipeline.lower(request, decoder, compiled_in)
    return program, {"weights": weights}


def lower_tokens(
    pipeline: Pipeline, decoder: Decoder, sampling: SamplingConfig, request: Request
) -> Lowered:
    """From class labels to tokens alone."""
    compiled_in = pipeline.prepare(decoder, sampling, float(request.threshold))
    program, weights = pipeline.lower_tokens(request, decoder, compiled_in)
    return program, {"weights": weights}


def lower_images(pipeline: Pipeline, f_hats: jax.Array) -> Lowered:
    """From f_hats to images of the last."""
    program, weights = pipeline.lower_images(f_hats)
    return program, {"weights": weights}
