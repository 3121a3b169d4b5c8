"""A real image that is open in the viewer becomes an image over itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import SCHEDULE, SIZE, FakeModels
from napari.components import ViewerModel

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Encoded
from medvar_engine.write.dicom import write_dicom
from napari_medvar.layers.image_layers import layer_name
from napari_medvar.layers.real_image import real_image
from napari_medvar.layers.scan_metadata import SCAN, ScanOf
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.widget import MedvarWidget

Settle = Callable[[MedvarWidget], None]
SCALES = len(SCHEDULE)
FINEST = layer_name(SCHEDULE, len(SCHEDULE) - 1)


def volume(shape: tuple[int, ...] = (6, 40, 60)) -> np.ndarray:
    """Every voxel tells where it is."""
    z, y, x = np.indices(shape)
    return (z * 1000 + y * 10 + x / 10).astype(np.float32)


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def middle_of(layer: Any) -> np.ndarray:
    """Where the middle of a layer is in the world."""
    return np.array(layer.data_to_world((np.array(layer.data.shape) - 1) / 2))


def value_at(layer: Any, place: Any) -> float:
    """The layer's value at a place of the world, by the nearest pixel."""
    index = np.rint(layer.world_to_data(place)).astype(int)
    return float(layer.data[tuple(index)])


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_the_slice_lies_exactly_where_it_came_from(viewer: ViewerModel, order: tuple[int, ...]) -> None:
    """Image and original would not overlay: everything measured between them would be wrong."""
    data = volume((30, 40, 60))
    layer = viewer.add_image(
        data, scale=(3, 0.5, 0.8), translate=(10, -20, 5), contrast_limits=(0, 30_000), units=("mm",) * 3
    )
    viewer.dims.order = order
    axis = order[0]
    viewer.dims.set_point(axis, layer.data_to_world((7, 7, 7))[axis])
    image = real_image(viewer, layer, SIZE, "bundle")
    points = image.image_space.placement.points()
    values = image.image_space.display.values(image.pixels)
    for row, column in [(29, 30), (32, 32), (36, 28)]:
        seen = value_at(layer, points[row, column])
        assert abs(values[row, column] - seen) < 0.05 * np.ptp(data[7] if axis == 0 else data) + 1
    np.testing.assert_allclose(points[..., axis], layer.data_to_world((7, 7, 7))[axis])


def test_flipped_axes_are_shown_as_they_are_seen(viewer: ViewerModel) -> None:
    """A scan whose axis runs upwards would be encoded upside down, as the model never saw one."""
    data = np.tile(np.linspace(0, 1, 40, dtype=np.float32)[:, None], (1, 40))
    layer = viewer.add_image(data, scale=(-1, 1), contrast_limits=(0, 1))
    image = real_image(viewer, layer, SIZE, "bundle")
    assert image.pixels[0].mean() > image.pixels[-1].mean()  # row 39 of the data is at the top
    np.testing.assert_allclose(value_at(layer, image.image_space.placement.points()[5, 5]), 1 - 5.5 / SIZE, atol=0.03)


