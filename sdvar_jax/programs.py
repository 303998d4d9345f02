"""The compiled programs of a pipeline: from labels to tokens, and from f_hat to images.

On a GPU the images are a program of their own, given to the device behind the tokens' without
waiting: the host launches their many small kernels sooner than at the end of one long program. Not
behind a decoder that waits for the device itself: there the second program would only start later
(``docs/performance.md``). Elsewhere one program makes both.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import jax
from flax import nnx, struct

from sdvar_jax.decoding import Decoded, Decoder, DecodingModels, Request, TokenSampling
from sdvar_jax.runtime.compiler_options import compiler_options
from sdvar_jax.runtime.lowering import lowered


@dataclasses.dataclass(frozen=True)
class Definition:
    """The static half of a model."""

    graph: Any
    structure: Any

    def merge(self, weights: tuple[jax.Array, ...]) -> Any:
        """The model with its arrays."""
        return nnx.merge(self.graph, jax.tree.unflatten(self.structure, weights))


@dataclasses.dataclass(frozen=True)
class Definitions:
    """The static half of the models; None for one that a program is not given.

    Attributes:
      target: the large model.
      quantizer: the VQVAE's.
      drawing: what makes pictures of f_hat, see ``placement.drawing_part``.
      draft: the small model.
    """

    target: Definition | None
    quantizer: Definition | None
    drawing: Definition | None
    draft: Definition | None

    def of_tokens(self) -> Definitions:
        """Those that tokens are made with."""
        return dataclasses.replace(self, drawing=None)

    def of_images(self) -> Definitions:
        """Those that images are made with."""
        return Definitions(target=None, quantizer=None, drawing=self.drawing, draft=None)


class Weights(struct.PyTreeNode):
    """The arrays of the models, as plain tuples: a call spends no time on taking trees apart.

    It does spend some on each array it is given, so that a program is given no others than its own.

    Attributes:
      target: as ``Definitions`` has them.
      quantizer: likewise.
      drawing: likewise.
      draft: likewise.
    """

    target: Any
    quantizer: Any
    drawing: Any
    draft: Any

    def of_tokens(self) -> Weights:
        """Those that tokens are made with."""
        return self.replace(drawing=None)

    def of_images(self) -> Weights:
        """Those that images are made with."""
        return self.replace(target=None, quantizer=None, draft=None)


def split(model: Any) -> tuple[Any, Any]:
    """A model's static half and its arrays; None stays None."""
    if model is None:
        return None, None
    graph, state = nnx.split(model)
    leaves, structure = jax.tree.flatten(state)
    return Definition(graph, structure), tuple(leaves)


def _tokens(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: Decoder,
    sampling: TokenSampling,
) -> Decoded:
    """Tokens and f_hat."""
    assert definitions.target is not None
    assert definitions.quantizer is not None
    models = DecodingModels(
        target=definitions.target.merge(weights.target),
        quantizer=definitions.quantizer.merge(weights.quantizer),
        draft=None if definitions.draft is None else definitions.draft.merge(weights.draft),
    )
    return decoder.decode(models, request, sampling)


def _images(definitions: Definitions, weights: Weights, f_hats: jax.Array) -> jax.Array:
    """Images in [0, 1], float32 [batch, side, side, 3], from the last of the f_hats."""
    assert definitions.drawing is not None
    return (definitions.drawing.merge(weights.drawing).decode(f_hats[-1]) + 1.0) / 2.0


def _tokens_and_images(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: Decoder,
    sampling: TokenSampling,
) -> tuple[Decoded, jax.Array]:
    """Tokens, f_hat and images in one program."""
    decoded = _tokens(definitions, weights, request, decoder, sampling)
    return decoded, _images(definitions, weights, decoded.f_hats)


_STATIC = ("definitions", "decoder", "sampling")


def needed_bytes(*executables: Any) -> int | None:
    """Device memory while programs run one behind the other; None where it is not told.

    Their arguments stay, a program's results too; temporaries only while it runs.
    """
    try:
        memories = [executable.memory_analysis() for executable in executables]
    except jax.errors.JaxRuntimeError:
        return None
    if any(memory is None for memory in memories):
        return None
    kept = sum(
        memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        for memory in memories
    )
    return kept + max(memory.temp_size_in_bytes for memory in memories)


@dataclasses.dataclass(frozen=True)
class Run:
    """From labels to images, compiled.

    Attributes:
      executables: one program, or that of the tokens and that of the images.
    """

    executables: tuple[Any, ...]

    def __call__(self, weights: Weights, request: Request) -> tuple[Decoded, jax.Array]:
        """Runs it; the results may not be ready yet."""
        if len(self.executables) == 1:
            return self.executables[0](weights=weights, request=request)
        tokens, images = self.executables
        decoded = tokens(weights=weights.of_tokens(), request=request)
        return decoded, images(weights=weights.of_images(), f_hats=decoded.f_hats)

    @property
    def memory_bytes(self) -> int | None:
        """Device memory while it runs: arguments, results and temporaries."""
        return needed_bytes(*self.executables)


@dataclasses.dataclass(frozen=True)
class LoweredRun:
    """From labels to images, lowered.

    Attributes:
      programs: as ``Run.executables``.
    """

    programs: tuple[jax.stages.Lowered, ...]

    def compile(self) -> Run:
        """Compiles it."""
        options = compiler_options()
        return Run(tuple(program.compile(compiler_options=options) for program in self.programs))


def compiled(program: LoweredRun | jax.stages.Lowered) -> Any:
    """What was lowered, compiled with this package's options."""
    if isinstance(program, LoweredRun):
        return program.compile()
    return program.compile(compiler_options=compiler_options())


class Arguments(TypedDict):
    """What a program from labels on is lowered for; of the arrays the shapes count."""

    definitions: Definitions
    weights: Weights
    request: Request
    decoder: Decoder
    sampling: TokenSampling


class Programs:
    """What a pipeline runs, to be lowered and compiled for requests of given shapes.

    Attributes:
      apart: whether the images may be a program of their own.
    """

    def __init__(self, *, apart: bool) -> None:
        self.apart = apart
        self._whole = jax.jit(_tokens_and_images, static_argnames=_STATIC)
        self._tokens = jax.jit(_tokens, static_argnames=_STATIC)
        self._images = jax.jit(_images, static_argnames=_STATIC[:1])

    def lower(self, arguments: Arguments) -> LoweredRun:
        """From labels to images."""
        if not self.apart or arguments["decoder"].waits:
            return LoweredRun((lowered(self._whole, **arguments),))
        tokens = self.lower_tokens(arguments)
        made = tokens.out_info.f_hats
        f_hats = jax.ShapeDtypeStruct(made.shape, made.dtype)
        images = self.lower_images(arguments["definitions"], arguments["weights"], f_hats)
        return LoweredRun((tokens, images))

    def lower_tokens(self, arguments: Arguments) -> jax.stages.Lowered:
        """From labels to tokens and f_hat alone."""
        own = {
            "definitions": arguments["definitions"].of_tokens(),
            "weights": arguments["weights"].of_tokens(),
        }
        return lowered(self._tokens, **{**arguments, **own})

    def lower_images(
        self,
        definitions: Definitions,
        weights: Weights,
        f_hats: jax.Array | jax.ShapeDtypeStruct,
    ) -> jax.stages.Lowered:
        """From f_hats to images: the same program for all decoders."""
        return lowered(
            self._images,
            definitions=definitions.of_images(),
            weights=weights.of_images(),
            f_hats=f_hats,
        )
