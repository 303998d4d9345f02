"""FID and Inception Score through ``torch-fidelity``, an optional extra of this package.

Its Inception network is the one of the original FID, and its weights are fetched by torch-fidelity
unless a file is given. The figures compare with published ones for 50,000 class-balanced pictures.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.samples import SampleDirectory

EXTRA = "fid"
_SPLITS = 10  # of the Inception Score, as is customary


def check_torch_fidelity() -> Any:
    """The module ``torch_fidelity``; ``SdvarError`` where it is not installed."""
    try:
        importlib.import_module("torch")
        return importlib.import_module("torch_fidelity")
    except ImportError as error:
        raise SdvarError(
            f"FID and Inception Score need torch-fidelity; install the extra {EXTRA!r} "
            f"(pip install 'sdvar-jax[{EXTRA}]')"
        ) from error


def fidelity_metrics(
    samples: SampleDirectory,
    reference: str | Path | None = None,
    *,
    inception_weights: str | Path | None = None,
    batch_size: int = 64,
) -> dict[str, float]:
    """Inception Score, and FID where there is a reference.

    Args:
      samples: a finished run.
      reference: real pictures for the FID: a directory of picture files, or the name of a set that
        torch-fidelity knows; None leaves the FID out.
      inception_weights: file with the Inception network; None lets torch-fidelity fetch it.
      batch_size: pictures the network sees at once.

    Returns:
      Names of torch-fidelity -> figures, among them ``frechet_inception_distance``,
      ``inception_score_mean`` and ``inception_score_std`` (over 10 splits).

    Raises:
      SdvarError: torch-fidelity is missing, or it cannot do its work.
    """
    module = check_torch_fidelity()
    require(
        samples.complete,
        f"the samples in {samples.path} are not complete; run the same command again to make the "
        "rest",
    )
    if inception_weights is not None and not Path(inception_weights).is_file():
        raise SdvarError(f"no Inception weights at {inception_weights}")
    if isinstance(reference, Path) and not reference.is_dir():
        raise SdvarError(f"{reference} is no directory of pictures to compare with")
    options: dict[str, Any] = {
        "isc": True,
        "isc_splits": min(_SPLITS, len(samples)),
        "fid": reference is not None,
        "batch_size": batch_size,
        "cuda": importlib.import_module("torch").cuda.is_available(),
        "verbose": False,
        # Pictures are read in this process: worker processes are forked, which JAX's threads and
        # a device in use do not survive.
        "save_cpu_ram": True,
        "input1": _torch_dataset(samples),
    }
    if reference is not None:
        options["input2"] = str(reference)
        options["samples_find_deep"] = True
    if inception_weights is not None:
        options["feature_extractor_weights_path"] = str(inception_weights)
    try:
        found = module.calculate_metrics(**options)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SdvarError(f"torch-fidelity could not measure: {reason}") from error
    return {name: float(value) for name, value in found.items()}


def _torch_dataset(samples: SampleDirectory) -> Any:
    """The samples as a torch data set of uint8 [3, side, side]."""
    torch = importlib.import_module("torch")
    data = importlib.import_module("torch.utils.data")

    class Shards(data.Dataset):  # type: ignore[name-defined]
        """Reads one shard at a time: they are asked for in order."""

        def __init__(self) -> None:
            self._index, self._images = -1, np.empty(0, np.uint8)

        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, number: int) -> Any:
            index = number // samples.shard_size
            if index != self._index:
                self._index, self._images = index, samples.read(index).images
            image = self._images[number - index * samples.shard_size]
            return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    return Shards()
