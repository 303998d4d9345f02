"""What int8 weights cost in quality: a checkpoint's logits with them against its own.

python -m benchmarks.weights_quality --model emoji --pictures 16 --json quality.json

The target draws pictures with its own weights. Then each model is given the true scales of these
pictures (teacher forcing), once with its own weights and once with int8 weights.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.command import (
    add_output_options,
    check_outputs,
    positive,
    run_command,
    run_context,
)
from benchmarks.results import Results, markdown_table
from sdvar_jax.config.validation import require
from sdvar_jax.decoding import Request, TokenSampling, make_request
from sdvar_jax.decoding.window import Window, class_modulations, draw_tokens, forward_window
from sdvar_jax.loading import AUTO, choose_dtypes, find_models
from sdvar_jax.models import VAR, Quantizer
from sdvar_jax.models.var.kernels.choice import running_with
from sdvar_jax.models.var.quantized import with_int8_weights
from sdvar_jax.runtime.atomic import atomic_file
from sdvar_jax.runtime.compilation_cache import enable_compilation_cache
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training.drawing import decode_batch, split_pair

MEASURES = ("divergence", "most_likely_changed", "drawn_changed")
"""The measures of each token, see ``compare``."""

COLUMNS = {
    "model": "model",
    "pictures": "pictures",
    "divergence": "KL divergence, nats a token",
    "most_likely_changed": "most likely token changes",
    "drawn_changed": "drawn token changes",
}


@functools.partial(jax.jit, static_argnames=("graphs", "sampling"))
def _logits(
    graphs: Any, states: Any, f_hats: jax.Array, request: Request, sampling: TokenSampling
) -> tuple[jax.Array, jax.Array]:
    """Guided logits [batch, total_length, vocab] and what is drawn from them [batch, total]."""
    model, quantizer = (nnx.merge(*pair) for pair in zip(graphs, states, strict=True))
    pyramid = model.config.pyramid
    everything = Window(0, pyramid.num_scales)
    modulations = class_modulations(model, request, sampling)
    cache = model.make_cache(modulations.condition.shape[0])
    logits, _ = forward_window(
        model, quantizer, modulations, f_hats, cache, everything, request, sampling
    )
    return logits, draw_tokens(logits, request, sampling, pyramid, everything)


@jax.jit
def _measures(
    own: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, ...]:
    """The ``MEASURES`` of each token, float32 [batch, total_length] each."""
    own_logs, other_logs = (jax.nn.log_softmax(logits) for logits, _ in (own, other))
    divergence = jnp.sum(jnp.exp(own_logs) * (own_logs - other_logs), axis=-1)
    most_likely = jnp.argmax(own_logs, axis=-1) != jnp.argmax(other_logs, axis=-1)
    return divergence, most_likely.astype(jnp.float32), (own[1] != other[1]).astype(jnp.float32)


def compare(
    models: dict[str, VAR],
    quantizer: Quantizer,
    labels: np.ndarray,
    sampling: SamplingConfig,
    *,
    seed: int = 0,
    batch_size: int = 8,
) -> list[dict[str, Any]]:
    """How far int8 weights move each model, given the true scales before.

    Args:
      models: by name; the "target" draws the pictures.
      quantizer: shared.
      labels: int [pictures].
      sampling: guidance and filtering, of the pictures and of what is compared.
      seed: of the noise, which all draws share.
      batch_size: pictures a program call.

    Returns:
      A record a model: the means over all tokens of "divergence" (KL of the guided, unfiltered
      distributions, own to int8, in nats), "most_likely_changed" and "drawn_changed" (shares of
      tokens, the latter filtered and under the same noise), and the same by scale.
    """
    pyramid = models["target"].config.pyramid
    settings = TokenSampling.of(sampling, pyramid.num_scales)
    drawing = split_pair(models["target"], quantizer)
    pairs = {
        name: [split_pair(each, quantizer) for each in (model, with_int8_weights(model))]
        for name, model in models.items()
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for first in range(0, len(labels), batch_size):
        # The last batch is filled up, so that one program serves all.
        rows = np.minimum(np.arange(first, first + batch_size), len(labels) - 1)
        request = make_request(labels[rows], seed, sampling, pyramid, first_sample=first)
        _, f_hats = decode_batch(*drawing, request, settings)
        for name, pair in pairs.items():
            made = [_logits(*halves, f_hats, request, settings) for halves in pair]
            measured = np.stack([np.asarray(each) for each in _measures(*made)])
            found[name].append(measured[:, : len(labels) - first])
    windows = [pyramid.window(scale, scale + 1) for scale in range(pyramid.num_scales)]
    records = []
    for name, parts in found.items():
        record: dict[str, Any] = {"model": name, "pictures": len(labels)}
        values = dict(zip(MEASURES, np.concatenate(parts, axis=1), strict=True))
        record |= {key: float(np.mean(value)) for key, value in values.items()}
        for key, value in values.items():
            record[f"{key}_by_scale"] = [float(np.mean(value[:, window])) for window in windows]
        records.append(record)
    return records


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weights_quality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="emoji", help="checkpoint (default: %(default)s)")
    parser.add_argument("--draft", metavar="MODEL", help="its own where left out")
    parser.add_argument(
        "--pictures", type=positive, default=16, help="of classes spread evenly (default: 16)"
    )
    parser.add_argument("--batch", type=positive, default=8, help="pictures a call (default: 8)")
    parser.add_argument(
        "--dtype", default=AUTO, help="of the checkpoint's own weights and of arithmetic"
    )
    parser.add_argument("--kernels", default=AUTO, help="what runs the transformers")
    parser.add_argument("--seed", type=int, default=0)
    add_output_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    options = build_parser().parse_args(arguments)
    check_outputs(options)
    files, dtypes = find_models(options.model, draft=options.draft), choose_dtypes(options.dtype)
    classes = files.target.config.num_classes
    require(options.seed >= 0, f"the seed must not be negative, got {options.seed}")
    enable_compilation_cache()
    results = Results(run_context(options), options.json)
    results.context["compute"] = dtypes.compute
    parts = {"target": files.target, "draft": files.draft}
    models = {
        name: running_with(options.kernels, part.load(dtypes))
        for name, part in parts.items()
        if part is not None
    }
    records = compare(
        models,
        files.vqvae.load(dtypes).quantizer,
        np.linspace(0, classes - 1, options.pictures).astype(np.int32),
        files.default_sampling,
        seed=options.seed,
        batch_size=min(options.batch, options.pictures),
    )
    for record in records:
        results.add("weights_quality", **record)
    table = markdown_table(results.records, COLUMNS)
    print(table, flush=True)
    if options.markdown is not None:
        with atomic_file(options.markdown) as aside:
            aside.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
