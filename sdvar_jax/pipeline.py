"""Sampling with loaded models: batches, compilation and results around the pure decoders."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sdvar_jax.checkpoint.compatibility import check_compatible, check_draft
from sdvar_jax.config import VARConfig
from sdvar_jax.config.validation import require
from sdvar_jax.decoding import (
    Decoded,
    Decoder,
    ForcedTokens,
    Request,
    TargetOnly,
    TokenSampling,
    make_request,
)
from sdvar_jax.decoding.statistics import DecodingStatistics, acceptance_seen
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.models.abstract import applied, is_abstract
from sdvar_jax.models.kernels import AUTO, FUSED
from sdvar_jax.models.var.kernels.choice import prepared, running_with
from sdvar_jax.models.var.quantized import FLOAT, with_weights
from sdvar_jax.models.vqvae.placement import (
    decoding_half,
    drawing_part,
    filters_out_first,
    for_one_gpu,
)
from sdvar_jax.programs import (
    Arguments,
    Definitions,
    LoweredRun,
    Programs,
    Run,
    Weights,
    split,
)
from sdvar_jax.result import SampleResult
from sdvar_jax.runtime.executable_cache import ExecutableCache, fingerprint, on_first_device
from sdvar_jax.sampling import SamplingConfig

Progress = Callable[[int], None]

_KEPT = "programs"
"""Where in a cache directory a pipeline keeps its own, beside JAX's."""

DATA_AXIS = "data"
"""The mesh axis that batches are spread over."""


def _acceptance_seen(
    batches: Sequence[Decoded], earlier: DecodingStatistics | None
) -> tuple[float, float]:
    """Drafted scales accepted and judged in earlier requests and in the batches so far."""
    before = (0, 0) if earlier is None else earlier.acceptance_seen
    now = acceptance_seen(decoded.counters for decoded in batches)
    return float(before[0] + now[0]), float(before[1] + now[1])


def check_settings(
    target: VARConfig,
    decoder: Decoder,
    sampling: SamplingConfig,
    *,
    has_draft: bool,
    threshold: float | None = None,
    filter_method: str = "sort",
) -> TokenSampling:
    """Checks the settings of a run; no model needs to be loaded.

    Args:
      target: the target's shapes.
      decoder: how token maps are made.
      sampling: guidance and filtering.
      has_draft: whether there is a draft model.
      threshold: the acceptance rule's dial; None for the decoder's default.
      filter_method: how top-k and top-p find their threshold.

    Returns:
      What of the settings is compiled in.

    Raises:
      SdvarError: they do not suit the models or each other.
    """
    if decoder.needs_draft and not has_draft:
        raise SdvarError(f"the {decoder.name} decoder needs a draft model; give one")
    scales = target.pyramid.num_scales
    require(
        sampling.guidance_until is None or sampling.guidance_until <= scales,
        f"guidance_until must lie in 0..{scales}, got {sampling.guidance_until}",
    )
    compiled_in = TokenSampling.of(sampling, scales, filter_method)
    decoder.validate(target, compiled_in, threshold)
    return compiled_in


def choose_filter(wanted: str, kernels: str) -> str:
    """The filter method that is wanted; "auto" goes with the kernels of the models."""
    if wanted != AUTO:
        return wanted
    return "kernel" if kernels == FUSED else "sort"


