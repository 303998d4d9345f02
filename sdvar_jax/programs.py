"""The compiled programs of a pipeline: from labels to tokens, and from f_hat to images.

On a GPU there are several, given to the device one behind the other without waiting. Where the
device alone decides what runs, the last makes the images: the host launches their many small
kernels sooner than at the end of one long program. The halves of a handoff are programs of their
own there, so that the device begins once the arrays of the first model are prepared. Behind a
decoder that waits for the device itself, a program of images would only start later; there the
first makes the class modulations, of few arrays, so that the device has something to do while the
host prepares the hundreds of both models. Where its first check may be its last, the draft's
proposals, the check and the images are programs of their own, and nothing is waited for before
they are all given to the device; whether the rest is needed is asked meanwhile
(``docs/performance.md``). Elsewhere one makes all.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.sharding import NamedSharding

from sdvar_jax.decoding import Decoded, Decoder, DecodingModels, Request, TokenSampling
from sdvar_jax.decoding.base import Checked, ClassModulations, DecoderInHalves, OptimisticDecoder
from sdvar_jax.decoding.window import class_modulations
from sdvar_jax.models import VAR, Modulations, Quantizer
from sdvar_jax.models.var.transformer import CONDITIONING
from sdvar_jax.runtime.compilation_cache import compiler_watched
from sdvar_jax.runtime.compiler_options import compiler_options
from sdvar_jax.runtime.lowering import lowered


class Parts(NamedTuple):
    """The arrays of a model, as plain tuples: a call spends no time on taking trees apart.

    Attributes:
      conditioning: those that class modulations are made of; None where they are made already.
      body: all others; None where nothing but modulations is made.
    """

    conditioning: tuple[jax.Array, ...] | None
    body: tuple[jax.Array, ...] | None


@dataclasses.dataclass(frozen=True)
class Definition:
    """The static half of a model.

    Attributes:
      graph: its modules.
      structure: of the tree of its arrays.
      shapes: of the arrays.
      conditioning: for each array whether it is one of ``Parts.conditioning``.
    """

    graph: Any
    structure: Any
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    conditioning: tuple[bool, ...]

    def merge(self, weights: Parts | None) -> Any:
        """The model with its arrays; those of a part that is not given are zeros nothing reads."""
        assert weights is not None
        conditioning, body = (
            iter(itertools.repeat(None) if part is None else part) for part in weights
        )
        leaves = []
        for conditions, shape in zip(self.conditioning, self.shapes, strict=True):
            leaf = next(conditioning if conditions else body)
            leaves.append(jnp.zeros(shape.shape, shape.dtype) if leaf is None else leaf)
        return nnx.merge(self.graph, jax.tree.unflatten(self.structure, leaves))


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

    @property
    def shapes(self) -> tuple[Any, ...]:
        """Of all arrays."""
        models = (self.target, self.quantizer, self.drawing, self.draft)
        return tuple(None if model is None else model.shapes for model in models)

    def of_tokens(self) -> Definitions:
        """Those that tokens are made with."""
        return dataclasses.replace(self, drawing=None)

    def of_half(self, role: str) -> Definitions:
        """Those that one of target and draft makes tokens with."""
        own = {"target": None, "draft": None, role: getattr(self, role)}
        return dataclasses.replace(self.of_tokens(), **own)

    def of_images(self) -> Definitions:
        """Those that images are made with."""
        return Definitions(target=None, quantizer=None, drawing=self.drawing, draft=None)


class Weights(struct.PyTreeNode):
    """The arrays of the models.

    A call spends some time on each array it is given, so that a program is given its own alone.

    Attributes:
      target: as ``Definitions`` has them.
      quantizer: likewise.
      drawing: likewise.
      draft: likewise.
    """

    target: Parts | None
    quantizer: Parts | None
    drawing: Parts | None
    draft: Parts | None

    def of_classes(self) -> Weights:
        """Those that class modulations are made with."""
        return self._transformers_without("body").replace(quantizer=None, drawing=None)

    def behind_classes(self) -> Weights:
        """Those that all else is made with."""
        return self._transformers_without("conditioning")

    def _transformers_without(self, part: str) -> Weights:
        """All, but for one part of target and draft."""
        without = {
            name: None if parts is None else parts._replace(**{part: None})
            for name, parts in (("target", self.target), ("draft", self.draft))
        }
        return self.replace(**without)

    def of_tokens(self) -> Weights:
        """Those that tokens are made with."""
        return self.replace(drawing=None)

    def of_half(self, role: str) -> Weights:
        """Those that one of target and draft makes tokens with."""
        own = {"target": None, "draft": None, role: getattr(self, role)}
        return self.of_tokens().replace(**own)

    def of_images(self) -> Weights:
        """Those that images are made with."""
        return self.replace(target=None, quantizer=None, draft=None)


def split(model: Any) -> tuple[Any, Any]:
    """A model's static half and its arrays; None stays None."""
    if model is None:
        return None, None
    graph, state = nnx.split(model)
    placed, structure = jax.tree.flatten_with_path(state)
    conditioning = tuple(
        any(getattr(key, "key", None) in CONDITIONING for key in path) for path, _ in placed
    )
    leaves = [leaf for _, leaf in placed]
    shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    parts = Parts(
        *(
            tuple(itertools.compress(leaves, (one == wanted for one in conditioning)))
            for wanted in (True, False)
        )
    )
    return Definition(graph, structure, shapes, conditioning), parts


