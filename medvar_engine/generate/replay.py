"""Replay of a trace: draws every token of an image again, and reports differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medvar_engine.errors import MedvarError
from medvar_engine.generate.edits import Encoded, Graft
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Trace, lineage
from medvar_engine.generate.validation import check_model


def replay(generator: Generator, trace: Trace) -> Generation:
    """The image of ``trace``, drawn again from its seeds through all edits in its history.

    Tokens of an `Encoded` image were never drawn and are used unchanged. Raises `MedvarError` if the bundle did
    not make the image and its ancestors, or with the first scale that differs (because of another backend or version).
    """
    images = lineage([trace])
    for one in images:  # the ancestors in a trace are as untrusted as the rest
        check_model(generator.backend.info, one)
    made: dict[int, Generation] = {}
    for one in images:
        made[id(one)] = again = _again(generator, one, made)
        _compare(one, again)
    return made[id(trace)]


def _again(generator: Generator, trace: Trace, made: dict[int, Generation]) -> Generation:
    """One image, from its ancestors ``made``."""
    edit = trace.edit
    if isinstance(edit, Encoded):
        return generator.restore([trace])
    if edit is None:
        start = generator.start([trace.request])
    elif trace.parent is None:
        raise MedvarError(
            "This image cannot be made again: its trace does not contain the image that it was made from."
        )
    else:
        if isinstance(edit, Graft):
            edit = replace(edit, coarse=made[id(edit.coarse)].trace(0))
        start = generator.edit(made[id(trace.parent)].trace(0), edit)
        start = replace(start, requests=(trace.request,))  # with the seed, condition and sampling of this image
    while start.depth < trace.pyramid.depth:
        start = generator.step(start)
    return start


def _compare(expected: Trace, found: Generation) -> None:
    if found.depth != expected.pyramid.depth:
        raise MedvarError(
            f"This trace contradicts itself: its image has {expected.pyramid.depth} scales, but its edits and "
            f"request give {found.depth}. It was changed after it was written."
        )
    for k, (wanted, drawn) in enumerate(zip(expected.pyramid.maps, found.pyramid.maps, strict=True)):
        if different := int((wanted != drawn).sum()):
            raise MedvarError(
                f"Scale {k} of {expected.request.condition}, seed {expected.request.seed}, was not reproduced: "
                f"{different} of {np.size(wanted)} tokens differ. The image was made by medvar "
                f"{expected.version}, perhaps "
                "on another backend or device. Its tokens are in the file, so it can still be shown unchanged."
            )
