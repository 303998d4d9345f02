"""Training a VAR on tokens."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from sdvar_jax.checkpoint import check_compatible
from sdvar_jax.config.validation import require
from sdvar_jax.data import ImageSource
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.training.balance import sampling_weights
from sdvar_jax.training.loop import Fit, Observers, fit, observed
from sdvar_jax.training.sharding import data_mesh
from sdvar_jax.training.sources import ResidentSource
from sdvar_jax.training.state import Params, model_params
from sdvar_jax.training.step import Task
from sdvar_jax.training.templates import build_var
from sdvar_jax.training.var.attention import choose_attention
from sdvar_jax.training.var.config import VARTrainingConfig
from sdvar_jax.training.var.evaluate import make_var_evaluation
from sdvar_jax.training.var.forward import all_logits, drop_path
from sdvar_jax.training.var.loss import drop_labels, position_weights, token_losses
from sdvar_jax.training.var.quantizer import FrozenQuantizer
from sdvar_jax.training.var.tokens import (
    Draw,
    TokenSet,
    inputs_of_tokens,
    noisy_inputs,
    tokenize_set,
)


@dataclasses.dataclass(frozen=True)
class TrainedVAR:
    """A VAR and what its training told.

    Attributes:
      model: float32, with the averaged weights.
      heldout: see ``make_var_evaluation``; empty without held-out pictures.
      fit: the run.
      attention: the implementation that was used.
    """

    model: VAR
    heldout: Mapping[str, float]
    fit: Fit
    attention: str


def own_tokens(model: VAR, labels: jax.Array) -> Draw:
    """Draws from the model's own distribution, without guidance or filtering."""

    def draw(inputs: jax.Array, scale: int, key: jax.Array) -> jax.Array:
        # One block compiled once and run ``depth`` times: these passes are short.
        logits = all_logits(model, labels, inputs, scan=True, scales=scale + 1)
        return jax.random.categorical(
            key, logits[:, model.config.pyramid.window(scale, scale + 1)]
        )  # [batch, side**2]

    return draw


def var_task(config: VARTrainingConfig, quantizer: FrozenQuantizer, attention: str) -> Task:
    """The loss of a batch {"tokens" or "features", "labels"}; ``frozen`` is the quantizer's."""
    model_config, dtypes = config.model, config.run.dtypes
    pyramid = config.trained_pyramid
    weights = position_weights(pyramid, config.scale_power)

    def loss(
        params: Params, extra: Any, batch: Mapping[str, jax.Array], key: jax.Array, frozen: Any
    ) -> tuple[jax.Array, tuple[Mapping[str, jax.Array], Any]]:
        del extra
        label_key, depth_key, noise_key = jax.random.split(key, 3)
        model = build_var(model_config, params, dtypes)
        tokenizer = quantizer.build(frozen)
        labels = drop_labels(
            batch["labels"], model_config.unconditional_label, model_config.label_dropout, label_key
        )
        if "features" in batch:
            fixed = build_var(model_config, jax.lax.stop_gradient(params), dtypes)
            tokens, inputs = noisy_inputs(
                tokenizer,
                batch["features"],
                config.token_noise,
                noise_key,
                config.scales,
                own_tokens(fixed, labels),
            )
        else:
            tokens = batch["tokens"].astype(jnp.int32)
            inputs = inputs_of_tokens(tokenizer, tokens)
            tokens = tokens[:, : pyramid.total_length]
            inputs = inputs[:, : pyramid.total_length - pyramid.first_length]
        keeps = drop_path(
            model_config.drop_path_rate, model_config.depth, tokens.shape[0], depth_key
        )
        logits = all_logits(
            model,
            labels,
            inputs,
            attention=attention,
            keeps=keeps,
            remat=config.remat,
            scan=config.scan,
            scales=config.scales,
        )
        losses = token_losses(logits, tokens, config.label_smoothing)  # [batch, total_length]
        metrics = {"token_loss": jnp.mean(losses)}
        return jnp.mean(losses @ jnp.asarray(weights)), (metrics, None)

    return Task(loss=loss)


