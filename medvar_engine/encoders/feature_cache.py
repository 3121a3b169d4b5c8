"""A cache of features on the disk, so that they are computed once and a killed run can be continued.

There is one file for each pair of encoder and images, ``ENCODER-IMAGES.npy``, float32 ``(N, D)``. During the
computation it is ``.partial.npy``, with a note of the number of finished rows. Features are computed in fixed chunks,
so they do not depend on interruptions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medvar_engine.encoders.encoder import Encoder
from medvar_engine.encoders.image_source import Images
from medvar_engine.errors import MedvarError
from medvar_engine.storage import exclusive_lock, replace_file, sha256_of, take_name, writing
from medvar_engine.types import FloatArray

CHUNK = 64  # slices encoded between two notes of progress

Progress = Callable[[int, int], None]
"""Called with the number of encoded images and the number of all images."""


def cached_features(encoder: Encoder, images: Images, folder: Path, progress: Progress | None = None) -> FloatArray:
    """Features ``(N, D)`` as a read-only memory map, from the cache in ``folder`` or computed now.

    Memory does not grow with N. Raises `MedvarError` when the disk is full or another run computes the same features.
    """
    target = folder / f"{cache_key(encoder, images)}.npy"
    shape = (len(images), encoder.dimension)
    with writing(folder, "encoded images are kept"):
        folder.mkdir(parents=True, exist_ok=True)
        if (kept := _open(target, shape)) is None:
            refusal = f"{target} is being written by another run. Wait until that run has ended."
            with exclusive_lock(target.with_suffix(".lock"), refusal):
                if (kept := _open(target, shape)) is None:
                    _compute(encoder, images, target, progress)
                    kept = _open(target, shape)
    if kept is None:
        raise MedvarError(f"{target} was changed by another program while it was written. Run the same command again.")
    if progress is not None:
        progress(len(images), len(images))
    return kept


def cache_key(encoder: Encoder, images: Images) -> str:
    """The name of the cached features of these images by this encoder with its preprocessing."""
    described = sha256_of(json.dumps(encoder.describe(), sort_keys=True))
    return f"{described[:24]}-{images.digest[:24]}"


def _compute(encoder: Encoder, images: Images, target: Path, progress: Progress | None) -> None:
    partial, note = target.with_suffix(".partial.npy"), target.with_suffix(".partial.json")
    shape = (len(images), encoder.dimension)
    if 0 in shape:
        with partial.open("wb") as file:
            np.save(file, np.empty(shape, dtype=np.float32))
    else:
        done, features = _resume(partial, note, shape)
        for first in range(done, len(images), CHUNK):
            rows = np.arange(first, min(first + CHUNK, len(images)))
            features[rows] = encoder.encode(images.batch(rows))
            features.flush()
            replace_file(note, json.dumps({"done": int(rows[-1]) + 1}).encode())
            if progress is not None:
                progress(int(rows[-1]) + 1, len(images))
        del features  # closes the map, because Windows cannot rename an open file
    take_name(partial, target)
    note.unlink(missing_ok=True)


def _resume(partial: Path, note: Path, shape: tuple[int, int]) -> tuple[int, np.memmap]:
    """The number of rows that an earlier run has finished, and the map that holds them."""
    if _open(partial, shape) is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            done = int(json.loads(note.read_text(encoding="utf-8"))["done"])
            if 0 < done <= shape[0]:
                return done, np.lib.format.open_memmap(partial, mode="r+")
    note.unlink(missing_ok=True)
    return 0, np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)


def _open(path: Path, shape: tuple[int, int]) -> FloatArray | None:
    """The features in a file; None if it is missing or damaged."""
    try:
        features = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None
