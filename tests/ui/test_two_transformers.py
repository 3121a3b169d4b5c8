"""What a bundle offers beside its own transformer: a smaller one for the fine scales, and tokens that are skipped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fakes import FakeModels

from medvar_engine.backends.server import Server
from medvar_engine.bundle import FINE, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.sampling import Sampling
from medvar_engine.trace import Request
from medvar_export.manifest import write_manifest
from napari_medvar.model import open_served
from napari_medvar.session import GenerationSession, Model, open_bundle

if TYPE_CHECKING:
    from napari_medvar.widget import MedvarWidget

Settle = Callable[["MedvarWidget"], None]


class _Both(FakeModels):
    """The fake bundle, and real ones by their folders."""

    def __call__(self, name: str | Path | None, model: str | None = None) -> Model:
        return open_bundle(name, model, device="cpu") if isinstance(name, Path) else super().__call__(name, model)


@pytest.fixture
def models() -> FakeModels:
    return _Both()


@pytest.fixture
def own_pair(quick: MedvarWidget, settle: Settle, tiny_pair: Path, tmp_path: Path) -> Path:
    """A bundle of two transformers that may be changed, opened in the widget."""
    folder = Path(shutil.copytree(tiny_pair, tmp_path / "pair"))
    quick.bundle.choose(folder)
    settle(quick)
    return folder


def drawn(widget: MedvarWidget, settle: Settle) -> str:
    """The model that the picture says it was made by, once another one is made."""
    widget.sampling.show_seed(7)
    widget.scales.generate_button.click()
    settle(widget)
    assert widget.session.trace is not None
    assert widget.session.trace.pyramid.depth == 4
    return widget.session.trace.model


def test_the_smaller_transformer_is_chosen_with_a_click(
    quick: MedvarWidget, settle: Settle, tiny_pair: Path, tmp_path: Path
) -> None:
    """It could be used by whoever types commands alone, and the pictures saved from it not be opened again."""
    widget, box = quick, quick.bundle.fine_box
    assert box.isHidden()
    widget.bundle.choose(tiny_pair)
    settle(widget)
    assert (box.isHidden(), box.isChecked()) == (False, False)
    bundle = read_bundle(tiny_pair)
    assert drawn(widget, settle) == bundle.digest
    asked = Request(Condition("MR", "brain", "axial"), 7, Sampling(guidance=3.0, top_k=5, skip_settled=0.25))
    widget._show_settings(asked)
    box.click()
    settle(widget)
    assert box.isChecked()
    assert widget.request() == asked
    assert drawn(widget, settle) == bundle.collaborative_digest
    path = widget.session.save(tmp_path / "both.medvar")
    box.click()
    settle(widget)
    assert drawn(widget, settle) == bundle.digest
    again = GenerationSession()
    list(again.open(path))
    assert again.model is not None
    assert again.model.id == bundle.collaborative_digest
    again.close()
    widget.bundle.choose("fake")
    settle(widget)
    assert box.isHidden()


def test_where_it_is_damaged_the_other_goes_on(quick: MedvarWidget, settle: Settle, own_pair: Path) -> None:
    """The box would say what is not so, and the next press of Retry open something else."""
    folder, widget, box = own_pair, quick, quick.bundle.fine_box
    whole = (folder / FINE).read_bytes()
    (folder / FINE).write_bytes(whole[:-1])
    box.click()
    settle(widget)
    assert "its sha256 differs" in widget.message.text.text()
    assert not box.isChecked()
    assert drawn(widget, settle) == read_bundle(folder).digest
    (folder / FINE).write_bytes(whole)
    widget.message.retry_button.click()
    settle(widget)
    assert box.isChecked()


def test_where_it_was_replaced_meanwhile_that_is_told(quick: MedvarWidget, settle: Settle, own_pair: Path) -> None:
    """The own transformer would draw in its place, and the box jump back without a word."""
    folder, widget, box = own_pair, quick, quick.bundle.fine_box
    values = json.loads((folder / "bundle.json").read_text())
    values["fine"]["from_scale"] = 3
    write_manifest(folder, {name: value for name, value in values.items() if name != "digest"})
    box.click()
    settle(widget)
    assert "another model than it was" in widget.message.text.text()
    widget.bundle.choose(folder)
    settle(widget)
    box.click()
    settle(widget)
    assert drawn(widget, settle) == read_bundle(folder).collaborative_digest


def test_whoever_runs_a_server_chooses(
    quick: MedvarWidget, settle: Settle, tiny_pair: Path, served: Callable[..., str]
) -> None:
    """A client's click would have no effect on the server, or open something else."""
    bundle = read_bundle(tiny_pair)
    address = served(bundle=tiny_pair, model=bundle.collaborative_digest)
    quick.session._open_model = lambda name, model=None: open_served(Server(address))
    quick.bundle.choose("fake")
    settle(quick)
    box = quick.bundle.fine_box
    assert (box.isHidden(), box.isChecked(), box.isEnabled()) == (False, True, False)
    assert drawn(quick, settle) == bundle.collaborative_digest


def test_tokens_are_skipped_where_the_model_can(quick: MedvarWidget, settle: Settle, tiny_pair: Path) -> None:
    """The slider would be missing, or offer what the model then refuses; and going back to a picture forget it."""
    widget, slider = quick, quick.sampling.skip_settled
    assert not widget.sampling._form.isRowVisible(slider)
    widget.bundle.choose(tiny_pair)
    settle(widget)
    assert widget.sampling._form.isRowVisible(slider)
    slider.setValue(0.5)
    drawn(widget, settle)
    first = widget.session.tree.current
    assert first is not None
    slider.setValue(0)
    drawn(widget, settle)
    shares = [node.trace.request.sampling.skip_settled for node in widget.session.tree.nodes]
    assert shares == [0.5, 0.0]
    widget.undo()
    settle(widget)
    assert slider.value() == 0.5
    widget.redo()
    settle(widget)
    assert slider.value() == 0