def _classes(
    definitions: Definitions, weights: Weights, request: Request, sampling: TokenSampling
) -> ClassModulations:
    """The class modulations of the models that are given."""

    def made(definition: Definition | None, parts: Parts | None) -> Modulations | None:
        if definition is None:
            return None
        return class_modulations(definition.merge(parts), request, sampling)

    return ClassModulations(
        target=made(definitions.target, weights.target),
        draft=made(definitions.draft, weights.draft),
    )


def _tokens(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: Decoder,
    sampling: TokenSampling,
    modulations: ClassModulations | None = None,
) -> Decoded:
    """Tokens and f_hat; class modulations too where they are not given."""
    assert weights.target is not None
    # Zeros stand in for what modulations are made of where they are given.
    assert (weights.target.conditioning is None) == (modulations is not None)
    models = _models(definitions, weights, modulations)
    return decoder.decode(models, request, sampling)


def _models(
    definitions: Definitions, weights: Weights, modulations: ClassModulations | None = None
) -> DecodingModels:
    """The models that tokens are made with."""
    assert definitions.target is not None
    assert definitions.quantizer is not None
    return DecodingModels(
        target=definitions.target.merge(weights.target),
        quantizer=definitions.quantizer.merge(weights.quantizer),
        draft=None if definitions.draft is None else definitions.draft.merge(weights.draft),
        given=modulations,
    )


def _half(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: DecoderInHalves,
    sampling: TokenSampling,
    begun: Any = None,
) -> Any:
    """The half of the one model that is given: the second where the first has begun."""
    model, quantizer = _one_model(definitions, weights)
    if begun is None:
        return decoder.begin(model, quantizer, request, sampling)
    return decoder.finish(model, quantizer, begun, request, sampling)


def _one_model(definitions: Definitions, weights: Weights) -> tuple[VAR, Quantizer]:
    """The target or the draft, whichever is given, and the quantizer."""
    role = "draft" if definitions.target is None else "target"
    assert definitions.quantizer is not None
    model = getattr(definitions, role).merge(getattr(weights, role))
    return model, definitions.quantizer.merge(weights.quantizer)


def _proposals(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: OptimisticDecoder,
    sampling: TokenSampling,
) -> Any:
    """What the draft makes before the first check."""
    draft, quantizer = _one_model(definitions, weights)
    return decoder.propose(draft, quantizer, request, sampling)


