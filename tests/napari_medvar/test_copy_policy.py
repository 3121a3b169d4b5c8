"""napari's own way of saving asks the gate, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeModels

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.memorisation.copy_risk import CopyRisk
from medvar_engine.memorisation.screen import CopyScreen
from medvar_engine.request import Request
from medvar_engine.write.provenance import read_about_pixels
from napari_medvar import writer
from napari_medvar.layers.layer_data import LayerData, layer_data
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.writer import write_layers


class Gate:
    """Finds every image at the same distance."""

    def __init__(self, distance: float) -> None:
        self._distance = distance

    def risk(self, image: object) -> CopyRisk:
        return CopyRisk(self._distance, 0.2)


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> LayerData:
    """A finished image."""
    models = FakeModels()
    monkeypatch.setattr(writer, "open_bundle_of", lambda *_: models(None))
    session = GenerationSession(models)
    session.load()
    list(session.generate(Request(Condition("CT", "abdomen", "axial"), seed=5)))
    assert session.opened is not None
    return layer_data(next(session.previews()), session.opened.bundle, "lungs")


def test_a_copy_is_not_saved(layer: LayerData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks for patients: “Save selected layers” would be a way around the gate."""
    monkeypatch.setattr(CopyScreen, "of", lambda _: CopyScreen("withhold", Gate(0.1)))
    with pytest.raises(MedvarError, match=r"“lungs” lies at a distance of 0\.100"):
        write_layers(str(tmp_path / "lungs.png"), [layer])
    assert list(tmp_path.iterdir()) == []


def test_other_images_are_saved_with_their_distance(
    layer: LayerData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks for whoever gets the file, who could not see that it was looked at."""
    monkeypatch.setattr(CopyScreen, "of", lambda _: CopyScreen("withhold", Gate(0.3)))
    (file,) = write_layers(str(tmp_path / "lungs.png"), [layer])
    assert read_about_pixels(Path(file))["nearness"] == {"distance": 0.3, "threshold": 0.2, "flagged": False}
