"""The `BackendInfo` of a bundle."""

from __future__ import annotations

from medvar_engine.backends.base import BackendInfo
from medvar_engine.bundle.read import PREVIEW, Bundle


def info_of(bundle: Bundle, provider: str) -> BackendInfo:
    """The info of ``bundle`` on a backend; only ``provider``, which really runs it, differs between backends."""
    return BackendInfo(
        provider=provider,
        precision=bundle.precision,
        schedule=bundle.schedule,
        labels=bundle.labels,
        vocabulary=bundle.vocabulary,
        latent_channels=bundle.latent_channels,
        feature_channels=bundle.feature_channels,
        image_size=bundle.image_size,
        image_channels=bundle.image_channels,
        bundle_id=bundle.bundle_id,
        weights=bundle.weights,
        light_previews=PREVIEW in bundle.sha256,
        structures=bundle.structures,
        mask_scales=bundle.mask_scales,
        has_guide=bundle.guide is not None,
    )