def _check(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: OptimisticDecoder,
    sampling: TokenSampling,
    proposals: Any,
) -> Checked:
    """The first check."""
    return decoder.check(_models(definitions, weights), proposals, request, sampling)


def _rest(
    definitions: Definitions,
    weights: Weights,
    request: Request,
    decoder: OptimisticDecoder,
    sampling: TokenSampling,
    state: Any,
    kept: Any,
) -> tuple[Decoded, Any]:
    """What is left to do after the first check."""
    return decoder.go_on(_models(definitions, weights), state, kept, request, sampling)


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
    modulations: ClassModulations | None = None,
) -> tuple[Decoded, jax.Array]:
    """Tokens, f_hat and images in one program."""
    decoded = _tokens(definitions, weights, request, decoder, sampling, modulations)
    return decoded, _images(definitions, weights, decoded.f_hats)


_STATIC = ("definitions", "decoder", "sampling")

_PROGRAMS = ("classes", "begin", "tokens", "images", "rest")
"""Those of a run, in order."""

_T = TypeVar("_T")


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
      tokens: the program of the tokens, or of tokens and images.
      images: that of the images; None where the tokens' makes them.
      classes: that of the class modulations; None where the tokens' makes them.
      begin: that of the tokens' first half; None where the tokens' makes both.
      rest: that of what is left after a first check, where ``tokens`` makes no more than that and
        ``begin`` what is checked; None where nothing is left.
      halves: the models of both halves, where they are apart.
      anew: whether all were compiled for this run, and none was in JAX's cache or in memory.
    """

    tokens: Any
    images: Any = None
    classes: Any = None
    begin: Any = None
    rest: Any = None
    halves: tuple[str, str] | None = None
    anew: bool = False

    def __call__(self, weights: Weights, request: Request) -> tuple[Decoded, jax.Array]:
        """Runs it; the results may not be ready yet."""
        if self.classes is not None:
            modulations = self.classes(weights=weights.of_classes(), request=request)
            weights = weights.behind_classes()
            return self.tokens(weights=weights, request=request, modulations=modulations)
        if self.images is None:
            return self.tokens(weights=weights, request=request)
        if self.rest is not None:
            return self._optimistic(weights, request)
        if self.halves is not None:
            first, second = (weights.of_half(role) for role in self.halves)
            begun = self.begin(weights=first, request=request)
            decoded = self.tokens(weights=second, request=request, begun=begun)
        else:
            decoded = self.tokens(weights=weights.of_tokens(), request=request)
        return decoded, self.images(weights=weights.of_images(), f_hats=decoded.f_hats)

    def _optimistic(self, weights: Weights, request: Request) -> tuple[Decoded, jax.Array]:
        """As if the first check was the last, until it is known."""
        drawing = weights.of_images()
        proposals = self.begin(weights=weights.of_half("draft"), request=request)
        weights = weights.of_tokens()
        checked = self.tokens(weights=weights, request=request, proposals=proposals)
        images = self.images(weights=drawing, f_hats=checked.decoded.f_hats)
        if checked.through:  # Waits for the check, and not for the images.
            return checked.decoded, images
        left = {"state": checked.state, "kept": checked.kept}
        decoded, _ = self.rest(weights=weights, request=request, **left)
        return decoded, self.images(weights=drawing, f_hats=decoded.f_hats)

    @property
    def programs(self) -> dict[str, Any]:
        """Those that there are, by name and in order."""
        programs = {name: getattr(self, name) for name in _PROGRAMS}
        return {name: program for name, program in programs.items() if program is not None}

    @property
    def memory_bytes(self) -> int | None:
        """Device memory while it runs: arguments, results and temporaries."""
        if self.rest is None:
            return needed_bytes(*self.programs.values())
        # Each is given what the one before it made, and the weights are the same ones.
        parts = (self.begin, self.tokens, self.rest)
        needed = [needed_bytes(part, self.images) for part in parts]
        return None if None in needed else max(each for each in needed if each is not None)


@dataclasses.dataclass(frozen=True)
class LoweredRun:
    """From labels to images, lowered; attributes as of ``Run``."""

    tokens: jax.stages.Lowered
    images: jax.stages.Lowered | None = None
    classes: jax.stages.Lowered | None = None
    begin: jax.stages.Lowered | None = None
    rest: jax.stages.Lowered | None = None
    halves: tuple[str, str] | None = None

    def compile(self) -> Run:
        """Compiles it."""
        programs = ((name, getattr(self, name)) for name in _PROGRAMS)
        made = {name: compiled(program) for name, program in programs if program is not None}
        return Run(**made, halves=self.halves)


def compiled(program: LoweredRun | jax.stages.Lowered) -> Any:
    """What was lowered, compiled with this package's options."""
    if isinstance(program, LoweredRun):
        return program.compile()
    return program.compile(compiler_options=compiler_options())


