"""Training pictures: preparing the emoji set, reading image sets and folders, batching."""

from sdvar_jax.data.dataset import ImageDataset, load_dataset
from sdvar_jax.data.emoji import PreparationReport, prepare_emoji
from sdvar_jax.data.folder import ImageFolderDataset
from sdvar_jax.data.loader import Batch, LoaderConfig, make_loader, to_signed
from sdvar_jax.data.source import Example, ImageSource
from sdvar_jax.data.split import Split

__all__ = [
    "Batch",
    "Example",
    "ImageDataset",
    "ImageFolderDataset",
    "ImageSource",
    "LoaderConfig",
    "PreparationReport",
    "Split",
    "load_dataset",
    "make_loader",
    "prepare_emoji",
    "to_signed",
]
