"""The ``.npz`` of samples that the OpenAI evaluator (guided-diffusion, "ADM") reads.

Its array ``arr_0`` is uint8 [N, 256, 256, 3]; 50,000 class-balanced pictures are customary. It is
written shard by shard, so that it is never in memory as a whole.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.evaluation.samples import SampleDirectory
from sdvar_jax.runtime.atomic import atomic_file, check_free_space

EVALUATOR_SIDE = 256
_EPOCH = (1980, 1, 1, 0, 0, 0)
_HEADROOM = 1 << 16


def check_adm(samples: SampleDirectory, *, side: int | None, balanced: bool) -> None:
    """Refuses samples that the evaluator's figures would mean nothing for.

    Args:
      samples: a finished run.
      side: what the pictures must measure; None takes any.
      balanced: whether every class must have equally many pictures.

    Raises:
      SdvarError: they are not complete, not square of ``side``, or not balanced.
    """
    missing = samples.missing()
    require(
        not missing,
        f"the samples in {samples.path} are not complete ({len(missing)} of {samples.num_shards} "
        "shards are missing); run the same command again to make the rest",
    )
    require(
        side is None or samples.image_side == side,
        f"the evaluator compares pictures of {side}x{side} pixels, and these have "
        f"{samples.image_side}",
    )
    counts = np.bincount(samples.labels)
    counts = counts[counts > 0]
    require(
        not balanced or counts.min() == counts.max(),
        f"the samples are not class-balanced: {counts.min()} to {counts.max()} a class",
    )


def write_adm_npz(
    samples: SampleDirectory,
    path: str | Path,
    *,
    side: int | None = EVALUATOR_SIDE,
    balanced: bool = True,
) -> None:
    """Writes the file, whole or not at all.

    Args:
      samples: a finished run.
      path: the ``.npz``.
      side: what the pictures must measure; None takes any.
      balanced: whether every class must have equally many pictures.

    Raises:
      SdvarError: see ``check_adm``, or there is no room for the file.
    """
    path = Path(path).expanduser()
    check_adm(samples, side=side, balanced=balanced)
    own_side = samples.image_side
    shape = (len(samples), own_side, own_side, 3)
    check_free_space(path, int(np.prod(shape)) + _HEADROOM)
    with atomic_file(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        # Beyond 4 GiB the member needs the 64-bit form, which must be asked for beforehand.
        with archive.open(_member("arr_0.npy"), "w", force_zip64=True) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for shard in samples.shards():
                file.write(np.ascontiguousarray(shard.images).data)
        with archive.open(_member("arr_1.npy"), "w") as file:
            np.lib.format.write_array(file, samples.labels.astype("<i4"), version=(1, 0))


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.external_attr = 0o644 << 16
    return member
