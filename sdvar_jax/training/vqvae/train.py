"""Training a multi-scale VQVAE."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from sdvar_jax.config.validation import require
from sdvar_jax.data import ImageSource, LoaderConfig, make_loader
from sdvar_jax.models import VQVAE
from sdvar_jax.training.balance import sampling_weights
from sdvar_jax.training.loop import Fit, Observers, fit, observed
from sdvar_jax.training.pictures import all_images, reconstruction_sheet
from sdvar_jax.training.sharding import data_mesh
from sdvar_jax.training.sources import BatchSource, LoaderSource, ResidentSource
from sdvar_jax.training.state import Params, TrainState, model_params
from sdvar_jax.training.step import Task
from sdvar_jax.training.templates import build_vqvae
from sdvar_jax.training.vqvae.codebook import candidates, perplexity, revive
from sdvar_jax.training.vqvae.config import VQVAETrainingConfig
from sdvar_jax.training.vqvae.evaluate import make_vqvae_evaluation
from sdvar_jax.training.vqvae.losses import edge_error
from sdvar_jax.training.vqvae.quantize import quantize

_SHOWN_PICTURES = 24


@dataclasses.dataclass(frozen=True)
class TrainedVQVAE:
    """A VQVAE and what its training told.

    Attributes:
      model: float32, with the averaged weights.
      heldout: see ``make_vqvae_evaluation``; empty without held-out pictures.
      fit: the run.
    """

    model: VQVAE
    heldout: Mapping[str, float]
    fit: Fit


def turned(images: jax.Array, share: float, key: jax.Array) -> jax.Array:
    """Mirrors and transposes a share of the pictures [batch, side, side, 3] at random."""
    if share == 0:
        return images
    coins = jax.random.uniform(key, (4, images.shape[0], 1, 1, 1))
    chosen = coins[0] < share
    images = jnp.where(chosen & (coins[1] < 0.5), images[:, :, ::-1], images)
    images = jnp.where(chosen & (coins[2] < 0.5), images[:, ::-1], images)
    return jnp.where(chosen & (coins[3] < 0.5), jnp.swapaxes(images, 1, 2), images)


def vqvae_task(config: VQVAETrainingConfig) -> Task:
    """The loss of a batch {"image"} and the codebook's upkeep; ``extra`` is the entries' use."""
    dtypes, weights = config.run.dtypes, config.loss

    def loss(
        params: Params, extra: Any, batch: Mapping[str, jax.Array], key: jax.Array, frozen: Any
    ) -> tuple[jax.Array, tuple[Mapping[str, jax.Array], Any]]:
        del frozen
        turn_key, candidate_key = jax.random.split(key)
        images = batch["image"]
        if images.dtype == jnp.uint8:
            images = images.astype(jnp.float32) / 127.5 - 1.0
        images = turned(images, config.turn, turn_key)
        vqvae = build_vqvae(config.model, params, dtypes)
        quantized = quantize(vqvae.quantizer, vqvae.encode(images), weights.commitment)
        features = vqvae.post_quant_conv(quantized.f_hat.astype(dtypes.compute_dtype))
        # Not clipped as in decoding: a clipped pixel would have no gradient.
        made = vqvae.decoder(features).astype(jnp.float32)
        l1 = jnp.mean(jnp.abs(made - images))
        l2 = jnp.mean((made - images) ** 2)
        edges = edge_error(made, images)
        total = (
            weights.l1 * l1
            + weights.l2 * l2
            + weights.edges * edges
            + weights.quantization * quantized.loss
        )
        decay = config.revival.usage_decay
        use = decay * extra + (1.0 - decay) * quantized.use
        metrics = {
            "l1": l1,
            "l2": l2,
            "edges": edges,
            "quantization": quantized.loss,
            "codebook_used": jnp.mean(quantized.use > 0),
            "codebook_perplexity": perplexity(use),
        }
        drawn = candidates(quantized.rests, config.model.vocab_size, candidate_key)
        return total, (metrics, jax.lax.stop_gradient((use, drawn)))

    def after(state: TrainState, side: Any, key: jax.Array, total: jax.Array) -> TrainState:
        del key
        use, drawn = side
        return revive(config.revival, state.replace(extra=use), drawn, total)

    return Task(loss=loss, after=after)


def train_vqvae(
    dataset: ImageSource,
    config: VQVAETrainingConfig,
    *,
    heldout: ImageSource | None = None,
    output: Path | None = None,
    resume: bool = False,
    mesh: Mesh | None = None,
    stream: bool = False,
    started: float | None = None,
    progress: bool = True,
) -> TrainedVQVAE:
    """Trains a VQVAE.

    Args:
      dataset: the pictures, of the model's side.
      config: everything else.
      heldout: pictures to measure on.
      output: directory for metrics, pictures and checkpoints; None writes nothing.
      resume: go on from ``output``'s newest checkpoint.
      mesh: the devices; None for all.
      stream: read batches through a grain loader on the host instead of holding the whole set on
        the device (``balance`` is then not used).
      started: when the clock of ``config.run.minutes`` started; None for now.
      progress: whether anything is shown.

    Raises:
      SdvarError: pictures of another size, or see ``fit``.
    """
    started = time.monotonic() if started is None else started
    side = config.model.image_side
    require(
        dataset.size == side,
        f"the pictures have {dataset.size} px and this VQVAE makes {side} px; prepare the set at "
        f"{side} px or choose other channel multipliers",
    )
    mesh = data_mesh() if mesh is None else mesh
    run = config.run
    model = VQVAE(config.model, run.dtypes, rngs=nnx.Rngs(run.seed))
    observers = _observers(config, heldout)
    fitted = fit(
        "vqvae",
        vqvae_task(config),
        model_params(model),
        _source(dataset, config, stream),
        run,
        config.optimizer,
        extra=jnp.zeros((config.model.vocab_size,)),
        observers=observers,
        mesh=mesh,
        output=output,
        resume=resume,
        started=started,
        identity=repr(config),
        progress=progress,
    )
    params = observed(fitted.state)
    return TrainedVQVAE(
        model=build_vqvae(config.model, params, run.dtypes),
        heldout={} if observers.evaluate is None else observers.evaluate(params),
        fit=fitted,
    )


def _source(dataset: ImageSource, config: VQVAETrainingConfig, stream: bool) -> BatchSource:
    run = config.run
    if stream:
        return LoaderSource(make_loader(dataset, LoaderConfig(run.batch_size, seed=run.seed)))
    weights = sampling_weights(dataset.labels, getattr(dataset, "glyphs", None), config.balance)
    return ResidentSource({"image": all_images(dataset)}, run.batch_size, weights)


def _observers(config: VQVAETrainingConfig, heldout: ImageSource | None) -> Observers:
    shown = ("loss", "l1", "codebook_used")
    if heldout is None:
        return Observers(shown=shown)
    images = all_images(heldout)
    few = images[np.linspace(0, len(images) - 1, min(_SHOWN_PICTURES, len(images))).astype(int)]
    dtypes = config.run.dtypes

    def picture(params: Params) -> Image.Image:
        return reconstruction_sheet(build_vqvae(config.model, params, dtypes), few)

    return Observers(
        evaluate=make_vqvae_evaluation(config.model, dtypes, images), picture=picture, shown=shown
    )
