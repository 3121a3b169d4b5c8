"""The images that are judged: a set of shards, or a folder of PNGs, each with the condition that its trace tells."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medvar_engine.arrays import FloatArray
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.data.codes import decode
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.image_source import Images, Indices
from medvar_engine.sampling import Sampling
from medvar_engine.sets.manifest import SET
from medvar_engine.sets.mix import Ingredient, Mix
from medvar_engine.sets.read import ImageSet
from medvar_engine.trace import Trace
from medvar_engine.write.provenance import read_trace


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Images, and of each what was asked for."""

    name: str
    images: Images
    conditions: tuple[Condition, ...]
    models: tuple[str, ...]  # sha256 of the bundles that made them

    def __len__(self) -> int:
        return len(self.conditions)


def open_synthetic(path: Path) -> Synthetic:
    """A set that ``medvar generate --mix`` made as shards, or a folder of PNGs that medvar wrote.

    Raises `MedvarError` for anything else, and for images of several sizes.
    """
    if (path / SET).is_file():
        found = ImageSet.open(path)
        numbers = [n for unit in range(found.manifest.plan.units) for n in found.numbers(unit)]
        traces = (Trace.from_json(text.as_py()) for text in found.table()["trace"])
        return _of(path.name, SetImages(found, tuple(numbers)), traces)
    files = sorted(file for file in path.rglob("*.png") if not file.name.endswith("-scales.png"))
    if not files:
        raise MedvarError(
            f"{path} holds neither a set of shards (set.json) nor PNGs that medvar wrote. Make some: "
            "`medvar generate --count 200 --mix MIX --out FOLDER`."
        )
    return _of(path.name, PngImages(tuple(files)), map(read_trace, files))


def _of(name: str, images: Images, traces: Iterable[Trace]) -> Synthetic:
    conditions, models = [], set()
    for trace in traces:  # one at a time: with all their edits they are large
        conditions.append(trace.request.condition)
        models.add(trace.model)
    return Synthetic(name, images, tuple(conditions), tuple(sorted(models)))


@dataclass(frozen=True, slots=True)
class SetImages:
    """The images of a set, without those withheld."""

    source: ImageSet
    numbers: tuple[int, ...]

    @property
    def digest(self) -> str:
        """See `Images`."""
        return hashlib.sha256(repr((self.source.manifest.units, self.numbers)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.numbers)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        size, found = self.source.manifest.plan.unit_images, []
        for i in indices:
            number = self.numbers[int(i)]
            row = self.source.numbers(number // size).index(number)
            found.append(decode(self.source.codes(number // size)[row]))
        return np.stack(found)


class PngImages:
    """PNG files of 8 or 16 bits, whose values span [-1, 1]."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files
        content = hashlib.sha256()
        for file in files:
            content.update(hashlib.sha256(file.read_bytes()).digest())
        self.digest = content.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`. Raises `MedvarError` when a file cannot be read, or has another size than the first."""
        images = [self._read(self._files[int(i)]) for i in indices]
        if len({image.shape for image in images}) > 1:
            raise MedvarError(f"The images in {self._files[0].parent} are of several sizes; judge each by itself.")
        return np.stack(images)

    def _read(self, file: Path) -> FloatArray:
        try:
            with Image.open(file, formats=["PNG"]) as image:
                pixels = np.asarray(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise MedvarError(f"{file} cannot be read as PNG: {error}") from error
        if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
            raise MedvarError(f"{file} is not a gray PNG of 8 or 16 bits.")
        return (pixels / np.float32(np.iinfo(pixels.dtype).max) * 2 - 1).astype(np.float32)


def mix_like(data: SliceDataset, sampling: Sampling, known: LabelSpace, seed: int = 0) -> Mix:
    """Every kind of slice as often as in ``data``, as far as a model has names for it."""
    counts: Counter[Condition] = Counter()
    for code, count in Counter(data.conditions.codes.tolist()).items():
        counts[known.known(data.conditions.kinds[code])] += count
    return Mix(tuple(Ingredient(kind, sampling, seed, float(count)) for kind, count in sorted(counts.items(), key=str)))
