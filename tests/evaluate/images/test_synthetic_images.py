"""The images that are judged, from every kind of folder that medvar writes; and what is told of any other."""

from __future__ import annotations

import gc
import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.images import synthetic_images as synthetic_module
from medvar_engine.evaluate.images.synthetic_images import Synthetic, coded, open_synthetic
from medvar_engine.generate.trace import Trace
from medvar_engine.request import Sampling
from medvar_engine.sets.layouts.image_files import Place
from medvar_engine.sets.layouts.shards import write_shard
from medvar_engine.sets.mixture import Component, Mixture
from medvar_engine.sets.set_image import SetImage
from medvar_engine.sets.set_manifest import SET, SetManifest
from medvar_engine.sets.set_plan import SetFormat, SetPlan
from medvar_engine.types import FloatArray
from medvar_engine.write.dicom import Study
from medvar_engine.write.formats import ENDINGS, write_image
from medvar_engine.write.nifti import sidecar
from medvar_engine.write.output_image import OutputImage

SIDE = 6
CHEST = Condition("CT", "chest", "axial")
BRAIN = Condition("MR", "brain", "axial", contrast="T1 after contrast", position=0.25)
MakeImages = Callable[..., list[OutputImage]]


@pytest.fixture
def images(make_trace: Callable[..., Trace]) -> MakeImages:
    """Images of chests and brains in turn."""

    def make(count: int = 6, side: int = SIDE) -> list[OutputImage]:
        found = []
        for number in range(count):
            pixels = np.random.default_rng(number).uniform(-1, 1, (side, side)).astype(np.float32)
            ct = not number % 2
            about = (0.75, -1000.0, 400.0, "HU") if ct else (1.0, 0.0, 1.0, "arbitrary")
            found.append(OutputImage(pixels, make_trace(seed=number, condition=CHEST if ct else BRAIN), *about))
        return found

    return make


def write(folder: Path, images: list[OutputImage], form: str, place: Place | None = None) -> list[Path]:
    """Each image as a file: by number, or where a layout puts it."""
    written = []
    for number, image in enumerate(images):
        condition = image.trace.request.condition
        name = f"{number:03d}{ENDINGS[form]}" if place is None else place(plan(form), number, condition)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written.append(write_image(path, form, image, Study("test"), number)[0])
    return written


def plan(form: str = "uint16", layout: str = "imagefolder", count: int = 6, unit: int = 4) -> SetPlan:
    parts = tuple(Component(one, Sampling(), 0, 1.0) for one in (CHEST, BRAIN))
    return SetPlan(Mixture(parts), count, "ab" * 32, SetFormat(layout, form), "2026-01-01T00:00:00+00:00", unit)


def expected(images: list[OutputImage]) -> FloatArray:
    return np.stack([image.pixels for image in images])


@pytest.mark.parametrize(
    ("form", "off"), [("png", 1 / 255), ("png16", 1 / 65535), ("nifti", 1 / 1400), ("dicom", 1 / 1400)]
)
def test_files_come_back_as_they_were_made(tmp_path: Path, images: MakeImages, form: str, off: float) -> None:
    """Breaks for whoever keeps images as NIfTI or DICOM: turned or in another window they would look bad."""
    made = images()
    write(tmp_path / "files", made, form)
    found = open_synthetic(tmp_path / "files")
    assert list(found.conditions) == [CHEST, BRAIN] * 3
    assert found.models == ("ab" * 32,)
    np.testing.assert_allclose(found.images.batch(range(6)), expected(made), atol=1.001 * off)
    np.testing.assert_array_equal(found.images.batch([4, 1]), found.images.batch(range(6))[[4, 1]])


@pytest.mark.parametrize(("layout", "form"), [("imagefolder", "png"), ("bids", "nifti"), ("nnunet", "nifti")])
def test_datasets_of_files_are_read_in_place(tmp_path: Path, images: MakeImages, layout: str, form: str) -> None:
    """Breaks for sets in the layouts that others read: they could be made, but not judged."""
    from medvar_engine.sets.layouts import bids, imagefolder, nnunet

    place = {"bids": bids, "imagefolder": imagefolder, "nnunet": nnunet}[layout].place
    written = write(tmp_path, images(), form, place)
    SetManifest(plan(form, layout), {}, ("0" * 64,) * 2).write(tmp_path)
    found = open_synthetic(tmp_path)
    assert sorted(map(str, found.conditions)) == sorted(map(str, [CHEST, BRAIN] * 3))
    assert len(found.images) == 6
    written[0].unlink()
    with pytest.raises(MedvarError, match="lists 6 images, but 5"):
        open_synthetic(tmp_path)
    SetManifest(plan(form, layout), {}).write(tmp_path)
    with pytest.raises(MedvarError, match="not complete"):
        open_synthetic(tmp_path)


def shards(folder: Path, images: list[OutputImage], withheld: frozenset[int] = frozenset()) -> Path:
    asked = replace(plan(layout="shards", count=len(images)), copy_policy="withhold", gate="g" if withheld else "")
    for unit in range(asked.units):
        made = [SetImage(i, images[i].pixels, images[i].trace, None) for i in asked.numbers(unit)]
        write_shard(unit, folder, [one for one in made if one.number not in withheld], SIDE)
    SetManifest(asked, {}, ("0" * 64,) * asked.units, withheld).write(folder)
    return folder


