"""Trains the emoji features: the classifier in whose features sets of pictures are compared.

    python examples/train_features.py --data emoji64.sdvar --output out --minutes 0.75

The pictures stay on the device; a program call makes many steps. The minutes are those of training:
compiling, which can take as long on a GPU, comes before them. Writes ``features.safetensors`` and
``features.json`` (shapes, class names, held-out accuracy) into the output directory.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sdvar_jax.data import load_dataset
from sdvar_jax.evaluation.features import (
    FeatureExtractor,
    FeatureNetwork,
    FeaturesConfig,
    save_features,
)
from sdvar_jax.runtime.compilation_cache import enable_compilation_cache
from sdvar_jax.runtime.directories import ensure_directory
from sdvar_jax.runtime.memory import describe_devices

WARM_UP = 0.05  # share of the training
SHIFT, ZOOM = 5.0, 0.15  # pixels; share of the size
BRIGHTNESS, CONTRAST = 0.08, 0.15
SMOOTHING, DROPOUT = 0.1, 0.2
# Trying out many forms of every product would take longer than the training.
COMPILER_OPTIONS = {"gpu": {"xla_gpu_autotune_level": 0}}


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared emoji set")
    parser.add_argument("--output", type=Path, required=True, help="directory to write to")
    parser.add_argument("--minutes", type=float, default=0.75)
    parser.add_argument("--steps", type=int, help="steps, in whole calls, instead of minutes")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps-per-call", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def augmented(key: jax.Array, images: jax.Array) -> jax.Array:
    """Pictures [batch, side, side, 3] in [0, 1], each moved, scaled and recoloured a little."""
    batch, side = images.shape[:2]
    places, colours = jax.random.split(key)
    move = jax.random.uniform(places, (3, batch, 2), minval=-1.0)
    zoom = 1.0 + ZOOM * move[0, :, :1]  # one factor for both axes
    translation = SHIFT * move[1] + (1.0 - zoom) * side / 2

    def moved(ink: jax.Array, zoom: jax.Array, translation: jax.Array) -> jax.Array:
        return jax.image.scale_and_translate(
            ink, ink.shape, (0, 1), jnp.broadcast_to(zoom, (2,)), translation, "linear",
            antialias=False,
        )  # fmt: skip

    # What comes in from outside is zero: white.
    ink = jax.vmap(moved)(1.0 - images, zoom, translation)
    jitter = jax.random.uniform(colours, (2, batch, 1, 1, 3), minval=-1.0)
    ink = ink * (1.0 + CONTRAST * jitter[0]) + BRIGHTNESS * jitter[1] * (ink > 0.02)
    return 1.0 - jnp.clip(ink, 0.0, 1.0)


def learning_rate(progress: jax.Array, peak: float) -> jax.Array:
    """Linear warm-up, then a cosine to zero, by the share of the training done."""
    warm = jnp.minimum(progress / WARM_UP, 1.0)
    rest = jnp.clip((progress - WARM_UP) / (1.0 - WARM_UP), 0.0, 1.0)
    return peak * warm * 0.5 * (1.0 + jnp.cos(jnp.pi * rest))


class Training:
    """Weights, their average and the optimiser's state, on the device with the pictures."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: int, args: Any) -> None:
        config = FeaturesConfig(image_side=images.shape[1], num_classes=classes)
        on_cpu = jax.default_backend() == "cpu"
        dtype = jnp.float32 if on_cpu else jnp.bfloat16
        network = FeatureNetwork(config, dtype=dtype, rngs=nnx.Rngs(args.seed))
        self.graphdef, weights = nnx.split(network)
        # For measuring and for users the arithmetic is float32.
        self.exact = nnx.graphdef(FeatureNetwork(config, rngs=nnx.Rngs(0)))
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.add_decayed_weights(
                args.weight_decay, mask=lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)
            ),
        )
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.state = (weights, jax.tree.map(jnp.copy, weights), self.optimizer.init(weights))
        self.args, self.done = args, 0
        self.key = jax.random.key(args.seed)

    def compile(self, steps: int) -> None:
        """Makes the program of ``steps`` steps."""
        arguments = (self.state, self.images, self.labels, jnp.int32(0), 0.0, 0.0)
        program = jax.jit(
            functools.partial(self._steps, steps=steps),
            donate_argnums=0,
            compiler_options=COMPILER_OPTIONS.get(jax.default_backend()),
        )
        self.steps, self.program = steps, program.lower(*arguments).compile()

    def _steps(
        self,
        state: Any,
        images: jax.Array,
        labels: jax.Array,
        at: jax.Array,
        progress: jax.Array,
        gained: jax.Array,
        *,
        steps: int,
    ) -> tuple[Any, jax.Array, jax.Array]:
        """Steps number ``at`` and on, through which the share done grows by ``gained``."""
        args = self.args

        def loss(weights: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            picked, moving, dropping = jax.random.split(key, 3)
            rows = jax.random.randint(picked, (args.batch_size,), 0, images.shape[0])
            network = nnx.merge(self.graphdef, weights)
            features = network.features(augmented(moving, images[rows].astype(jnp.float32) / 255.0))
            kept = jax.random.bernoulli(dropping, 1.0 - DROPOUT, features.shape)
            logits = network.logits(features * kept / (1.0 - DROPOUT))
            wanted = optax.smooth_labels(jax.nn.one_hot(labels[rows], logits.shape[-1]), SMOOTHING)
            right = jnp.mean(jnp.argmax(logits, axis=-1) == labels[rows])
            return jnp.mean(optax.softmax_cross_entropy(logits, wanted)), right

        def step(carry: Any, index: jax.Array) -> Any:
            weights, average, optimizer = carry
            key = jax.random.fold_in(self.key, at + index)
            (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(weights, key)
            updates, optimizer = self.optimizer.update(gradient, optimizer, weights)
            rate = learning_rate(progress + gained * index / steps, args.learning_rate)
            weights = jax.tree.map(lambda w, u: w - rate * u, weights, updates)
            decay = jnp.minimum(args.ema, (1.0 + at + index) / (10.0 + at + index))
            average = jax.tree.map(lambda a, w: a + (1.0 - decay) * (w - a), average, weights)
            return (weights, average, optimizer), (value, right)

        state, (losses, right) = jax.lax.scan(step, state, jnp.arange(steps))
        return state, jnp.mean(losses), jnp.mean(right)

    def advance(self, progress: float, gained: float) -> tuple[float, float]:
        """Makes the program's steps; returns their mean loss and accuracy."""
        self.state, loss, right = self.program(
            self.state, self.images, self.labels, jnp.int32(self.done), progress, gained
        )
        self.done += self.steps
        return float(loss), float(right)

    def network(self) -> FeatureNetwork:
        """The classifier with the averaged weights."""
        return nnx.merge(self.exact, self.state[1])


def accuracies(
    predicted: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, float]:
    """Accuracy in the classes, and in the style and the category alone where names have both."""
    found = {"classes": float(np.mean(predicted == labels))}
    parts = [name.partition("/") for name in class_names]
    if all(separator for _, separator, _ in parts):
        for name, place in (("style", 0), ("category", 2)):
            of_class = np.array([part[place] for part in parts])
            found[name] = float(np.mean(of_class[predicted] == of_class[labels]))
    return found


def main() -> None:
    """Trains, measures and writes."""
    began = time.monotonic()
    args = arguments()
    enable_compilation_cache()
    output = ensure_directory(args.output)
    train = load_dataset(args.data, "train", in_memory=True)
    heldout = load_dataset(args.data, "heldout", in_memory=True)
    assert train.images is not None
    assert heldout.images is not None
    training = Training(train.images, train.labels, len(train.class_names), args)
    print(f"{len(train)} pictures, {describe_devices()}, {time.monotonic() - began:.1f} s")

    training.compile(args.steps_per_call)
    print(f"compiled after {time.monotonic() - began:.1f} s", flush=True)
    started, limit, slowest = time.monotonic(), args.minutes * 60, 0.0
    while True:
        call = time.monotonic()
        if args.steps:
            progress, gained = training.done / args.steps, training.steps / args.steps
            over = training.done >= args.steps
        else:
            progress, gained = min((call - started) / limit, 1.0), slowest / limit
            over = training.done > 0 and call - started + slowest > limit
        if over:
            break
        loss, right = training.advance(progress, gained)
        slowest = max(slowest, time.monotonic() - call)
        if training.done % (10 * training.steps) == training.steps:
            print(
                f"step {training.done}: loss {loss:.3f}, accuracy {right:.3f}, "
                f"{time.monotonic() - started:.1f} s",
                flush=True,
            )
    seconds = time.monotonic() - started

    network = training.network()
    extractor = FeatureExtractor(network, train.class_names)
    sample = np.linspace(0, len(train) - 1, min(1024, len(train))).astype(int)
    about = {
        "steps": training.done,
        "batch_size": args.batch_size,
        "training_seconds": round(seconds, 1),
        "device": describe_devices(),
        "heldout_pictures": len(heldout),
        "heldout_accuracy": accuracies(
            extractor(heldout.images)[1], heldout.labels, train.class_names
        ),
        "train_accuracy": accuracies(
            extractor(train.images[sample])[1], train.labels[sample], train.class_names
        ),
    }
    weights, info = save_features(output / "features", network, train.class_names, about)
    print(about)
    print(f"wrote {weights} ({weights.stat().st_size / 1e6:.2f} MB) and {info}")


if __name__ == "__main__":
    main()