def train_var(
    dataset: ImageSource | TokenSet,
    vqvae: VQVAE,
    config: VARTrainingConfig,
    *,
    heldout: ImageSource | TokenSet | None = None,
    initial: VAR | None = None,
    output: Path | None = None,
    resume: bool = False,
    mesh: Mesh | None = None,
    picture: Callable[[VAR], Image.Image] | None = None,
    started: float | None = None,
    name: str = "var",
    progress: bool = True,
) -> TrainedVAR:
    """Trains a VAR with a frozen VQVAE.

    Args:
      dataset: pictures, which are tokenized first, or their tokens.
      vqvae: frozen.
      config: everything else.
      heldout: likewise, to measure on.
      initial: where to start; None starts from random weights.
      output: directory for metrics, pictures and checkpoints; None writes nothing.
      resume: go on from ``output``'s newest checkpoint.
      mesh: the devices; None for all.
      picture: draws a sheet of pictures from a model, for ``config.run.pictures``.
      started: when the clock of ``config.run.minutes`` started; None for now.
      name: of the run, for people.
      progress: whether anything is shown.

    Raises:
      SdvarError: VQVAE, data and configuration do not belong together, or see ``fit``.
    """
    started = time.monotonic() if started is None else started
    check_compatible(config.model, vqvae.config)
    classes = len(dataset.class_names)
    require(
        classes in (0, config.model.num_classes),
        f"the set has {classes} classes and the model {config.model.num_classes}",
    )
    noisy = config.token_noise.active
    tokens = as_tokens(dataset, vqvae, features=noisy)
    require(
        not noisy or tokens.features is not None,
        "token noise needs the encoder's features; tokenize the set with features",
    )
    heldout_tokens = None if heldout is None else as_tokens(heldout, vqvae)
    mesh = data_mesh() if mesh is None else mesh
    run, shapes = config.run, config.model
    attention = choose_attention(
        config.attention,
        config.trained_pyramid,
        shapes.head_dim,
        np.dtype(run.dtypes.compute_dtype),
    )
    quantizer = FrozenQuantizer.of(vqvae)
    model = VAR(shapes, run.dtypes, rngs=nnx.Rngs(run.seed)) if initial is None else initial
    arrays: dict[str, Any] = {"labels": tokens.labels}
    if noisy:
        arrays["features"] = tokens.features
    else:
        arrays["tokens"] = tokens.tokens
    evaluate = (
        None
        if heldout_tokens is None
        else make_var_evaluation(shapes, run.dtypes, quantizer, heldout_tokens, attention)
    )
    weights = sampling_weights(
        np.asarray(tokens.labels), tokens.glyphs, config.balance, config.class_power
    )
    fitted = fit(
        name,
        var_task(config, quantizer, attention),
        model_params(model),
        ResidentSource(arrays, run.batch_size, weights),
        run,
        config.optimizer,
        frozen=dict(quantizer.params),
        observers=Observers(
            evaluate=evaluate,
            picture=None
            if picture is None
            else lambda params: picture(build_var(shapes, params, run.dtypes)),
            shown=("loss", "token_loss"),
        ),
        mesh=mesh,
        output=output,
        resume=resume,
        started=started,
        identity=repr(config),
        progress=progress,
    )
    params = observed(fitted.state)
    return TrainedVAR(
        model=build_var(shapes, params, run.dtypes),
        heldout={} if evaluate is None else evaluate(params),
        fit=fitted,
        attention=attention,
    )


def as_tokens(source: ImageSource | TokenSet, vqvae: VQVAE, *, features: bool = False) -> TokenSet:
    """The tokens of a set; a set of tokens is taken as it is."""
    if isinstance(source, TokenSet):
        return source
    side = vqvae.config.image_side
    require(
        source.size == side,
        f"the pictures have {source.size} px and the VQVAE takes {side} px",
    )
    return tokenize_set(source, vqvae, features=features)
