"""The pipeline's own compiled programs, held by the hand so that they can be timed bare."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax

from sdvar_jax.decoding import Decoder, Request
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.runtime.compiler_options import compiler_options
from sdvar_jax.sampling import SamplingConfig


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
        try:
            memory = self.executable.memory_analysis()
        except jax.errors.JaxRuntimeError:
            return None
        if memory is None:
            return None
        return (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )

    def compile_fields(self) -> dict[str, float | int | None]:
        """As a result's fields."""
        return {
            "lower_seconds": self.lower_seconds,
            "compile_seconds": self.compile_seconds,
            "program_bytes": self.memory_bytes,
        }


def compile_program(
    jitted: Any, static: dict[str, Any], fixed: dict[str, Any], **arguments: Any
) -> Program:
    """Compiles a jitted function for arguments of these shapes.

    Args:
      jitted: the function.
      static: what is compiled in.
      fixed: arrays that every call gets.
      **arguments: arrays as a call will bring them.
    """
    start = time.perf_counter()
    lowered = jitted.lower(**static, **fixed, **arguments)
    middle = time.perf_counter()
    executable = lowered.compile(compiler_options=compiler_options())
    return Program(executable, fixed, middle - start, time.perf_counter() - middle)


def whole_program(
    pipeline: Pipeline, decoder: Decoder, sampling: SamplingConfig, request: Request
) -> Program:
    """From class labels to tokens and images, as ``Pipeline.sample`` runs it."""
    definitions, weights = pipeline._models_for(decoder)
    compiled_in = pipeline.prepare(decoder, sampling, float(request.threshold))
    static = {"definitions": definitions, "decoder": decoder, "sampling": compiled_in}
    return compile_program(pipeline._one_program, static, {"weights": weights}, request=request)


def tokens_program(
    pipeline: Pipeline, decoder: Decoder, sampling: SamplingConfig, request: Request
) -> Program:
    """From class labels to tokens alone."""
    definitions, weights = pipeline._models_for(decoder)
    compiled_in = pipeline.prepare(decoder, sampling, float(request.threshold))
    static = {"definitions": definitions, "decoder": decoder, "sampling": compiled_in}
    return compile_program(pipeline._tokens_program, static, {"weights": weights}, request=request)


def images_program(pipeline: Pipeline, f_hat: jax.Array) -> Program:
    """From f_hat to images."""
    static = {"definitions": pipeline._definitions}
    fixed = {"weights": pipeline._weights}
    return compile_program(pipeline._images_program, static, fixed, f_hat=f_hat)
