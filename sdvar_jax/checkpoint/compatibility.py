"""Which models belong together."""

from __future__ import annotations

from collections.abc import Iterable

from sdvar_jax.config import VARConfig, VQVAEConfig
from sdvar_jax.errors import SdvarError


def check_compatible(var: VARConfig, vqvae: VQVAEConfig) -> None:
    """Raises unless the VAR speaks the VQVAE's tokens.

    Raises:
      SdvarError: naming every difference in pyramid, vocabulary and latent channels.
    """
    differences = list(_differences(var, vqvae, ("pyramid", "vocab_size", "latent_channels")))
    if differences:
        raise SdvarError(
            f"the VAR and the VQVAE do not belong together; {'; '.join(differences)} "
            "(VAR first). Give the VQVAE that the VAR was trained with"
        )


def check_draft(draft: VARConfig, target: VARConfig) -> None:
    """Raises unless the draft can propose scales to the target.

    Raises:
      SdvarError: naming every difference in pyramid, vocabulary, latent channels and classes.
    """
    fields = ("pyramid", "vocab_size", "latent_channels", "num_classes")
    differences = list(_differences(draft, target, fields))
    if differences:
        raise SdvarError(
            f"the draft and the target do not belong together; {'; '.join(differences)} "
            "(draft first). Use models trained on the same VQVAE and classes"
        )


def _differences(
    first: VARConfig, second: VARConfig | VQVAEConfig, fields: Iterable[str]
) -> Iterable[str]:
    for field in fields:
        a, b = getattr(first, field), getattr(second, field)
        if a != b:
            yield f"{field} {a} and {b}"
