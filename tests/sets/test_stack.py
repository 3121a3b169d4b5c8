"""Stacks: the slices of one body, each drawn near the slice before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from highdicom import get_volume_from_series

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.generation import Generation
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.replay import replay
from medvar_engine.generate.trace import Trace
from medvar_engine.request import MOST_SLICES, Request, Sampling, StackPlace
from medvar_engine.sets.generate_files import FileOptions
from medvar_engine.sets.generate_stack import generate_stack
from medvar_engine.sets.stack import Stack, draw_stack, placed, stack_requests
from medvar_engine.types import FloatArray
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.provenance import read_trace
from medvar_engine.write.volume_file import write_volume

CT = Condition("CT", "abdomen", "axial")
STACK = Stack(6, 3.0)


def drawn(bundle: Bundle, seed: int, stack: Stack = STACK) -> list[Generation]:
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    return list(draw_stack(generator, stack_requests(bundle, CT, seed, Sampling(), stack)))


def test_slices_are_drawn_one_after_the_other(pair_bundle: Bundle) -> None:
    """Every slice tells how to make it again without the others."""
    slices = drawn(pair_bundle, 3)
    generator = Generator(OnnxBackend(pair_bundle, device="cpu"))
    for number, (before, one) in enumerate(zip([None, *slices], slices, strict=False)):
        place = one.requests[0].stack
        assert place is not None
        assert place.slice == number
        assert place.before == (() if before is None else tuple(before.pyramid.sequence[0].tolist()))
        trace = Trace.from_json(one.trace(0).to_json())
        np.testing.assert_array_equal(replay(generator, trace).pyramid.sequence, one.pyramid.sequence)
    assert [one.pyramid for one in drawn(pair_bundle, 3)] == [one.pyramid for one in slices]
    assert drawn(pair_bundle, 4)[0].pyramid != slices[0].pyramid


def test_neighbours_are_more_similar_than_distant_slices(pair_bundle: Bundle) -> None:
    """Otherwise there would be no body."""
    tokens = np.concatenate([one.pyramid.sequence for one in drawn(pair_bundle, 3, Stack(24, 0.8))])
    near = np.mean([(tokens[i] == tokens[i + 1]).mean() for i in range(23)])
    far = np.mean([(tokens[i] == tokens[i + 12]).mean() for i in range(12)])
    assert near > 1.5 * far


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "short-axis"])
def test_a_volume(plane: str, pair_bundle: Bundle, tmp_path: Path) -> None:
    """Slices and masks lie on the same voxels, as far apart as was asked, whatever the plane."""
    generator = Generator(OnnxBackend(pair_bundle, device="cpu"))
    slices, masks = [], []
    for made in drawn(pair_bundle, 1):
        trace, (pixels, mask) = made.trace(0), (part[0] for part in generator.pairs(made))
        turned = replace(trace, request=replace(trace.request, condition=Condition("CT", "abdomen", plane)))
        image = OutputImage.of(pair_bundle, trace, pixels, mask)
        masks.append(mask)
        slices.append(placed(replace(image, trace=turned), STACK, trace.request))
    volume, beside, label_map = write_volume(tmp_path / "a.nii.gz", slices)
    one, other = nibabel.load(volume), nibabel.load(label_map)
    assert one.shape == other.shape == (16, 16, 6)
    np.testing.assert_array_equal(one.affine, other.affine)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(one.affine), (1.5, 1.5, 3.0))
    columns, rows, across = one.affine[:3, :3].T
    np.testing.assert_allclose((across @ columns, across @ rows, np.linalg.norm(across)), (0, 0, 3), atol=1e-6)
    rising = {"axial": (0, 0, 3), "coronal": (0, 3, 0), "sagittal": (3, 0, 0)}
    if plane in rising:
        np.testing.assert_allclose(across, rising[plane], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(other.dataobj)[..., 2].T, masks[2])
    about = json.loads(beside.read_text())
    assert about["synthetic"] is True
    assert len(about["traces"]["asked"]) == 6


def test_a_series(pair_bundle: Bundle, tmp_path: Path) -> None:
    """highdicom takes the slices for one volume of even spacing; every file is marked, and says how it was made."""
    generator = Generator(OnnxBackend(pair_bundle, device="cpu"))
    requests = stack_requests(pair_bundle, CT, 1, Sampling(), STACK)
    made = generate_stack(generator, pair_bundle, requests, STACK, tmp_path / "series", FileOptions("dicom"))
    images = [path for path in made.files if "mask" not in path.name]
    datasets = [pydicom.dcmread(path) for path in images]
    volume = get_volume_from_series(datasets)
    assert volume.array.shape == (6, 16, 16)
    np.testing.assert_allclose(volume.spacing, (3.0, 1.5, 1.5))
    assert {one.SyntheticData for one in datasets} == {"YES"}
    assert [one.InstanceNumber for one in datasets] == list(range(1, 7))
    assert len({one.SOPInstanceUID for one in datasets}) == 6
    place = read_trace(images[3]).request.stack
    assert place is not None
    assert (place.slice, place.step) == (3, requests[3].stack.step)
    with pytest.raises(MedvarError, match="exists already"):
        generate_stack(generator, pair_bundle, requests, STACK, tmp_path / "series", FileOptions("dicom"))


def test_a_series_without_positions_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """It would be no volume, although it was asked for; NIfTI has positions for every unit."""
    bundle = read_bundle(tiny_bundle)
    slice_types = tuple(replace(one, low=0.0, high=1.0, unit="arbitrary") for one in bundle.slice_types)
    bundle, stack = replace(bundle, slice_types=slice_types), Stack(2, 3.0)
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    requests = stack_requests(bundle, Condition("CT", "chest", "axial"), 1, Sampling(), stack)
    with pytest.raises(MedvarError, match="no position in DICOM"):
        generate_stack(generator, bundle, requests, stack, tmp_path / "series", FileOptions("dicom"))
    assert not list(tmp_path.iterdir())
    generate_stack(generator, bundle, requests, stack, tmp_path / "v.nii.gz", FileOptions("nifti"))


def test_a_volume_is_not_left_with_the_masks_of_another(pair_bundle: Bundle, tmp_path: Path) -> None:
    """They would be taken for its own."""
    generator, path, options = Generator(OnnxBackend(pair_bundle, device="cpu")), tmp_path / "v.nii.gz", "nifti"
    requests = stack_requests(pair_bundle, CT, 1, Sampling(), STACK)
    generate_stack(generator, pair_bundle, requests, STACK, path, FileOptions(options))
    path.unlink()
    with pytest.raises(MedvarError, match=r"v\.json exists already"):
        generate_stack(generator, pair_bundle, requests, STACK, path, FileOptions(options))
    shown = [(made.trace(0), generator.image(made)[0]) for made in drawn(pair_bundle, 1)]
    alone = [placed(OutputImage.of(pair_bundle, trace, pixels), STACK, requests[0]) for trace, pixels in shown]
    write_volume(path, alone)
    assert {one.name for one in tmp_path.iterdir()} == {"v.nii.gz", "v.json"}


def test_a_possible_copy_is_drawn_again(
    tiny_bundle: Path, gated: Callable[[Path, FloatArray], Path], tmp_path: Path
) -> None:
    """With few patients, most stacks have a slice that is near to one of them, and none could be written."""
    chest, sampling, stack = Condition("CT", "chest", "axial"), Sampling(), Stack(4, 3.0)
    bundle = read_bundle(tiny_bundle)
    generator = Generator(OnnxBackend(bundle, device="cpu"))
    requests = stack_requests(bundle, chest, 1, sampling, stack)
    plain = [generator.image(made)[0] for made in draw_stack(generator, requests)]
    knowing = read_bundle(gated(tmp_path / "gated", plain[2][None]))
    generator = Generator(OnnxBackend(knowing, device="cpu"))
    generate_stack(generator, knowing, requests, stack, tmp_path / "series", FileOptions("dicom"))
    traces = [read_trace(tmp_path / "series" / f"{number:04d}.dcm") for number in (1, 2, 3, 4)]
    assert [trace.request.seed for trace in traces] == [1, 1, 1 + MOST_SLICES, 1]
    datasets = [pydicom.dcmread(path) for path in sorted((tmp_path / "series").glob("*.dcm"))]
    assert len({one.FrameOfReferenceUID for one in datasets}) == 1
    assert get_volume_from_series(datasets).array.shape == (4, 16, 16)
    for before, trace in pairwise(traces):
        assert trace.request.stack is not None
        assert trace.request.stack.before == tuple(before.pyramid.sequence[0].tolist())
    again = generator.image(replay(generator, traces[2]))[0]
    assert not np.array_equal(again, plain[2])


def test_a_volume_that_could_not_be_read_back_is_refused(
    pair_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could ask the file how it was made."""
    monkeypatch.setattr("medvar_engine.sets.generate_stack.MAX_BYTES", 6 * 16 * 16 * 4)
    generator = Generator(OnnxBackend(pair_bundle, device="cpu"))
    requests = stack_requests(pair_bundle, CT, 1, Sampling(), STACK)
    with pytest.raises(MedvarError, match="6 slices make a volume of more than"):
        generate_stack(generator, pair_bundle, requests, STACK, tmp_path / "v.nii.gz", FileOptions("nifti"))
    assert not list(tmp_path.iterdir())


