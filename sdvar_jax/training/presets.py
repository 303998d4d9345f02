"""The settings that made the emoji pair.

Three models for pictures of 64 px with the official ten-scale pyramid, together 26 million
parameters at most, each stage trained by the clock on one or two data-centre GPUs.
"""

from __future__ import annotations

from sdvar_jax.config import PYRAMID_256, VARConfig, VQVAEConfig
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training.config import OptimizerConfig, RunConfig
from sdvar_jax.training.distill.config import DistillConfig
from sdvar_jax.training.var.config import TokenNoiseConfig, VARTrainingConfig
from sdvar_jax.training.vqvae.config import RevivalConfig, VQVAETrainingConfig

EMOJI_VQVAE = VQVAEConfig(
    pyramid=PYRAMID_256,
    vocab_size=1024,
    latent_channels=16,
    channels=64,
    channel_multipliers=(1, 2, 2),
    residual_blocks=1,
    attention=False,
)
"""64 px, f_hat 16x16."""

EMOJI_SAMPLING = SamplingConfig(cfg=1.5, top_k=0, top_p=0.5)
"""Small models leave much probability on unlikely tokens; a low top-p keeps shapes whole."""


def emoji_target(num_classes: int) -> VARConfig:
    """The target: twelve blocks of width 384."""
    return VARConfig(
        depth=12,
        width=384,
        heads=6,
        pyramid=EMOJI_VQVAE.pyramid,
        vocab_size=EMOJI_VQVAE.vocab_size,
        latent_channels=EMOJI_VQVAE.latent_channels,
        num_classes=num_classes,
        mlp_ratio=2.5,
        shared_aln=True,
        label_dropout=0.1,
    )


def emoji_draft(num_classes: int) -> VARConfig:
    """The draft: three blocks of width 256."""
    return VARConfig(
        depth=3,
        width=256,
        heads=4,
        pyramid=EMOJI_VQVAE.pyramid,
        vocab_size=EMOJI_VQVAE.vocab_size,
        latent_channels=EMOJI_VQVAE.latent_channels,
        num_classes=num_classes,
        shared_aln=True,
        label_dropout=0.1,
    )


def emoji_vqvae_training(
    minutes: float, *, seed: int = 0, compute: str = "bfloat16"
) -> VQVAETrainingConfig:
    """Training of the VQVAE."""
    return VQVAETrainingConfig(
        model=EMOJI_VQVAE,
        run=RunConfig(
            batch_size=256,
            minutes=minutes,
            steps_per_dispatch=20,
            seed=seed,
            ema_decay=0.998,
            compute=compute,
            evaluations=4,
            warm_observers=True,
            reserve_seconds=6.0,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, weight_decay=0.01, warmup_steps=100, clip_norm=1.0
        ),
        revival=RevivalConfig(every=20, below=0.2, until=0.6),
        balance="glyph",
        turn=0.5,
    )


def emoji_target_training(
    minutes: float, num_classes: int, *, seed: int = 0, compute: str = "bfloat16"
) -> VARTrainingConfig:
    """Training of the target."""
    return VARTrainingConfig(
        model=emoji_target(num_classes),
        run=RunConfig(
            batch_size=256,
            minutes=minutes,
            steps_per_dispatch=40,
            seed=seed,
            ema_decay=0.999,
            compute=compute,
            evaluations=4,
            pictures=2,
            warm_observers=True,
            reserve_seconds=8.0,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, weight_decay=0.05, warmup_steps=150, clip_norm=1.0
        ),
        scale_power=0.25,
        token_noise=TokenNoiseConfig(share=0.1, strength=1.0, own_share=0.7, own_scales=5),
        balance="class",
        class_power=0.5,
        remat=False,
        scan=False,
    )


def emoji_draft_training(
    minutes: float, num_classes: int, *, seed: int = 0, compute: str = "bfloat16"
) -> VARTrainingConfig:
    """Training of the draft before it is distilled."""
    return VARTrainingConfig(
        model=emoji_draft(num_classes),
        run=RunConfig(
            batch_size=128,
            minutes=minutes,
            steps_per_dispatch=80,
            seed=seed + 1,
            ema_decay=0.998,
            compute=compute,
            evaluations=2,
            warm_observers=True,
            reserve_seconds=5.0,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1.5e-3, weight_decay=0.02, warmup_steps=150, clip_norm=1.0
        ),
        scale_power=0.5,
        token_noise=TokenNoiseConfig(share=0.1, strength=1.0),
        balance="class",
        class_power=0.5,
    )


def emoji_distillation(
    minutes: float,
    *,
    seed: int = 0,
    compute: str = "bfloat16",
    sampling: SamplingConfig = EMOJI_SAMPLING,
) -> DistillConfig:
    """Distillation of the draft."""
    return DistillConfig(
        run=RunConfig(
            batch_size=128,
            minutes=minutes,
            steps_per_dispatch=20,
            seed=seed + 2,
            ema_decay=0.998,
            compute=compute,
            warm_observers=True,
            reserve_seconds=8.0,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1.5e-3, weight_decay=0.0, warmup_steps=50, clip_norm=1.0
        ),
        sampling=sampling,
        cfg_range=(1.0, 3.0),
        own_share=0.6,
        own_samples=4032,
        sample_batch=144,
        scale_power=0.5,
        measured=288,
        balance="class",
        class_power=0.5,
    )