def test_the_aspect_and_the_window_are_kept(viewer: ViewerModel) -> None:
    """An organ would be stretched, and its contrast another."""
    data = np.full((20, 80), 50.0, dtype=np.float32)
    layer = viewer.add_image(data, scale=(2, 1), contrast_limits=(0, 100), units=("mm", "mm"))
    image = real_image(viewer, layer, SIZE, "bundle")
    filled = image.pixels > -1
    assert abs(filled.any(axis=1).sum() - SIZE / 2) <= 1  # 40 mm of 80 mm
    assert filled.any(axis=0).all()
    np.testing.assert_allclose(image.pixels[SIZE // 2], 0, atol=1e-5)
    assert image.image_space.display.spacing_mm == pytest.approx(80 / SIZE)


@pytest.mark.parametrize(
    ("add", "words"),
    [
        (lambda viewer: viewer.add_labels(np.zeros((20, 20), dtype=int)), "not an image layer"),
        (lambda viewer: viewer.add_image(np.zeros((20, 20, 3)), rgb=True), "colour"),
        (lambda viewer: viewer.add_image(np.zeros((3, 3))), "too small"),
        (lambda viewer: viewer.add_image(np.zeros((20, 20)), metadata={"medvar": {"trace": None}}), "made by MedVAR"),
        (lambda viewer: None, "Select one image layer"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_plain_words(
    viewer: ViewerModel, add: Callable[[Any], Any], words: str
) -> None:
    """A traceback, or nonsense made of a mask."""
    with pytest.raises(MedvarError, match=words):
        real_image(viewer, add(viewer), SIZE, "bundle")


def test_three_d_is_refused(viewer: ViewerModel) -> None:
    """Nobody could say which slice is meant."""
    layer = viewer.add_image(volume())
    viewer.dims.ndisplay = 3
    with pytest.raises(MedvarError, match="Switch to 2D"):
        real_image(viewer, layer, SIZE, "bundle")


def test_the_active_layer_becomes_an_image_over_itself(quick: MedvarWidget, settle: Settle) -> None:
    """Reconstruction and original could not be compared in place; or varying it would leave its place."""
    layer = quick.viewer.add_image(
        volume(), name="scan", scale=(3, 0.5, 0.8), translate=(1, 2, 3), contrast_limits=(0, 6000), units=("mm",) * 3
    )
    quick.viewer.layers.selection.active = layer
    quick.viewer.dims.set_point(0, layer.data_to_world((2, 0, 0))[0])
    quick.real.panel.encode_button.click()
    settle(quick)
    assert not quick.message.isVisible(), quick.message.text.text()
    node = quick.session.node
    assert node is not None
    assert isinstance(node.trace.edit, Encoded)
    assert node.name == "scan"
    image = quick.viewer.layers[FINEST]
    assert image.visible
    assert quick.viewer.layers.index(image) > quick.viewer.layers.index(layer)  # or the original would hide it
    assert image.ndim == 3
    middle = np.mean([image.data_to_world((0, 0, 0)), image.data_to_world(np.array(image.data.shape) - 1)], axis=0)
    np.testing.assert_allclose(middle, layer.data_to_world((2, 19.5, 29.5)), atol=1e-6)
    assert tuple(image.contrast_limits) == (0, 6000)
    assert quick.real.panel.result.text().startswith("“scan” was reconstructed")

    quick.scales.slider.setValue(2)
    quick.edit.panel.resample_button.click()
    settle(quick)
    np.testing.assert_allclose(middle_of(image), middle, atol=1e-6)

    quick.real.panel.anomaly_button.click()
    settle(quick)
    over = next(layer for layer in quick.viewer.layers if layer.name.startswith("anomaly"))
    assert over.visible
    assert over.data.shape == image.data.shape

    quick.views.show_view("image")
    quick.sampling.roll()
    quick.scales.generate_button.click()  # a synthetic one again, in its own place
    settle(quick)
    assert quick.viewer.layers[FINEST].data.shape == (SIZE, SIZE)
    np.testing.assert_allclose(quick.viewer.layers[FINEST].scale, [0.8, 0.8])


def test_beside_a_layer_without_units_there_are_none(quick: MedvarWidget, settle: Settle) -> None:
    """napari would warn of inconsistent units at every layer."""
    quick.viewer.layers.clear()
    quick.viewer.add_image(np.zeros((20, 20)), name="camera")
    quick.scales.generate_button.click()
    settle(quick)
    assert quick.viewer.layers.extent.units is not None
    np.testing.assert_allclose(quick.viewer.layers[FINEST].scale, [0.8, 0.8])


def test_a_layer_without_units_may_come_later(made: MedvarWidget) -> None:
    """napari would give up units for good, and warn again at every further layer."""
    made.viewer.add_image(np.zeros((20, 20)), name="camera")
    assert made.viewer.layers.extent.units is not None
    np.testing.assert_allclose(made.viewer.layers[FINEST].scale, [0.8, 0.8])


def test_a_layer_that_cannot_be_encoded_is_reported(quick: MedvarWidget) -> None:
    """A traceback in the radiologist's face."""
    quick.viewer.layers.selection.clear()
    quick.real.panel.encode_button.click()
    assert "Select one image layer" in quick.message.text.text()
    assert quick.message.isVisible()


def test_the_menu_command_waits_for_the_model(quick: MedvarWidget, settle: Settle) -> None:
    """Chosen in the layer list's menu, it would do nothing while the model is being loaded."""
    layer = quick.viewer.add_image(volume()[0], name="scan")
    quick.viewer.layers.selection.active = layer
    quick.load("fake")
    assert quick.worker.running
    quick.start_from_layer()
    settle(quick)
    assert [node.name for node in quick.session.tree.nodes] == ["scan"]
    assert quick.real.panel.result.text().startswith("“scan” was reconstructed")


def test_the_image_worked_on_follows_the_selection_until_it_is_chosen(quick: MedvarWidget) -> None:
    """A mask selected for painting would be taken for the scan; or one would not know which image is encoded."""
    viewer, panel = quick.viewer, quick.real.panel
    first = viewer.add_image(volume()[0], name="first")
    second = viewer.add_image(volume()[0], name="second")
    assert panel.image == second
    viewer.layers.selection.active = first
    assert panel.image == first
    viewer.add_labels(np.zeros((9, 9), dtype=int))
    assert panel.image == first
    panel.image_combo.setCurrentIndex(panel.image_combo.findText("second"))
    panel.image_combo.activated.emit(panel.image_combo.currentIndex())
    viewer.layers.selection.active = first
    assert panel.image == second
    viewer.layers["second"].name = "the scan"
    assert panel.image_combo.currentText() == "the scan"
    viewer.layers.selection.active = first
    assert panel.image == second
    viewer.layers.remove("the scan")
    assert panel.image == first


def test_an_encoded_slice_is_written_where_the_scan_lies(quick: MedvarWidget, settle: Settle, tmp_path: Path) -> None:
    """It would not overlay the scan in another program, or have other values."""
    import nibabel

    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[:3, 3] = (-40, -50, 300)
    x, y, z = np.indices((40, 40, 6))
    values = (x * 2 + y + z * 40).astype(np.float32)
    nibabel.Nifti1Image(values, affine).to_filename(tmp_path / "scan.nii.gz")
    quick.real.open_scan(tmp_path / "scan.nii.gz")
    settle(quick)
    assert not quick.message.isVisible(), quick.message.text.text()
    layer = quick.viewer.layers["scan.nii.gz"]
    layer.contrast_limits = (0, 400)
    quick.viewer.dims.set_point(0, layer.data_to_world((2, 0, 0))[0])  # the third from the head: z = 3
    quick.real.panel.encode_button.click()
    settle(quick)
    assert not quick.message.isVisible(), quick.message.text.text()

    session = quick.session.save(tmp_path / "work.medvar")
    list(quick.session.open(session))  # a saved session knows the place, too
    quick.save.panel.choose_folder(tmp_path / "out")
    for form in ("nifti", "dicom"):
        panel = quick.save.panel
        panel.format_combo.setCurrentIndex(panel.format_combo.findData(form))
        panel.save_button.click()
        settle(quick)
        assert not quick.message.isVisible(), quick.message.text.text()
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    image = nibabel.load(written)
    assert image.shape == (SIZE, SIZE, 1)
    corners = np.array([[-0.5, -0.5, 0, 1], [SIZE - 0.5, SIZE - 0.5, 0, 1]]) @ image.affine.T
    np.testing.assert_allclose(corners[:, :3], [(39, 29, 315), (-41, -51, 315)], atol=1e-3)  # right, front; left, back
    node = quick.session.node
    assert node is not None
    pixels = next(iter(quick.session.previews([SCALES - 1]))).pixels
    np.testing.assert_allclose(image.get_fdata()[..., 0].T, (pixels + 1) * 200, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "sides", "seen"),
    [
        ((8, 30, 30), (6, 1, 1), (0, 1)),  # sagittal: head up, front to the left
        ((30, 8, 30), (1, 6, 1), (0, 2)),  # coronal: head up
        ((30, 30, 8), (1, 1, 6), (1, 2)),  # axial: front up
        ((20, 20, 20), (1, 1, 1), (1, 2)),
    ],
)
def test_an_opened_scan_is_seen_in_the_plane_it_was_acquired_in(
    quick: MedvarWidget,
    settle: Settle,
    tmp_path: Path,
    shape: tuple[int, int, int],
    sides: tuple[float, float, float],
    seen: tuple[int, int],
) -> None:
    """A coronal scan of fifteen slices would be seen as stripes."""
    import nibabel

    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    nibabel.Nifti1Image(values, np.diag([*sides, 1.0])).to_filename(tmp_path / "scan.nii.gz")
    quick.real.open_scan(tmp_path / "scan.nii.gz")
    settle(quick)
    assert not quick.message.isVisible(), quick.message.text.text()
    assert quick.viewer.dims.displayed == seen


def test_a_slice_of_a_scan_keeps_its_frame_of_reference(viewer: ViewerModel, tmp_path: Path) -> None:
    """A viewer of DICOM would not lay it over the scan."""
    import pydicom

    to_lps = np.array([[0, 0, 0.5, -20], [0, 0.5, 0, -30], [-2.5, 0, 0, 110], [0, 0, 0, 1]])
    scan = ScanOf(to_lps, "HU", "1.2.3.4")
    data = np.zeros((5, SIZE, SIZE), dtype=np.float32)
    layer = viewer.add_image(
        data,
        scale=(2.5, 0.5, 0.5),
        contrast_limits=(-160, 240),
        units=("mm",) * 3,
        metadata={SCAN: scan.to_dict(data.shape)},
    )
    viewer.dims.set_point(0, 5.0)
    image = real_image(viewer, layer, SIZE, "bundle")
    session = GenerationSession(FakeModels())
    session.load()
    list(session.start_from_image(image.pixels, Condition("CT", "abdomen", "axial"), image_space=image.image_space))
    node = session.node
    assert node is not None
    assert node.image_space is not None
    write_dicom(tmp_path / "a.dcm", node.image_space.output_image(node.trace, image.pixels))
    written = pydicom.dcmread(tmp_path / "a.dcm")
    assert written.FrameOfReferenceUID == "1.2.3.4"
    assert written.Modality == "CT"
    np.testing.assert_allclose(np.array(written.ImagePositionPatient, float), (-20, -30, 105))
    np.testing.assert_allclose(np.array(written.ImageOrientationPatient, float), (1, 0, 0, 0, 1, 0))
    np.testing.assert_allclose(np.array(written.PixelSpacing, float), (0.5, 0.5))
    assert float(written.SliceThickness) == 2.5
    assert written.SyntheticData == "NO"  # it shows a real slice, decoded from its tokens