def test_a_shorter_series_replaces_all_of_a_longer_one(pair_bundle: Bundle, tmp_path: Path) -> None:
    """Slices of two bodies would lie in one folder as if they were one series; files of others must stay."""
    generator, folder = Generator(OnnxBackend(pair_bundle, device="cpu")), tmp_path / "series"
    for length in (5, 3):
        stack = Stack(length, 3.0)
        requests = stack_requests(pair_bundle, CT, 1, Sampling(), stack)
        generate_stack(generator, pair_bundle, requests, stack, folder, FileOptions("dicom", overwrite=True))
        (folder / "notes.txt").write_text("mine")
    slices = [f"{number:04d}{end}.dcm" for number in (1, 2, 3) for end in ("-mask", "")]
    assert sorted(path.name for path in folder.iterdir()) == [*slices, "notes.txt"]
    assert len({pydicom.dcmread(folder / name).StudyInstanceUID for name in slices}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stack(1, 3.0), "2 to 1024 slices, but 1 are asked for"),
        (lambda: Stack(10**9, 3.0), "2 to 1024 slices"),
        (lambda: Stack(4, 0.0), "must be 0.01 to 100 mm"),
        (lambda: Stack(4, 3.0, 1.2), "outside the range from 0 to 1"),
        (lambda: StackPlace(0, 2.0), "0.001 to 1 of the image's side"),
        (lambda: StackPlace(-1, 0.1), "slices 0 to 1023"),
    ],
)
def test_impossible_stacks_are_refused(make: object, said: str) -> None:
    with pytest.raises(MedvarError, match=said):
        make()  # type: ignore[operator]


