"""A sampling job: everything checked before anything is loaded, then run with progress shown."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sdvar_jax.cli.terminal import Advance, byte_progress, note, picture_progress
from sdvar_jax.decoding import Decoder
from sdvar_jax.decoding.speculative import Exact, Speculative
from sdvar_jax.errors import SdvarError
from sdvar_jax.labels import short_name
from sdvar_jax.loading import ModelFiles, choose_dtypes
from sdvar_jax.models.kernels import AUTO
from sdvar_jax.models.var.kernels.choice import choose_kernels
from sdvar_jax.models.var.quantized import FLOAT
from sdvar_jax.pipeline import DATA_AXIS, Pipeline, check_settings
from sdvar_jax.runtime.compilation_cache import enable_compilation_cache
from sdvar_jax.sampling import SamplingConfig


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Models ready to sample.

    Attributes:
      pipeline: with them.
      seconds: until they were ready.
      compile_seconds: of compiling meanwhile; zero where that was left to the first call.
    """

    pipeline: Pipeline
    seconds: float
    compile_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be sampled, and with what.

    Attributes:
      files: the models, found but not loaded.
      decoder: how token maps are made.
      sampling: guidance and filtering.
      seed: of the noise.
      samples: number of pictures.
      batch_size: pictures a program call, at most.
      dtype: of weights and arithmetic, "auto" included.
      kernels: what runs the transformers, "auto" included.
      weights: what the matrices of their blocks are held in.
      devices: to spread each batch over.
      threshold: the acceptance rule's dial, None for its default.
    """

    files: ModelFiles
    decoder: Decoder
    sampling: SamplingConfig
    seed: int
    samples: int
    batch_size: int
    dtype: str
    kernels: str = AUTO
    weights: str = FLOAT
    devices: int = 1
    threshold: float | None = None

    def check(self) -> None:
        """Refuses settings that do not suit the models; reads no weights and compiles nothing."""
        if self.decoder.needs_draft and self.files.draft is None:
            raise SdvarError(
                f"the {self.decoder.name} decoder needs a draft model and the checkpoint has none; "
                "name one with --draft DIR"
            )
        check_settings(
            self.files.target.config,
            self.decoder,
            self.sampling,
            has_draft=self.files.draft is not None,
            threshold=self.threshold,
        )

        available = jax.local_device_count() if self.devices > 1 else 1
        if self.devices > available:
            raise SdvarError(
                f"--devices {self.devices} asks for more devices than there are: {available}"
            )
        self.chosen_kernels()

    def chosen_kernels(self) -> str:
        """What runs the target; ``SdvarError`` where what was asked for cannot run a model."""
        dtypes = choose_dtypes(self.dtype)
        chosen = [
            choose_kernels(self.kernels, part.config, dtypes, devices=self.devices)
            for part in (self.files.target, self.files.draft)
            if part is not None
        ]
        return chosen[0]

    def notes(self) -> tuple[str, ...]:
        """What the user should know of this run beforehand, a line each."""
        compute = choose_dtypes(self.dtype).compute
        the_targets_own = (
            isinstance(self.decoder, Speculative)
            and isinstance(self.decoder.accept, Exact)
            and self.decoder.check_until is None
            and self.decoder.refine is None
        )
        if not the_targets_own or compute == "float32":
            return ()
        return (
            f"note: in {compute} exact decoding equals the target up to rounding; "
            "use --dtype float32 for identical pictures",
        )

    def load(self, *, shown: bool, ahead: Mapping[str, Any] | None = None) -> Loaded:
        """The models ready to sample; says first what is to be known.

        Args:
          shown: whether to show progress.
          ahead: compiles the programs of ``arguments`` while the models are read, with these
            further arguments of ``Pipeline.compile``; None leaves it to the first call.
        """
        for line in self.notes() if shown else ():
            note(line)
        cache = enable_compilation_cache()
        compiling = []

        def compile_ahead(pipeline: Pipeline) -> None:
            compiling.append(pipeline.compile(self.samples, **self._compiled_in, **(ahead or {})))

        start = time.perf_counter()
        doing = "reading the models" if ahead is None else "reading the models and compiling"
        with byte_progress(doing, self.files.size, shown=shown) as advance:
            dtypes = choose_dtypes(self.dtype)
            pipeline = self.files.load(
                dtypes,
                progress=advance,
                meanwhile=None if ahead is None else compile_ahead,
                mesh=self._mesh(),
                kernels=self.kernels,
                weights=self.weights,
                cache=cache,
            )
        return Loaded(pipeline, time.perf_counter() - start, sum(compiling))

    def _mesh(self) -> Mesh | None:
        """The devices to spread batches over; None for one."""
        if self.devices == 1:
            return None
        return Mesh(np.asarray(jax.local_devices()[: self.devices]), (DATA_AXIS,))

    def run(self, make: Callable[[dict[str, Any]], Any], *, shown: bool) -> Any:
        """Samples with progress shown.

        Args:
          make: called with the keyword arguments of ``Pipeline.sample`` that this job settles.
          shown: whether to show progress.

        Returns:
          What ``make`` returned.
        """
        with picture_progress("making pictures", self.samples, shown=shown) as advance:
            return make(self.arguments(advance))

    def arguments(self, progress: Advance | None = None) -> dict[str, Any]:
        """Keyword arguments of ``Pipeline.sample``."""
        return {**self._compiled_in, "seed": self.seed, "progress": progress}

    @property
    def _compiled_in(self) -> dict[str, Any]:
        """Those that programs are compiled for."""
        return {
            "sampling": self.sampling,
            "decoder": self.decoder,
            "threshold": self.threshold,
            "batch_size": min(self.batch_size, self.samples),
            # Two programs in place of one, so that tokens and pictures can be timed apart.
            "measure": True,
        }

    def settings(self) -> dict[str, Any]:
        """Everything that decides the pictures but the models and labels, as plain JSON values."""
        decoder = {"name": self.decoder.name, **dataclasses.asdict(self.decoder)}
        rule = getattr(self.decoder, "accept", None)
        if rule is not None:
            decoder["accept"] = {"name": rule.name, **dataclasses.asdict(rule)}
            decoder["threshold"] = rule.check_threshold(self.threshold)
        return {
            "seed": self.seed,
            "dtype": choose_dtypes(self.dtype).compute,
            "kernels": self.chosen_kernels(),
            "weights": self.weights,
            "devices": self.devices,
            "sampling": dataclasses.asdict(self.sampling),
            "decoder": decoder,
        }

    def caption(self, label: int) -> str:
        """A class as captions call it: "207 golden retriever"."""
        names = self.files.class_names
        if label == len(names):
            return "no class"
        name = short_name(label, names)
        return name if name.startswith("class ") else f"{label} {name}"
