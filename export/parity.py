"""How far a bundle is from the torch model it came from, measured through the doors that generation uses."""

from __future__ import annotations

import numpy as np

from medvar_engine.backends.base import Backend

IMAGES = 2


def measure_parity(reference: Backend, exported: Backend) -> dict[str, float]:
    """Largest absolute differences over one pass through all scales with the same tokens.

    ``tokens_agreeing`` is the share of tokens that both encoders give an image of noise; it is below 1 where two
    codes are equally near.
    """
    info, rng = reference.info, np.random.default_rng(0)
    image = rng.uniform(-1, 1, (IMAGES, info.image_channels, info.image_size, info.image_size)).astype(np.float32)
    maps = reference.encode(image)
    agreeing = np.concatenate([(a == b).ravel() for a, b in zip(maps, exported.encode(image), strict=True)])
    labels = np.array([[size // 2 for size in info.labels.sizes], info.labels.unconditional], dtype=np.int64)
    states = [reference.start(labels), exported.start(labels)]
    latents: list[np.ndarray | None] = [None, None]
    features: list[np.ndarray | None] = [None, None]
    worst = {"logits": 0.0, "latent": 0.0}
    for k, tokens in enumerate(maps):
        logits = []
        for i, backend in enumerate((reference, exported)):
            out, states[i] = backend.step(states[i], features[i])
            latents[i], features[i] = backend.accumulate(latents[i], tokens, k)
            logits.append(out)
        # numpy's maximum, for Python's would drop a NaN.
        worst["logits"] = float(np.maximum(worst["logits"], np.abs(logits[0] - logits[1]).max()))
        worst["latent"] = float(np.maximum(worst["latent"], np.abs(latents[0] - latents[1]).max()))  # type: ignore[operator]
    assert latents[0] is not None
    images = [backend.decode(latents[0]) for backend in (reference, exported)]
    worst["image"] = float(np.abs(images[0] - images[1]).max())
    return {**worst, "tokens_agreeing": float(agreeing.mean())}
