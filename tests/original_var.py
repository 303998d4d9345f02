"""The original PyTorch VAR, imported from the user's own checkout and run in float32 on the CPU.

Nothing of it is part of this repository. Its modules have names as general as ``models``, so they
are taken out of the way as soon as they are imported.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from golden_weights import fill_one

_TOP_LEVEL = ("models", "utils", "dist")


@contextlib.contextmanager
def _apart(directory):
    """``directory`` leads the import path; afterwards modules and path are as they were."""
    before = dict(sys.modules)
    for name in before:
        if name.partition(".")[0] in _TOP_LEVEL:
            del sys.modules[name]
    sys.path.insert(0, str(directory))
    if importlib.util.find_spec("huggingface_hub") is None:
        # Only a class for uploads is taken from it.
        hub = types.ModuleType("huggingface_hub")
        hub.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
        sys.modules["huggingface_hub"] = hub
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        for name, module in list(sys.modules.items()):
            ours = name == "huggingface_hub" or name.partition(".")[0] in _TOP_LEVEL
            if ours and before.get(name) is not module:
                del sys.modules[name]
        sys.modules |= {name: before[name] for name in before if name not in sys.modules}


def import_checkout(directory, names=("models", "models.var", "models.helpers")):
    """The checkout's modules ``names``; the test fails with one line where that cannot be."""
    if not (Path(directory) / "models" / "var.py").is_file():
        pytest.fail(f"--var-repo: {directory} is no checkout of VAR: no models/var.py", False)
    with _apart(directory), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return [importlib.import_module(name) for name in names]
        except ModuleNotFoundError as error:
            pytest.fail(
                f"--var-repo: {directory} needs {error.name}, which is not installed", False
            )
        except Exception as error:
            pytest.fail(f"--var-repo: {directory} cannot be imported: {error!r}", False)


@contextlib.contextmanager
def quietly():
    """No gradients; the original's deprecated calls are not this project's to report."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tensor(array):
    """A PyTorch copy of an array."""
    import torch

    return torch.from_numpy(np.array(array))


def nchw(images):
    """[batch, h, w, channels] -> a PyTorch tensor [batch, channels, h, w]."""
    return tensor(np.moveaxis(np.asarray(images), -1, 1))


def state_arrays(module):
    """PyTorch key -> array of a module."""
    return {key: value.numpy() for key, value in module.state_dict().items()}


@dataclasses.dataclass(frozen=True)
class GreedyRun:
    """What the original made with top_k = 1; one array a scale, NumPy.

    Attributes:
      logits: guided, [batch, side**2, vocab] each.
      tokens: [batch, side**2] each.
      images: in [0, 1], [batch, side, side, 3].
    """

    logits: list[np.ndarray]
    tokens: list[np.ndarray]
    images: np.ndarray


class Original:
    """Builds the original's models and runs them."""

    def __init__(self, directory):
        self.models, self.var_module, self.helpers = import_checkout(directory)

    def vqvae(self, config):
        """The original's VQVAE of a ``VQVAEConfig``, not yet filled."""
        with quietly():
            return self.models.VQVAE(
                vocab_size=config.vocab_size,
                z_channels=config.latent_channels,
                ch=config.channels,
                quant_resi=config.residual_ratio,
                share_quant_resi=config.shared_convolutions,
                v_patch_nums=config.pyramid.sides,
            )

    def var(self, config, vqvae):
        """The original's VAR of a ``VARConfig``, not yet filled; labels are never dropped."""
        with quietly():
            return self.models.VAR(
                vae_local=vqvae,
                num_classes=config.num_classes,
                depth=config.depth,
                embed_dim=config.width,
                num_heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                norm_eps=config.norm_eps,
                shared_aln=config.shared_aln,
                cond_drop_rate=0.0,
                attn_l2_norm=config.attn_l2_norm,
                patch_nums=config.pyramid.sides,
                flash_if_available=False,
                fused_if_available=False,
            ).eval()

    def filled(self, module):
        """The module with its parameters by formula; buffers stay the constructor's."""
        with quietly():
            for key, parameter in module.named_parameters():
                parameter.copy_(tensor(fill_one(key, tuple(parameter.shape), {})))
        return module

    def generate(self, var, labels, cfg, **options):
        """Runs ``autoregressive_infer_cfg``; guided logits and tokens are caught at its sampler."""
        sampler = "sample_with_top_k_top_p_"
        original_sampler = getattr(self.var_module, sampler)
        logits, tokens = [], []

        def catching(guided, *args, **kwargs):
            logits.append(guided.numpy().copy())
            drawn = original_sampler(guided, *args, **kwargs)
            tokens.append(drawn[:, :, 0].numpy())
            return drawn

        with quietly(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.var_module, sampler, catching)
            images = var.autoregressive_infer_cfg(
                len(labels), tensor(np.array(labels, np.int64)), cfg=cfg, **options
            )
        return GreedyRun(logits, tokens, np.moveaxis(images.numpy(), 1, -1))
