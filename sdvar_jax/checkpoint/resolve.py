"""From what a user names to a checkpoint directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdvar_jax.checkpoint.info import INFO_FILE
from sdvar_jax.errors import SdvarError

MODELS_DIRECTORY = Path(__file__).parent.parent / "assets" / "models"
_HUB_PREFIX = "hf:"


def named_models() -> tuple[str, ...]:
    """Names of the models that come with the package."""
    if not MODELS_DIRECTORY.is_dir():
        return ()
    # Others may lie there that are no checkpoints, such as the emoji features.
    found = [path.parent.name for path in MODELS_DIRECTORY.glob(f"*/{INFO_FILE}")]
    return tuple(sorted(found))


def resolve_model(name_or_path: Path | str) -> Path:
    """The checkpoint directory of a path, the name of a model, or ``hf:OWNER/NAME``.

    A directory that exists wins over a model of the same name. ``hf:OWNER/NAME[@REVISION]`` is
    fetched with ``huggingface_hub`` (extra ``hub``) unless it is in its cache.

    Raises:
      SdvarError: it is none of these, or it cannot be fetched.
    """
    text = str(name_or_path)
    if text.startswith(_HUB_PREFIX):
        return _from_hub(text.removeprefix(_HUB_PREFIX))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if text in named_models():
        return MODELS_DIRECTORY / text
    if path.is_file():
        raise SdvarError(
            f"{path} is a file, not a checkpoint directory; convert it first: "
            f"sdvar convert {path} --output DIR"
        )
    known = ", ".join(named_models())
    raise SdvarError(
        f"no checkpoint directory at {path}"
        + (f" and no such model; models: {known}" if known else "")
    )


def _from_hub(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise SdvarError(f"{_HUB_PREFIX}{name} does not have the form hf:OWNER/NAME[@REVISION]")
    try:
        import huggingface_hub
    except ImportError as error:
        raise SdvarError(
            f"{_HUB_PREFIX}{name} needs huggingface_hub; install it with the extra 'hub'"
        ) from error
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        return Path(huggingface_hub.snapshot_download(repository, **options))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SdvarError(f"cannot fetch {_HUB_PREFIX}{name}: {reason}") from error