class _Compiled(NamedTuple):
    """A compiled program, and whether it was compiled here and now."""

    program: Any
    anew: bool


def _compiled(program: jax.stages.Lowered) -> _Compiled:
    # The first call tries them out with programs of its own, which are not to be counted.
    compiler_options()
    with compiler_watched() as work:
        made = compiled(program)
    return _Compiled(made, work.compiled_all)


def _run(programs: Mapping[str, _Compiled], halves: tuple[str, str] | None = None) -> Run:
    made = {name: each.program for name, each in programs.items()}
    return Run(**made, halves=halves, anew=all(each.anew for each in programs.values()))


class Arguments(TypedDict):
    """What a program from labels on is lowered for; of the arrays the shapes count."""

    definitions: Definitions
    weights: Weights
    request: Request
    decoder: Decoder
    sampling: TokenSampling


def _of_tokens(arguments: Arguments) -> Arguments:
    """For a program of tokens alone."""
    return {
        **arguments,
        "definitions": arguments["definitions"].of_tokens(),
        "weights": arguments["weights"].of_tokens(),
    }


def _of_half(arguments: Arguments, role: str) -> Arguments:
    """For a program of tokens that asks one of target and draft."""
    return {
        **arguments,
        "definitions": arguments["definitions"].of_half(role),
        "weights": arguments["weights"].of_half(role),
    }


