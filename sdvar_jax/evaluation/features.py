"""Emoji features: a small convolutional classifier of pictures and what its last layer sees.

Distances between sets of pictures are measured in the features of a classifier that was trained on
the same kind of pictures (style and category of emoji). They say nothing about Inception features
and their distances must not be compared with published FIDs.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdvar_jax.checkpoint.lazy import DTYPES, LazyArray
from sdvar_jax.checkpoint.resolve import MODELS_DIRECTORY
from sdvar_jax.checkpoint.safetensors_file import read_safetensors, write_safetensors
from sdvar_jax.config.validation import require
from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.measure import FeatureSet
from sdvar_jax.evaluation.samples import SampleDirectory
from sdvar_jax.runtime.atomic import atomic_file

NAME = "emoji features"
DEFAULT_FEATURES = MODELS_DIRECTORY / "emoji-features" / "features.safetensors"
"""Where the classifier that comes with the package is."""

_FORMAT = "sdvar-features"
_VERSION = 1
_GROUPS = 8
_EPSILON = 1e-5
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class FeaturesConfig:
    """Shapes of the classifier.

    Attributes:
      image_side: side of the pictures in pixels.
      num_classes: classes it tells apart.
      widths: channels of the stem and of each stage; every stage halves the side, as the stem
        does. The last is the number of features.
    """

    image_side: int = 64
    num_classes: int = 36
    widths: tuple[int, ...] = (32, 64, 96, 128)

    def __post_init__(self) -> None:
        require(
            len(self.widths) >= 2 and all(w > 0 and w % _GROUPS == 0 for w in self.widths),
            f"the classifier needs two or more widths, multiples of {_GROUPS}, got {self.widths}",
        )
        require(self.num_classes >= 1, f"num_classes must be positive, got {self.num_classes}")
        shrinks = 2 ** len(self.widths)
        require(
            self.image_side >= shrinks and self.image_side % shrinks == 0,
            f"image_side must be a multiple of {shrinks}, got {self.image_side}",
        )

    @property
    def num_features(self) -> int:
        """Length of a picture's feature vector."""
        return self.widths[-1]


class _Conv(nnx.Module):
    """A convolution as one matrix product over patches.

    Gradients of strided convolutions are very slow on a CPU, and on a GPU each one is compiled
    and tried out in many forms; a matrix product is neither.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int, dtype: Any, *, rngs: nnx.Rngs
    ) -> None:
        self.size, self.stride, self.dtype = size, stride, dtype
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(
            init(rngs.params(), (size * size * inputs, outputs), jnp.float32)
        )  # [size * size * inputs, outputs]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, side, side, inputs] -> [batch, side / stride, side / stride, outputs]."""
        side, before = x.shape[1], (self.size - 1) // 2
        after = self.size - 1 - before
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (before, after), (before, after), (0, 0)))
        ends = [(start, start + side) for start in range(self.size)]
        patches = jnp.concatenate(
            [x[:, a : b : self.stride, c : d : self.stride] for a, b in ends for c, d in ends],
            axis=-1,
        )  # [batch, side / stride, side / stride, size * size * inputs]
        return patches @ self.kernel[...].astype(self.dtype)


def _norm(channels: int, rngs: nnx.Rngs) -> Any:
    # In float32 whatever the convolutions run in.
    return nnx.GroupNorm(
        channels,
        num_groups=_GROUPS,
        epsilon=_EPSILON,
        dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
    )


