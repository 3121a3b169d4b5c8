"""The synthetic images to evaluate, with their conditions: a synthetic dataset in any layout, or a folder of files."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medvar_engine.conditions import FACTORS, Condition, LabelSpace
from medvar_engine.data.dataset import Conditions, SliceDataset
from medvar_engine.encoders.image_source import Images, Indices
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images.file_images import FileImages, check_image_files, find_image_files
from medvar_engine.evaluate.images.mask_source import FileMasks, Masks, SetMasks, mask_beside
from medvar_engine.evaluate.images.set_rows import SetRows
from medvar_engine.generate.trace import Trace
from medvar_engine.request import Sampling
from medvar_engine.sets.image_set import ImageSet
from medvar_engine.sets.mixture import Component, Mixture
from medvar_engine.sets.set_manifest import SET, SetManifest
from medvar_engine.storage import sha256_of
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json
from medvar_engine.value_range import decode
from medvar_engine.write.nifti import sidecar
from medvar_engine.write.provenance import read_trace


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Images with the condition of each, and their masks."""

    name: str
    images: Images
    conditions: Sequence[Condition]
    models: tuple[str, ...]  # digests of the models that made them, see `Bundle.models`
    masks: Masks | None = None  # None for images without masks

    def __len__(self) -> int:
        return len(self.conditions)


def open_synthetic(path: Path) -> Synthetic:
    """Open a synthetic dataset of ``medvar generate`` in any layout, or a folder of PNG, NIfTI or DICOM files.

    It needs four bytes of memory per image, and the name per file; traces are read one at a time. Raises `MedvarError`
    for anything else, for an incomplete dataset, for a file that is damaged or not written by medvar, and for images of
    several formats or sizes.
    """
    manifest = SetManifest.read(path) if (path / SET).is_file() else None
    if manifest is not None and manifest.plan.kind.layout == "shards":
        return _of_shards(ImageSet.open(path))
    if manifest is not None and not manifest.complete:
        raise MedvarError(f"{path} is not complete. Run the command that began it again to continue it.")
    files = find_image_files(path)
    if not files:
        raise MedvarError(
            f"{path} holds neither a synthetic dataset (set.json) nor PNG, NIfTI or DICOM files of medvar. Make some: "
            "`medvar generate --count 200 --mix MIX --out FOLDER`."
        )
    if manifest is not None and len(files) != (expected := manifest.plan.count - len(manifest.withheld)):
        raise MedvarError(
            f"{path / SET} lists {expected} images, but {len(files)} files exist. Make the dataset again."
        )
    models: set[str] = set()
    conditions = coded(_asked(Path(file), models) for file in files)
    images = FileImages(files, check_image_files(files))
    return Synthetic(path.name, images, conditions, tuple(sorted(models)), _file_masks(files))


def _file_masks(files: Sequence[str]) -> FileMasks | None:
    """The masks of all images; None where no image has one."""
    found = [mask_beside(Path(file)) for file in files]
    masks = [mask for mask in found if mask is not None]
    if masks and len(masks) < len(files):
        raise MedvarError(f"{files[found.index(None)]} has no mask, but others have. Evaluate them separately.")
    return FileMasks(masks) if masks else None


def coded(conditions: Iterable[Condition]) -> Conditions:
    """Conditions, with equal ones stored once."""
    distinct: dict[Condition, int] = {}
    codes = np.fromiter((distinct.setdefault(one, len(distinct)) for one in conditions), dtype=np.int32)
    return Conditions(tuple(distinct), codes)


def _asked(file: Path, models: set[str]) -> Condition:
    """The condition of an image; adds its model to ``models``."""
    trace = _trace(file)  # one at a time, because traces with many edits are large
    models.add(trace.bundle_id)
    return trace.request.condition


def _trace(file: Path) -> Trace:
    """The trace in a file; for a NIfTI file that lost it in another program, the trace in its sidecar."""
    try:
        return read_trace(file)
    except MedvarError:
        if file.name.lower().endswith((".nii", ".nii.gz")) and (beside := sidecar(file)).is_file():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                return Trace.from_json(json.dumps(plain_json.read(beside)["trace"]))
        raise


def _of_shards(found: ImageSet) -> Synthetic:
    """Read the conditions from the columns; the traces, which are large, stay on the disk."""
    plan = found.manifest.plan
    table = found.table()
    factors = [name for name in FACTORS if name in table.column_names]  # earlier versions wrote fewer
    rows = (row for batch in table.select(factors).to_batches() for row in batch.to_pylist())
    conditions = coded(Condition(**row) for row in rows)
    masks = SetMasks(found) if found.structures else None
    return Synthetic(found.path.name, SetImages(found), conditions, (plan.bundle_id,), masks)


class SetImages:
    """The images of a synthetic dataset, without withheld ones."""

    def __init__(self, source: ImageSet) -> None:
        self._source, self._rows = source, SetRows(source)

    @property
    def digest(self) -> str:
        """See `Images`."""
        return sha256_of(repr(self._source.manifest.units))

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Indices) -> FloatArray:
        """See `Images`."""
        return np.stack([decode(self._source.codes(unit)[row]) for unit, row in self._rows.find(indices)])


def mixture_like(data: SliceDataset, sampling: Sampling, known: LabelSpace, seed: int = 0) -> Mixture:
    """A mixture with the slice types of ``data`` in the same shares, as far as the model knows them."""
    counts: Counter[Condition] = Counter()
    for code, count in Counter(data.conditions.codes.tolist()).items():
        counts[known.known(data.conditions.distinct[code])] += count
    return Mixture(
        tuple(Component(kind, sampling, seed, float(count)) for kind, count in sorted(counts.items(), key=str))
    )