def test_stacks_that_a_model_cannot_draw(pair_bundle: Bundle) -> None:
    """In one sentence each: no pixel size, no first position, and a factor that the model does not have."""
    with pytest.raises(MedvarError, match="no pixel size"):
        stack_requests(pair_bundle, Condition("CT", "abdomen", "coronal"), 0, Sampling(), STACK)
    with pytest.raises(MedvarError, match="needs the first"):
        stack_requests(pair_bundle, CT, 0, Sampling(), Stack(3, 3.0, 0.5))
    with pytest.raises(MedvarError, match="position"):
        stack_requests(pair_bundle, Condition("CT", position=0.2), 0, Sampling(), Stack(3, 3.0, 0.5))


def test_falling_positions_are_refused(tiny_bundle: Path) -> None:
    """The volume would be upside down: its slices are placed as if positions rose."""
    bundle = read_bundle(tiny_bundle)
    bundle = replace(bundle, labels=replace(bundle.labels, position=8))
    slice_type = next(one for one in bundle.slice_types if bundle.display(one.condition).spacing_mm is not None)
    asked = replace(slice_type.condition, position=0.7)
    with pytest.raises(MedvarError, match="Exchange the two"):
        stack_requests(bundle, asked, 0, Sampling(), Stack(3, 3.0, 0.3))
    assert len(stack_requests(bundle, asked, 0, Sampling(), Stack(3, 3.0, 0.9))) == 3


def test_a_stack_of_any_plane_is_refused(pair_bundle: Bundle) -> None:
    """Its slices would be drawn in one plane or between planes, and lie in the volume as if they were axial."""
    (first, *others) = pair_bundle.slice_types
    coronal = replace(first, condition=replace(first.condition, plane="coronal"))
    bundle = replace(pair_bundle, slice_types=(first, coronal, *others))
    with pytest.raises(MedvarError, match="Give the plane"):
        stack_requests(bundle, replace(CT, plane=None), 0, Sampling(), STACK)
    assert len(stack_requests(bundle, CT, 0, Sampling(), STACK)) == 6


def test_requests_of_images_are_as_before() -> None:
    """Names made of requests, and files of earlier versions, stay what they are."""
    assert "stack" not in Request(CT).to_dict()
    assert Request.from_dict(Request(CT).to_dict()) == Request(CT)
