"""What a backend says of the bundle that it runs."""

from __future__ import annotations

from medvar_engine.backends.base import BackendInfo
from medvar_engine.bundle import PREVIEW, Bundle


def info_of(bundle: Bundle, provider: str, model: str | None = None) -> BackendInfo:
    """The same for every backend of a bundle, but for the provider that really runs it.

    ``model`` names what it draws as, as traces do; the bundle's own transformer by default.
    """
    model = model or bundle.digest
    return BackendInfo(
        provider=provider,
        precision=bundle.precision,
        schedule=bundle.schedule,
        labels=bundle.labels,
        vocabulary=bundle.vocabulary,
        latent_channels=bundle.latent_channels,
        image_size=bundle.image_size,
        image_channels=bundle.image_channels,
        model=model,
        weights=bundle.weights if model == bundle.digest else "",  # which are those of its own transformer
        light_previews=PREVIEW in bundle.sha256,
        partial_scales=bundle.partial_scales,
    )
