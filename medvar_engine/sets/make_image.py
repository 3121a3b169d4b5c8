"""`make_image`: one synthetic image in one call."""

from __future__ import annotations

from dataclasses import replace

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.finished_pairs import finished_pairs
from medvar_engine.generate.generator import Generator
from medvar_engine.memorisation.screen import CopyScreen, screen
from medvar_engine.request import Request, Sampling
from medvar_engine.write.output_image import OutputImage


def make_image(
    bundle: Bundle,
    condition: Condition = Condition(),
    *,
    seed: int = 0,
    sampling: Sampling | None = None,
    device: str = "auto",
) -> OutputImage:
    """One finished image, ready for `save_image`.

    The same arguments give the same image on the same kind of device. For many images, keep one `Generator`, which
    loads the networks once.

    Args:
        bundle: the model, from `open_bundle`.
        condition: what the image shows; the model chooses factors that are left out.
        seed: the random seed, 0 to 2⁶⁴ - 1.
        sampling: how tokens are drawn; the bundle's defaults if not given.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns:
        The image: ``pixels`` ``(H, W)`` float32 in [-1, 1], ``mask`` if the bundle makes masks, ``values()`` in HU if
        the condition is CT, and the ``trace`` by which it can be made again.

    Raises:
        MedvarError: when the bundle does not know the condition, or when the image may be a copy of a training slice.

    >>> image = make_image(open_bundle("demo"), Condition(region="brain"), seed=7)  # doctest: +SKIP
    >>> image.pixels.shape  # doctest: +SKIP
    (128, 128)
    """
    if bundle.image_channels != 1:
        raise MedvarError(f"make_image makes grey images, but {bundle.name} makes {bundle.image_channels} channels.")
    copies = CopyScreen.of(bundle)
    generator = Generator(OnnxBackend(bundle, device=device))
    generation = generator.finish(generator.start([Request(condition, seed, sampling or bundle.sampling)]))
    images, masks = finished_pairs(generator, generation)
    found = screen(images, copies)
    (risk,) = found.risks
    if found.withheld:
        raise MedvarError(f"The image of seed {seed} is withheld: it lies {risk}. Choose another seed.")
    return replace(OutputImage.of(bundle, generation.trace(0), images[0], masks[0]), copy_risk=risk)