def _shapes(made: Any) -> Any:
    """What a program makes, to lower the next for."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), made)


class Programs:
    """What a pipeline runs, to be lowered and compiled for requests of given shapes.

    Attributes:
      apart: whether there may be several programs.
    """

    def __init__(self, *, apart: bool) -> None:
        self.apart = apart
        self._classes = jax.jit(_classes, static_argnames=("definitions", "sampling"))
        self._whole = jax.jit(_tokens_and_images, static_argnames=_STATIC)
        self._tokens = jax.jit(_tokens, static_argnames=_STATIC)
        self._half = jax.jit(_half, static_argnames=_STATIC)
        self._proposals = jax.jit(_proposals, static_argnames=_STATIC)
        # KV caches are written in place from one program to the next.
        self._check = jax.jit(_check, static_argnames=_STATIC, donate_argnames="proposals")
        self._rest = jax.jit(_rest, static_argnames=_STATIC, donate_argnames="state")
        self._images = jax.jit(_images, static_argnames=_STATIC[:1])
        self._drawing: dict[Any, Any] = {}

    def lower(self, arguments: Arguments) -> LoweredRun:
        """From labels to images."""
        programs = self._each(arguments, lambda program: program)
        return LoweredRun(**programs, halves=self.halves(arguments))

    def compile(self, arguments: Arguments) -> Run:
        """As ``lower``, and compiled: one program while the next is lowered."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            begun = self._each(arguments, lambda program: pool.submit(_compiled, program))
            programs = {name: program.result() for name, program in begun.items()}
        return _run(programs, self.halves(arguments))

    def compile_measured(self, arguments: Arguments) -> Run:
        """As ``compile``, tokens and images always as two programs, to be timed each."""
        tokens = self.lower_tokens(arguments)
        f_hats = _shapes(tokens.out_info.f_hats)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            compiling = pool.submit(_compiled, tokens)
            if isinstance(arguments["request"].labels.sharding, NamedSharding):
                # Where f_hats lie on a mesh the compiler has to say.
                where = compiling.result().program.output_shardings
                f_hats = f_hats.update(sharding=where.f_hats)
            images = self._compile_images(arguments, f_hats)
        return _run({"tokens": compiling.result(), "images": images})

    def _compile_images(self, arguments: Arguments, f_hats: jax.ShapeDtypeStruct) -> _Compiled:
        """The program of the images, the same for all decoders."""
        key = f_hats.shape, f_hats.sharding
        if key in self._drawing:
            return _Compiled(self._drawing[key], anew=False)
        images = self.lower_images(arguments["definitions"], arguments["weights"], f_hats)
        made = _compiled(images)
        self._drawing[key] = made.program
        return made

    def halves(self, arguments: Arguments) -> tuple[str, str] | None:
        """The models of both halves, where they are programs of their own."""
        decoder = arguments["decoder"]
        return decoder.halves if self.apart and isinstance(decoder, DecoderInHalves) else None

    def _each(
        self, arguments: Arguments, take: Callable[[jax.stages.Lowered], _T]
    ) -> dict[str, _T]:
        """What ``take`` makes of a ``LoweredRun``'s programs, each as soon as it is lowered."""
        if not self.apart:
            return {"tokens": take(lowered(self._whole, **arguments))}
        decoder, taken = arguments["decoder"], {}
        if isinstance(decoder, OptimisticDecoder) and decoder.at_once:
            return self._each_optimistic(arguments, take)
        definitions, weights = arguments["definitions"], arguments["weights"]
        if decoder.waits:
            classes = lowered(
                self._classes,
                definitions=definitions,
                weights=weights.of_classes(),
                request=arguments["request"],
                sampling=arguments["sampling"],
            )
            taken["classes"] = take(classes)
            behind: Arguments = {**arguments, "weights": weights.behind_classes()}
            whole = lowered(self._whole, **behind, modulations=_shapes(classes.out_info))
            return {**taken, "tokens": take(whole)}
        halves = self.halves(arguments)
        if halves is None:
            tokens = self.lower_tokens(arguments)
        else:
            first, second = (_of_half(arguments, role) for role in halves)
            begin = lowered(self._half, **first)
            taken["begin"] = take(begin)
            tokens = lowered(self._half, **second, begun=_shapes(begin.out_info))
        taken["tokens"] = take(tokens)
        images = self.lower_images(definitions, weights, _shapes(tokens.out_info.f_hats))
        return {**taken, "images": take(images)}

    def _each_optimistic(
        self, arguments: Arguments, take: Callable[[jax.stages.Lowered], _T]
    ) -> dict[str, _T]:
        """As ``_each``, where the first check may be the last."""
        taken = {}
        definitions, weights = arguments["definitions"], arguments["weights"]
        proposals = lowered(self._proposals, **_of_half(arguments, "draft"))
        taken["begin"] = take(proposals)
        of_both = _of_tokens(arguments)
        check = lowered(self._check, **of_both, proposals=_shapes(proposals.out_info))
        taken["tokens"] = take(check)
        checked = _shapes(check.out_info)
        taken["images"] = take(self.lower_images(definitions, weights, checked.decoded.f_hats))
        rest = lowered(self._rest, **of_both, state=checked.state, kept=checked.kept)
        taken["rest"] = take(rest)
        return taken

    def lower_tokens(self, arguments: Arguments) -> jax.stages.Lowered:
        """From labels to tokens and f_hat alone."""
        return lowered(self._tokens, **_of_tokens(arguments))

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
