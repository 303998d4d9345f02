"""Training a small VAR to draw what a large one draws."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from sdvar_jax.checkpoint import check_compatible, check_draft
from sdvar_jax.config.validation import require
from sdvar_jax.data import ImageSource
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.sampling import filter_logits, guidance_by_scale
from sdvar_jax.training.balance import sampling_weights
from sdvar_jax.training.distill.agreement import measure_agreement
from sdvar_jax.training.distill.config import DistillConfig
from sdvar_jax.training.distill.loss import divergence, guided_logits, strengths_by_position
from sdvar_jax.training.drawing import balanced_labels, draw_samples
from sdvar_jax.training.loop import Fit, Observers, fit, observed
from sdvar_jax.training.sharding import data_mesh
from sdvar_jax.training.sources import ResidentSource
from sdvar_jax.training.state import Params, model_params
from sdvar_jax.training.step import Task
from sdvar_jax.training.templates import build_var
from sdvar_jax.training.var.attention import choose_attention
from sdvar_jax.training.var.evaluate import make_var_evaluation
from sdvar_jax.training.var.loss import position_weights, token_losses
from sdvar_jax.training.var.quantizer import FrozenQuantizer
from sdvar_jax.training.var.tokens import TokenSet, inputs_of_tokens
from sdvar_jax.training.var.train import as_tokens

# The noise of measuring is another one than that of the samples to learn from.
_MEASURING_SEED = 2**31


@dataclasses.dataclass(frozen=True)
class Distilled:
    """A draft and what its distillation told.

    Attributes:
      model: float32, with the averaged weights.
      before: agreement with the target before, see ``measure_agreement``.
      after: likewise, after.
      heldout: token loss on held-out pictures, see ``make_var_evaluation``.
      fit: the run.
    """

    model: VAR
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    heldout: Mapping[str, float]
    fit: Fit


def distill_task(
    config: DistillConfig, target: VAR, draft: VAR, quantizer: FrozenQuantizer, attention: str
) -> Task:
    """The loss of a batch {"tokens", "labels"}; ``frozen`` holds the target and the quantizer."""
    pyramid, dtypes = draft.config.pyramid, config.run.dtypes
    weights = position_weights(pyramid, config.scale_power)
    shape = guidance_by_scale(1.0, pyramid.num_scales, config.sampling.guidance_schedule)
    if config.sampling.guidance_until is not None:
        shape = np.where(np.arange(len(shape)) < config.sampling.guidance_until, shape, 0.0)
    low, high = config.strengths
    sampling = config.sampling
    filtering = config.filtered and (sampling.top_k > 0 or sampling.top_p > 0)

    def loss(
        params: Params, extra: Any, batch: Mapping[str, jax.Array], key: jax.Array, frozen: Any
    ) -> tuple[jax.Array, tuple[Mapping[str, jax.Array], Any]]:
        del extra
        tokens, labels = batch["tokens"].astype(jnp.int32), batch["labels"]
        inputs = inputs_of_tokens(quantizer.build(frozen["quantizer"]), tokens)
        cfg = jax.random.uniform(key, labels.shape, minval=low, maxval=max(high, low + 1e-6))
        strengths = strengths_by_position(cfg, shape, pyramid.lengths)
        teacher = build_var(target.config, frozen["target"], dtypes)
        student = build_var(draft.config, params, dtypes)
        wanted, _ = guided_logits(
            teacher, labels, inputs, strengths, attention=attention, scan=config.scan
        )
        if filtering:
            top_k, top_p = jnp.asarray(sampling.top_k), jnp.asarray(sampling.top_p)
            wanted = filter_logits(wanted, top_k, top_p, "search")
        wanted = jax.lax.stop_gradient(wanted)
        made, plain = guided_logits(
            student,
            labels,
            inputs,
            strengths,
            attention=attention,
            remat=config.remat,
            scan=config.scan,
        )
        kl = divergence(wanted, made, config.temperature)  # [batch, total_length]
        total = jnp.mean(kl @ jnp.asarray(weights))
        metrics = {"kl": jnp.mean(kl)}
        if config.cross_entropy:
            losses = token_losses(plain, tokens)
            metrics["token_loss"] = jnp.mean(losses)
            total += config.cross_entropy * jnp.mean(losses @ jnp.asarray(weights))
        return total, (metrics, None)

    return Task(loss=loss)


def distill(
    dataset: ImageSource | TokenSet,
    vqvae: VQVAE,
    target: VAR,
    draft: VAR,
    config: DistillConfig,
    *,
    heldout: ImageSource | TokenSet | None = None,
    output: Path | None = None,
    resume: bool = False,
    mesh: Mesh | None = None,
    picture: Callable[[VAR], Image.Image] | None = None,
    started: float | None = None,
    progress: bool = True,
) -> Distilled:
    """Moves a draft towards a frozen target.

    The loss is KL(target || draft) of the guided distributions, on pictures of the data and on
    pictures that the target drew itself, which is what the draft meets in speculative decoding.

    Args:
      dataset: pictures, which are tokenized first, or their tokens.
      vqvae: frozen, that both were trained with.
      target: frozen.
      draft: where to start; not changed.
      config: everything else.
      heldout: pictures to measure the token loss on.
      output: directory for metrics, pictures and checkpoints; None writes nothing.
      resume: go on from ``output``'s newest checkpoint.
      mesh: the devices; None for all.
      picture: draws a sheet of pictures from the draft, for ``config.run.pictures``.
      started: when the clock of ``config.run.minutes`` started; None for now.
      progress: whether anything is shown.

    Raises:
      SdvarError: the models and the data do not belong together, or see ``fit``.
    """
    started = time.monotonic() if started is None else started
    check_compatible(target.config, vqvae.config)
    check_draft(draft.config, target.config)
    classes = target.config.num_classes
    require(
        len(dataset.class_names) in (0, classes),
        f"the set has {len(dataset.class_names)} classes and the target {classes}",
    )
    mesh = data_mesh() if mesh is None else mesh
    run, shapes = config.run, draft.config
    attention = choose_attention(
        config.attention, shapes.pyramid, shapes.head_dim, np.dtype(run.dtypes.compute_dtype)
    )
    tokens = as_tokens(dataset, vqvae)
    heldout_tokens = None if heldout is None else as_tokens(heldout, vqvae)
    quantizer = FrozenQuantizer.of(vqvae)
    target_params = model_params(target)
    # In the arithmetic that training uses, whatever the models came in.
    teacher = build_var(target.config, target_params, run.dtypes)
    start = build_var(draft.config, model_params(draft), run.dtypes)

    def agreement(model: VAR) -> Mapping[str, Any]:
        labels = balanced_labels(config.measured, classes)
        batch = min(config.sample_batch, config.measured)
        return measure_agreement(
            teacher, model, vqvae.quantizer, labels, config.sampling, _MEASURING_SEED, batch
        )

    before = agreement(start)
    evaluate = (
        None
        if heldout_tokens is None
        else make_var_evaluation(shapes, run.dtypes, quantizer, heldout_tokens, attention)
    )
    fitted = fit(
        "distill",
        distill_task(config, target, draft, quantizer, attention),
        model_params(draft),
        _source(tokens, teacher, vqvae, config),
        run,
        config.optimizer,
        frozen={"quantizer": dict(quantizer.params), "target": target_params},
        observers=Observers(
            evaluate=evaluate,
            picture=None
            if picture is None
            else lambda params: picture(build_var(shapes, params, run.dtypes)),
            shown=("loss", "kl"),
        ),
        mesh=mesh,
        output=output,
        resume=resume,
        started=started,
        identity=repr(config),
        progress=progress,
    )
    params = observed(fitted.state)
    model = build_var(shapes, params, run.dtypes)
    return Distilled(
        model=model,
        before=before,
        after=agreement(model),
        heldout={} if evaluate is None else evaluate(params),
        fit=fitted,
    )


def _source(tokens: TokenSet, target: VAR, vqvae: VQVAE, config: DistillConfig) -> ResidentSource:
    """Data and the target's own samples as one set, weighted to give the shares asked for."""
    weights = sampling_weights(
        np.asarray(tokens.labels), tokens.glyphs, config.balance, config.class_power
    )
    weights = (1.0 - config.own_share) * weights / weights.sum()
    arrays = {"tokens": np.asarray(tokens.tokens, np.int32), "labels": tokens.labels}
    if config.own_share > 0:
        labels = balanced_labels(config.own_samples, target.config.num_classes)
        drawn = draw_samples(
            target, vqvae.quantizer, labels, config.sampling, config.run.seed, config.sample_batch
        )
        arrays = {
            "tokens": np.concatenate([arrays["tokens"], drawn.tokens]),
            "labels": np.concatenate([arrays["labels"], drawn.labels]),
        }
        own = np.full(len(labels), config.own_share / len(labels))
        weights = np.concatenate([weights, own])
    return ResidentSource(arrays, config.run.batch_size, weights)