def test_withheld_images_of_shards_are_left_out(tmp_path: Path, images: MakeImages) -> None:
    """Breaks for sets of a bundle with a gate: every image after a withheld one would get another's label."""
    made = images(11)
    (tmp_path / "units").mkdir()
    found = open_synthetic(shards(tmp_path, made, frozenset({0, 4, 5, 6, 7, 9})))
    kept = [made[i] for i in (1, 2, 3, 8, 10)]
    assert list(found.conditions) == [image.trace.request.condition for image in kept]
    np.testing.assert_allclose(found.images.batch(range(5)), expected(kept), atol=1e-4)
    np.testing.assert_array_equal(found.images.batch([4, 0]), found.images.batch(range(5))[[4, 0]])


@pytest.mark.parametrize("form", ["shards", "png"])
def test_traces_are_not_kept_in_memory(
    tmp_path: Path, images: MakeImages, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks for large sets, whose traces with all their edits do not fit into memory."""
    made, alive = images(24), []

    def there() -> int:
        return sum(type(one) is Trace for one in gc.get_objects())

    if form == "png":
        write(tmp_path / "set", made, form)
    else:
        (tmp_path / "set" / "units").mkdir(parents=True)
        shards(tmp_path / "set", made)
    del made
    gc.collect()
    before, read = there(), synthetic_module.read_trace

    def counted(path: Path) -> Trace:
        trace = read(path)
        alive.append(there() - before)
        return trace

    monkeypatch.setattr(synthetic_module, "read_trace", counted)
    found = open_synthetic(tmp_path / "set")
    assert len(found) == 24
    assert max(alive, default=0) <= 2
    assert there() == before


def test_conditions_take_four_bytes_each() -> None:
    """Breaks for a set of ten million images, of each of which an object would be kept."""
    found = coded(Condition("CT", ("chest", "heart")[i % 2]) for i in range(10_000))
    assert found.codes.nbytes == 40_000
    assert len(found.distinct) == 2
    assert found[9_999].region == "heart"
    assert list(coded(iter(()))) == []


def test_a_lost_trace_is_read_from_the_sidecar(tmp_path: Path, images: MakeImages) -> None:
    """Breaks for files that went through another program, which drops what it does not know."""
    import nibabel

    made = images(2)
    for path in write(tmp_path, made, "nifti"):
        image = nibabel.Nifti1Image.from_filename(path)
        image.header.extensions.clear()
        path.write_bytes(gzip.compress(image.to_bytes()))
    assert list(open_synthetic(tmp_path).conditions) == [CHEST, BRAIN]
    sidecar(tmp_path / "001.nii.gz").write_text("{}")
    with pytest.raises(MedvarError, match="no MedVAR trace"):
        open_synthetic(tmp_path)


def spoilt(folder: Path, form: str, spoil: Callable[[Path], object], images: list[OutputImage]) -> None:
    spoil(write(folder, images, form)[1])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("form", ["png", "nifti", "dicom"])
@pytest.mark.parametrize("spoil", [cut, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 500)])
def test_a_broken_file_is_named(tmp_path: Path, images: MakeImages, form: str, spoil: Callable[[Path], object]) -> None:
    """Breaks after hours, with a traceback, if it is not told before any work."""
    spoilt(tmp_path, form, spoil, images(3, 32))
    with pytest.raises(MedvarError, match="001"):
        open_synthetic(tmp_path)


def test_mixed_files_are_refused(tmp_path: Path, images: MakeImages, make_trace: Callable[..., Trace]) -> None:
    """Breaks for honest figures: the same images twice, or of somebody else, or of two sizes."""

    def opened(name: str) -> Synthetic:
        return open_synthetic(tmp_path / name)

    for form in ("png", "dicom"):
        write(tmp_path / "formats", images(2), form)
    with pytest.raises(MedvarError, match=r"several formats: 2 DICOM files .*, 2 PNG files"):
        opened("formats")
    write(tmp_path / "sizes", images(2), "png")
    write(tmp_path / "sizes" / "large", images(1, 9), "png")
    with pytest.raises(MedvarError, match=r"several sizes: .*large.*9×9 pixels"):
        opened("sizes")
    write(tmp_path / "foreign", images(1), "png")
    Image.new("L", (SIDE, SIDE)).save(tmp_path / "foreign" / "other.png")
    with pytest.raises(MedvarError, match=r"other\.png contains no MedVAR trace"):
        opened("foreign")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(MedvarError, match="neither a synthetic dataset"):
            opened(name)


def test_nifti_with_other_values_is_refused(tmp_path: Path, images: MakeImages) -> None:
    """Breaks for figures: without black and white told, HU would be taken for shades."""
    import nibabel

    (path,) = write(tmp_path, images(1), "nifti")
    image = nibabel.Nifti1Image.from_filename(path)
    image.header["cal_max"] = image.header["cal_min"]
    shutil.copy(path, tmp_path / "kept")
    path.write_bytes(gzip.compress(image.to_bytes()))
    with pytest.raises(MedvarError, match="black and white"):
        open_synthetic(tmp_path)


def test_contact_sheets_are_skipped(tmp_path: Path, images: MakeImages) -> None:
    """Breaks for folders made with --show-scales: a sheet is no slice."""
    written = write(tmp_path, images(2), "png")
    shutil.copy(written[0], tmp_path / "000-scales.png")
    shutil.copy(written[0], tmp_path / ".hidden.png")
    assert len(open_synthetic(tmp_path)) == 2
    assert not (tmp_path / SET).exists()