class Pipeline:
    """Loaded models, ready to sample.

    One compiled program serves any seed, labels, guidance strength, top-k, top-p and threshold;
    another batch size, decoder or switch (guidance off, filtering off) compiles anew.

    A pipeline of abstract models (``checkpoint.abstract_model``) compiles as well, before there are
    weights; ``with_models`` then gives one that samples.

    Attributes:
      target: the large model.
      vqvae: turns f_hat into images.
      draft: the small model, or None.
      default_sampling: settings of ``sample`` where it is given none.
    """

    def __init__(
        self,
        target: VAR,
        vqvae: VQVAE,
        draft: VAR | None = None,
        *,
        kernels: str = AUTO,
        weights: str = FLOAT,
        filter_method: str = AUTO,
        mesh: Mesh | None = None,
        default_sampling: SamplingConfig = SamplingConfig(),
        cache: str | Path | None = None,
    ) -> None:
        """Checks that the models belong together.

        Args:
          target: the large model.
          vqvae: the VQVAE it was trained with.
          draft: the small model.
          kernels: what runs the transformers, see ``models.kernels``; "auto" takes the fast
            path wherever it can run.
          weights: of the transformers' blocks, see ``models.var.quantized``: "int8" rounds them to
            eight bits, "float" leaves them as the models hold them.
          filter_method: how top-k and top-p find their threshold, see ``sampling.filtering``;
            "auto" goes with the kernels.
          mesh: devices to spread the batch over, along their axis "data"; every device holds the
            weights. None uses the devices that the weights are on.
          default_sampling: settings of ``sample`` where it is given none; loading a checkpoint
            gives its own.
          cache: directory where compiled programs are kept, as ``enable_compilation_cache`` gives
            it: a later start then neither traces nor compiles them. None, or a mesh: in memory
            alone.

        Raises:
          SdvarError: the mesh has no "data" axis, the models differ in pyramid, vocabulary,
            channels or classes, the kernels asked for cannot run them, or the weights are unknown.
        """
        check_compatible(target.config, vqvae.config)
        if draft is not None:
            check_draft(draft.config, target.config)
        self._likewise = functools.partial(
            Pipeline,
            kernels=kernels,
            weights=weights,
            filter_method=filter_method,
            mesh=mesh,
            default_sampling=default_sampling,
            cache=cache,
        )
        self._cache: ExecutableCache | None = None
        if cache is not None and mesh is None:
            self._cache = ExecutableCache(Path(cache) / _KEPT)
        devices = 1 if mesh is None else mesh.size

        def as_wanted(model: VAR) -> VAR:
            return with_weights(weights, running_with(kernels, model, devices=devices))

        target = applied(as_wanted, target)
        draft = None if draft is None else applied(as_wanted, draft)
        self.target, self.vqvae, self.draft = target, vqvae, draft
        self.filter_method = choose_filter(filter_method, target.kernels)
        self.default_sampling = default_sampling
        running_draft = None if draft is None else applied(prepared, draft)
        on_one_gpu = target.kernels == FUSED and mesh is None
        half = decoding_half(vqvae)
        if on_one_gpu:
            half = filters_out_first(applied(for_one_gpu, half))
        running = (applied(prepared, target), half.quantizer, drawing_part(half), running_draft)
        parts = [split(model) for model in running]
        self._definitions = Definitions(*(definition for definition, _ in parts))
        self._weights = Weights(*(weights for _, weights in parts))
        self._abstract = any(
            is_abstract(model) for model in (target, vqvae, draft) if model is not None
        )
        self.mesh: Mesh | None = None
        if mesh is not None:
            require(
                DATA_AXIS in mesh.axis_names,
                f'the mesh needs an axis "{DATA_AXIS}" to spread the batch over, '
                f"got {mesh.axis_names}",
            )
            # The compiler places what is in between: the decoders know nothing of the mesh.
            automatic = (AxisType.Auto,) * len(mesh.axis_names)
            self.mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=automatic)
            everywhere = NamedSharding(self.mesh, PartitionSpec())
            if self._abstract:
                self._weights = jax.tree.map(
                    lambda leaf: leaf.update(sharding=everywhere), self._weights
                )
            else:
                self._weights = jax.device_put(self._weights, everywhere)
        self._programs = Programs(apart=on_one_gpu)
        self._compiled: dict[Any, Run] = {}

    def with_models(self, target: VAR, vqvae: VQVAE, draft: VAR | None = None) -> Pipeline:
        """A pipeline of models of the same shapes, which shares what this one has compiled.

        Args:
          target: the large model.
          vqvae: the VQVAE.
          draft: the small model, where this pipeline has one.

        Raises:
          SdvarError: the models are not those that this pipeline compiles for.
        """
        other = self._likewise(target, vqvae, draft)
        require(
            other._compiled_for == self._compiled_for,
            "the models differ in their configuration or dtypes from those the pipeline is for",
        )
        other._programs, other._compiled = self._programs, self._compiled
        return other

    @property
    def _compiled_for(self) -> Any:
        """What of the models a compiled program depends on."""
        models = (self.target, self.vqvae, self.draft)
        settings = [None if model is None else (model.config, model.dtypes) for model in models]
        return settings, self._definitions.shapes

    def check_labels(self, labels: Sequence[int]) -> np.ndarray:
        """Labels as int32 [samples]; ``SdvarError`` where one is out of range."""
        array = np.asarray(labels)
        require(array.ndim == 1 and array.size > 0, "give at least one class label")
        classes = self.target.config.num_classes
        # The class count itself stands for "no class".
        wrong = sorted({int(label) for label in array if not 0 <= label <= classes})
        require(
            not wrong, f"labels {wrong} are out of range; this model has classes 0..{classes - 1}"
        )
        return array.astype(np.int32)

    def prepare(
        self, decoder: Decoder, sampling: SamplingConfig, threshold: float | None = None
    ) -> TokenSampling:
        """Checks all settings before any compile and returns what of them is compiled in."""
        return check_settings(
            self.target.config,
            decoder,
            sampling,
            has_draft=self.draft is not None,
            threshold=threshold,
            filter_method=self.filter_method,
        )

    def sample(
        self,
        labels: Sequence[int],
        *,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
        decoder: Decoder = TargetOnly(),
        threshold: float | None = None,
        batch_size: int | None = None,
        forced: ForcedTokens | None = None,
        first_sample: int = 0,
        earlier: DecodingStatistics | None = None,
        measure: bool = False,
        progress: Progress | None = None,
    ) -> SampleResult:
        """Samples one picture a label.

        Args:
          labels: class numbers, one a picture.
          seed: 0 to 2**32 - 1; picture i of a request is fixed by (seed, i), whatever the batch.
          sampling: guidance and filtering; None for ``default_sampling``.
          decoder: how token maps are made.
          threshold: the acceptance rule's dial; None for the decoder's default.
          batch_size: pictures a program call; None for all at once.
          forced: tokens given from outside, of all pictures.
          first_sample: number of the first picture, where these are a part of a larger request.
          earlier: statistics of a run with the same pair and settings; adaptive windows go by what
            passed there from the first scale on, instead of trying the draft out first.
          measure: run tokens and images as two programs and time each.
          progress: called with the number of pictures finished.

        Raises:
          SdvarError: settings or labels are out of range.
        """
        require(not self._abstract, "the pipeline's models have no weights; see with_models")
        labels_array = self.check_labels(labels)
        sampling = self.default_sampling if sampling is None else sampling
        compiled_in = self.prepare(decoder, sampling, threshold)
        count = labels_array.size
        batch = self._rows(count, batch_size)
        dial = decoder.default_threshold if threshold is None else threshold
        timings: dict[str, float] = {"compile": 0.0}
        parts: list[tuple[Decoded, np.ndarray, int]] = []
        for first in range(0, count, batch):
            size = min(batch, count - first)
            # The last batch is filled up, so that one program serves all.
            rows = np.minimum(np.arange(first, first + batch), count - 1)
            seen = _acceptance_seen([decoded for decoded, _, _ in parts], earlier)
            request = make_request(
                labels_array[rows],
                seed,
                sampling,
                self.target.config.pyramid,
                first_sample=first_sample + first,
                threshold=dial,
                acceptance_seen=seen,
                forced=None if forced is None else jax.tree.map(lambda x, r=rows: x[r], forced),
            )
            settled = decoder.settled(self.target.config.pyramid, batch, seen)
            arguments = self._arguments(self._place(request), settled, compiled_in)
            decoded, images = self._run(arguments, timings, measure)
            # Nothing on the host asks for f_hat, by far the largest part.
            kept = jax.device_get(decoded.replace(f_hats=None))
            parts.append((kept, np.asarray(images), size))
            if progress is not None:
                progress(first + size)
        return self._result(parts, labels_array, timings)

    def compile(
        self,
        samples: int,
        *,
        sampling: SamplingConfig | None = None,
        decoder: Decoder = TargetOnly(),
        threshold: float | None = None,
        batch_size: int | None = None,
        forced: bool = False,
        measure: bool = False,
    ) -> float:
        """Compiles what ``sample`` begins with, so that it need not.

        Args:
          samples: how many pictures it is going to be asked for.
          sampling: as of ``sample``, and so are those not named here.
          decoder: how token maps are made.
          threshold: the acceptance rule's dial.
          batch_size: pictures a program call.
          forced: whether tokens are going to be given from outside.
          measure: whether tokens and images are going to be timed.

        Returns:
          The seconds it took.

        Raises:
          SdvarError: a setting is out of range.
        """
        require(samples >= 1, f"the number of pictures must be positive, got {samples}")
        sampling = self.default_sampling if sampling is None else sampling
        compiled_in = self.prepare(decoder, sampling, threshold)
        config = self.target.config
        batch = self._rows(samples, batch_size)
        given = jnp.zeros((batch, config.pyramid.total_length), jnp.int32)
        request = make_request(
            np.zeros(batch),
            0,
            sampling,
            config.pyramid,
            forced=ForcedTokens(given, given.astype(bool)) if forced else None,
        )
        settled = decoder.settled(config.pyramid, batch, _acceptance_seen([], None))
        timings = {"compile": 0.0}
        self._run_for(self._arguments(self._place(request), settled, compiled_in), timings, measure)
        return timings["compile"]

    def _rows(self, samples: int, batch_size: int | None) -> int:
        """Rows of a program call."""
        batch = samples if batch_size is None else min(batch_size, samples)
        require(batch >= 1, f"the batch size must be positive, got {batch_size}")
        if self.mesh is None:
            return batch
        # Every device takes the same number of rows.
        return -(-batch // self.mesh.shape[DATA_AXIS]) * self.mesh.shape[DATA_AXIS]

    def _place(self, request: Request) -> Request:
        """The request on the mesh: what has a row a sample is spread, the rest is on all."""
        if self.mesh is None:
            return request
        rows = NamedSharding(self.mesh, PartitionSpec(DATA_AXIS))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        spread = jax.tree.map(lambda _: everywhere, request).replace(
            labels=rows,
            sample_ids=rows,
            forced=jax.tree.map(lambda _: rows, request.forced),
        )
        return jax.device_put(request, spread)

    def lower(
        self, request: Request, decoder: Decoder, sampling: TokenSampling
    ) -> tuple[LoweredRun, Weights]:
        """What ``sample`` runs for a request of this shape, and the arrays it is called with.

        Args:
          request: arrays on the devices that it will run on.
          decoder: how token maps are made.
          sampling: see ``prepare``.
        """
        arguments = self._arguments(request, decoder, sampling)
        return self._programs.lower(arguments), arguments["weights"]

    def lower_tokens(
        self, request: Request, decoder: Decoder, sampling: TokenSampling
    ) -> tuple[jax.stages.Lowered, Weights]:
        """As ``lower``, without the images."""
        arguments = self._arguments(request, decoder, sampling)
        return self._programs.lower_tokens(arguments), arguments["weights"].of_tokens()

    def lower_images(
        self, f_hats: jax.Array | jax.ShapeDtypeStruct
    ) -> tuple[jax.stages.Lowered, Weights]:
        """The program from f_hats [..., batch, latent, latent, channels] to images of the last."""
        lowered = self._programs.lower_images(self._definitions, self._weights, f_hats)
        return lowered, self._weights.of_images()

    def _compile(self, arguments: Arguments, measure: bool) -> Run:
        """As ``lower``, and compiled; tokens and images as two programs where they are timed."""
        key = None if self._cache is None else self._fingerprint(arguments, measure)
        if self._cache is None or key is None:
            return self._compile_anew(arguments, measure)
        kept = self._cache.read(key)
        if kept is not None:
            return Run(**kept, halves=None if measure else self._programs.halves(arguments))
        run = self._compile_anew(arguments, measure)
        if run.anew:
            # What has run, or came from JAX's cache, is not always serialized whole: on a CPU it
            # may fail to run when it is read. JAX's cache goes on to serve it.
            self._cache.write(key, run.programs)
        return run

    def _compile_anew(self, arguments: Arguments, measure: bool) -> Run:
        if measure:
            return self._programs.compile_measured(arguments)
        return self._programs.compile(arguments)

    def _fingerprint(self, arguments: Arguments, measure: bool) -> str | None:
        """What decides the programs of ``arguments``; None where not all of it can be told."""
        draft = self.draft if arguments["decoder"].uses_draft else None
        models = [model for model in (self.target, draft, self.vqvae) if model is not None]
        if not all(type(model) in (VAR, VQVAE) for model in models):
            return None
        if not on_first_device((arguments["weights"], arguments["request"])):
            return None
        arrays = (arguments["definitions"].shapes, arguments["request"])
        return fingerprint(
            [(model.config, model.dtypes) for model in models],
            [model.kernels for model in models if isinstance(model, VAR)],
            [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arrays)],
            arguments["request"].forced is None,
            self._programs.apart,
            measure,
            arguments["decoder"],
            arguments["sampling"],
        )

    def _arguments(self, request: Request, decoder: Decoder, sampling: TokenSampling) -> Arguments:
        """What a decoder's program is lowered for: a draft that is not used is no part of it."""
        definitions, weights = self._definitions, self._weights
        if not decoder.uses_draft:
            definitions = dataclasses.replace(definitions, draft=None)
            weights = weights.replace(draft=None)
        return Arguments(
            definitions=definitions,
            weights=weights,
            request=request,
            decoder=decoder,
            sampling=sampling,
        )

    def _run(
        self, arguments: Arguments, timings: dict[str, float], measure: bool
    ) -> tuple[Decoded, jax.Array]:
        """One batch through the compiled program or programs."""
        run = self._run_for(arguments, timings, measure)
        weights, request = arguments["weights"], arguments["request"]
        if not measure:
            return run(weights=weights, request=request)
        start = time.perf_counter()
        decoded = jax.block_until_ready(run.tokens(weights=weights.of_tokens(), request=request))
        middle = time.perf_counter()
        images = jax.block_until_ready(
            run.images(weights=weights.of_images(), f_hats=decoded.f_hats)
        )
        timings["tokens"] = timings.get("tokens", 0.0) + middle - start
        timings["images"] = timings.get("images", 0.0) + time.perf_counter() - middle
        return decoded, images

    def _run_for(self, arguments: Arguments, timings: dict[str, float], measure: bool) -> Run:
        """The compiled programs for requests of this shape; compile time is counted apart."""
        leaves, structure = jax.tree.flatten(arguments["request"])
        shapes = tuple((x.shape, str(x.dtype), getattr(x, "sharding", None)) for x in leaves)
        key = (measure, arguments["decoder"], arguments["sampling"], shapes, structure)
        if key not in self._compiled:
            start = time.perf_counter()
            self._compiled[key] = self._compile(arguments, measure)
            timings["compile"] += time.perf_counter() - start
        return self._compiled[key]

    def _result(
        self,
        parts: list[tuple[Decoded, np.ndarray, int]],
        labels: np.ndarray,
        timings: dict[str, float],
    ) -> SampleResult:
        """Joins the batches."""
        pyramid = self.target.config.pyramid
        tokens = np.concatenate([decoded.tokens[:size] for decoded, _, size in parts])
        counters = [decoded.counters for decoded, _, _ in parts if decoded.counters is not None]
        sizes = [size for _, _, size in parts]
        return SampleResult(
            images=np.concatenate([images[:size] for _, images, size in parts]),
            tokens=tuple(np.split(tokens, pyramid.offsets[1:-1], axis=1)),
            labels=labels,
            statistics=DecodingStatistics.of(counters, sizes, pyramid) if counters else None,
            timings=timings,
            traces=tuple(d.trace for d, _, _ in parts if d.trace is not None),
        )