def _halved(x: jax.Array) -> jax.Array:
    """Means over 2x2 pixels."""
    batch, side, _, channels = x.shape
    return x.reshape(batch, side // 2, 2, side // 2, 2, channels).mean((2, 4))


class _Stage(nnx.Module):
    """Two convolutions with a shortcut; halves the side."""

    def __init__(self, inputs: int, outputs: int, dtype: Any, *, rngs: nnx.Rngs) -> None:
        self.first = _Conv(inputs, outputs, 3, 2, dtype, rngs=rngs)
        self.first_norm = _norm(outputs, rngs)
        self.second = _Conv(outputs, outputs, 3, 1, dtype, rngs=rngs)
        self.second_norm = _norm(outputs, rngs)
        self.shortcut = _Conv(inputs, outputs, 1, 1, dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, side, side, inputs] -> [batch, side / 2, side / 2, outputs]."""
        h = jax.nn.silu(self.first_norm(self.first(x)))
        h = self.second_norm(self.second(h))
        shortcut = self.shortcut(_halved(x))
        return jax.nn.silu(h + shortcut.astype(jnp.float32))


class FeatureNetwork(nnx.Module):
    """The classifier.

    Attributes:
      config: its shapes.
    """

    def __init__(self, config: FeaturesConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs) -> None:
        """Fresh weights.

        Args:
          config: shapes.
          dtype: of the convolutions' arithmetic; weights are float32.
          rngs: key of the weights.
        """
        self.config = config
        self.stem = _Conv(3, config.widths[0], 5, 2, dtype, rngs=rngs)
        self.stem_norm = _norm(config.widths[0], rngs)
        self.stages = nnx.List(
            _Stage(inputs, outputs, dtype, rngs=rngs)
            for inputs, outputs in zip(config.widths[:-1], config.widths[1:], strict=True)
        )
        self.head = nnx.Linear(config.num_features, config.num_classes, rngs=rngs)

    def features(self, images: jax.Array) -> jax.Array:
        """Features of pictures.

        Args:
          images: float32 [batch, side, side, 3] in [0, 1].

        Returns:
          float32 [batch, num_features].
        """
        side = self.config.image_side
        chex.assert_shape(images, (None, side, side, 3))
        # White, the background, is zero, so that padding goes on with it.
        x = 2.0 * (1.0 - images)
        x = jax.nn.silu(self.stem_norm(self.stem(x)))
        for stage in self.stages:
            x = stage(x)
        return jnp.mean(x, axis=(1, 2)).astype(jnp.float32)

    def logits(self, features: jax.Array) -> jax.Array:
        """Logits of the classes, float32 [batch, num_classes], from features."""
        return self.head(features)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of the classes, float32 [batch, num_classes], of pictures in [0, 1]."""
        return self.logits(self.features(images))


def to_unit(images: jax.Array) -> jax.Array:
    """uint8 pictures as float32 in [0, 1]; float pictures as if they had been stored as uint8."""
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    # Rounded down, as files are.
    return jnp.floor(jnp.clip(images.astype(jnp.float32), 0.0, 1.0) * 255.0) / 255.0


@functools.partial(jax.jit, static_argnames=("graphdef",))
def _features_and_classes(
    graphdef: Any, weights: Any, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Tensor-core shortcuts for float32 would make the figures depend on the device.
    with jax.default_matmul_precision("float32"):
        network = nnx.merge(graphdef, weights)
        features = network.features(to_unit(images))
        return features, jnp.argmax(network.logits(features), axis=-1).astype(jnp.int32)


class FeatureExtractor:
    """Features of any number of pictures with a trained classifier.

    Attributes:
      network: the classifier.
      class_names: what its classes are called.
      about: what is known about its training.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        class_names: tuple[str, ...] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.class_names, self.about = network, class_names, dict(about or {})
        self._graphdef, self._weights = nnx.split(network)

    @property
    def config(self) -> FeaturesConfig:
        """The classifier's shapes."""
        return self.network.config

    def __call__(self, images: np.ndarray | jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Features and predicted classes.

        Args:
          images: uint8, or float in [0, 1], [n, side, side, 3].

        Returns:
          float32 [n, num_features] and int32 [n].

        Raises:
          SdvarError: the pictures have another size.
        """
        side = self.config.image_side
        require(
            images.ndim == 4 and images.shape[1:] == (side, side, 3) and len(images) > 0,
            f"the {NAME} see pictures of {side}x{side} pixels, got {tuple(images.shape)}",
        )
        parts = []
        chunk = min(_CHUNK, len(images))
        for start in range(0, len(images), chunk):
            part = images[start : start + chunk]
            short = chunk - len(part)
            if short:
                # Filled up, so that one program serves all.
                part = jnp.concatenate(
                    [jnp.asarray(part), jnp.asarray(images[:1]).repeat(short, 0)]
                )
            features, classes = _features_and_classes(
                self._graphdef, self._weights, jnp.asarray(part)
            )
            parts.append((features[: chunk - short], classes[: chunk - short]))
        features, classes = zip(*jax.device_get(parts), strict=True)
        return np.concatenate(features), np.concatenate(classes)


def of_samples(extractor: FeatureExtractor, samples: SampleDirectory) -> FeatureSet:
    """Features of all samples of a finished run, a shard in memory at a time."""
    parts = [extractor(shard.images) for shard in samples.shards()]
    features, predicted = (np.concatenate(each) for each in zip(*parts, strict=True))
    return FeatureSet(features, samples.labels, predicted)


def features_files(path: str | Path) -> tuple[Path, Path]:
    """The weights and the description: ``NAME.safetensors`` and ``NAME.json`` beside it.

    Args:
      path: either file, or a directory that holds ``features.safetensors``.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "features.safetensors"
    return path.with_suffix(".safetensors"), path.with_suffix(".json")


def save_features(
    path: str | Path,
    network: FeatureNetwork,
    class_names: tuple[str, ...],
    about: Mapping[str, Any],
    *,
    dtype: str = "float16",
) -> tuple[Path, Path]:
    """Writes the classifier.

    Args:
      path: of the weights, see ``features_files``.
      network: the classifier.
      class_names: a name a class.
      about: plain JSON values about its training, such as its held-out accuracy.
      dtype: of the stored weights.

    Returns:
      The two files.
    """
    weights_path, info_path = features_files(path)
    leaves = nnx.to_flat_state(nnx.state(network, nnx.Param))
    arrays = {
        ".".join(map(str, path)): LazyArray.of(leaf[...]).cast(DTYPES[dtype])
        for path, leaf in leaves
    }
    info = {
        "format": _FORMAT,
        "version": _VERSION,
        "config": dataclasses.asdict(network.config),
        "class_names": list(class_names),
        "about": dict(about),
    }
    with atomic_file(weights_path) as aside:
        write_safetensors(aside, arrays)
    with atomic_file(info_path) as aside:
        aside.write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return weights_path, info_path


def load_features(path: str | Path = DEFAULT_FEATURES) -> FeatureExtractor:
    """Reads what ``save_features`` wrote.

    Args:
      path: see ``features_files``; without one the classifier that comes with the package.

    Raises:
      SdvarError: there is none, or it is damaged.
    """
    weights_path, info_path = features_files(path)
    for file in (weights_path, info_path):
        if not file.is_file():
            raise SdvarError(
                f"the {NAME} are not complete: no file {file}; train them with "
                "examples/train_features.py"
            )
    try:
        info = json.loads(info_path.read_text(encoding="utf-8"))
        known = info["format"] == _FORMAT and info["version"] == _VERSION
        values = dict(info["config"])
        config = FeaturesConfig(**{**values, "widths": tuple(values["widths"])})
        names, about = tuple(info["class_names"]), dict(info["about"])
    except (ValueError, KeyError, TypeError) as error:
        raise SdvarError(f"{info_path} does not describe a classifier ({error})") from error
    require(known, f"{info_path} is of another format or version; train the classifier anew")
    arrays = read_safetensors(weights_path)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: FeatureNetwork(config, rngs=nnx.Rngs(0))))
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    wrong = sorted(set(leaves) ^ set(arrays)) + [
        name for name in leaves if name in arrays and leaves[name].shape != arrays[name].shape
    ]
    require(not wrong, f"{weights_path} does not fit the classifier: {', '.join(wrong)}")
    for name, leaf in leaves.items():
        leaf.set_value(jnp.asarray(arrays[name].read(), leaf.dtype))
    return FeatureExtractor(nnx.merge(graphdef, state), names, about)
