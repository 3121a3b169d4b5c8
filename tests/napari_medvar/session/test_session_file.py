"""Session files: what is written can be opened again, to the pixel; what a stranger writes does no harm."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import SCHEDULE, SIZE, FakeModels

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Request
from medvar_engine.untrusted import plain_json
from medvar_engine.value_range import Display
from napari_medvar.session import session_file
from napari_medvar.session.generation_session import GenerationSession, Preview
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.session.placement import Placement
from napari_medvar.session.session_file import read_session

REQUEST = Request(Condition("CT", "abdomen", "axial"), seed=5)
# The third slice of a volume in a microscope's units, turned: as real images lie.
IMAGE_SPACE = ImageSpace(
    Display(-100.0, 300.5, "arbitrary", 0.7),
    Placement(
        SIZE,
        np.array([[3.0, 0, 0, 9], [0, 0.6, -0.2, 4], [0, 0.2, 0.6, -7], [0, 0, 0, 1]]),
        ("millimeter", "micrometer", "micrometer"),
        (1, 2),
    ),
    "fake",
)


def new_session() -> GenerationSession:
    session = GenerationSession(FakeModels())
    session.load()
    return session


@pytest.fixture
def session() -> GenerationSession:
    """Images made in every way: three at once, resampled in a mask, grafted, from an image, and unfinished."""
    session = new_session()
    list(session.generate(REQUEST, count=3))
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[5:30, 7:40] = True
    list(session.resample(2, Request(REQUEST.condition, seed=9), mask=mask, exact_outside=True, keep=[3]))
    list(session.graft(2, coarse=1, fine=3))
    list(session.start_from_image(np.zeros((SIZE, SIZE), dtype=np.float32), REQUEST.condition, name="scan"))
    list(session.step(Request(REQUEST.condition, seed=77)))
    session.delete(2)
    session.rename(1, "für später 🫁")
    session.panels = {"sampling": {"guidance": 2.5}, "fold": True}
    return session


def pixels(session: GenerationSession) -> dict[int, list[np.ndarray]]:
    return {node.id: [p.pixels for p in session.previews(node=node.id)] for node in session.tree.nodes}


def test_a_session_is_restored_exactly(session: GenerationSession, tmp_path: Path) -> None:
    """What somebody left in the evening would be something else in the morning."""
    path = session.save(tmp_path / "work.medvar")
    again = new_session()
    opened, *previews = again.open(path)
    assert opened is again.opened
    assert [p.k for p in previews if isinstance(p, Preview)] == [0]
    assert again.panels == session.panels
    assert again.tree.current == session.tree.current
    before, after = session.tree.nodes, again.tree.nodes
    assert [(n.id, n.parent, n.name) for n in after] == [(n.id, n.parent, n.name) for n in before]
    assert [n.trace.to_json() for n in after] == [n.trace.to_json() for n in before]
    old, new = pixels(session), pixels(again)
    for node in old:
        for one, other in zip(old[node], new[node], strict=True):
            np.testing.assert_array_equal(one, other)


def test_stars_come_back_and_can_be_undone(session: GenerationSession, good: dict[str, Any], tmp_path: Path) -> None:
    """What was chosen among many would have to be chosen again; or a file that says something else be refused."""
    first, second = session.tree.nodes[:2]
    session.star([first.id, second.id], starred=True)
    session.star([second.id], starred=False)
    again = new_session()
    list(again.open(session.save(tmp_path / "work.medvar")))
    assert [node.starred for node in again.tree.nodes[:3]] == [True, False, False]
    session.undo()
    assert session.tree.node(second.id).starred
    with pytest.raises(MedvarError, match="no image 99"):
        session.star([99], starred=True)
    odd = change(json.loads(json.dumps(good)), "nodes", 0, "starred", to="yes")
    assert not read_session(write(tmp_path / "odd.medvar", odd)).nodes[0].starred


def test_a_real_image_comes_back_in_its_place_and_units(tmp_path: Path) -> None:
    """An image made of a scan yesterday would lie beside it today, in other units and values."""
    session = new_session()
    image = np.zeros((SIZE, SIZE), dtype=np.float32)
    list(session.start_from_image(image, REQUEST.condition, name="scan", image_space=IMAGE_SPACE))
    list(session.resample(2, Request(REQUEST.condition, seed=9)))
    list(session.generate(REQUEST))
    again = new_session()
    list(again.open(session.save(tmp_path / "work.medvar")))
    scan, varied, synthetic = again.tree.nodes
    assert synthetic.image_space is None
    for node in (scan, varied):
        image_space = again.image_space_of(node)
        assert image_space.display == IMAGE_SPACE.display
        assert image_space.placement.same_as(IMAGE_SPACE.placement)
    list(again.resample(2, Request(REQUEST.condition, seed=10)))
    assert again.node is not None
    assert again.node.image_space is None  # the synthetic image was the current one


def test_a_unit_that_napari_may_not_know_is_left_out(good: dict[str, Any], tmp_path: Path) -> None:
    """An odd unit would cost the whole session, or end in a traceback when its layer is made."""
    odd = {**IMAGE_SPACE.to_dict(), "units": ["os.system('x')", "millimeter", 7]}
    session = read_session(
        write(tmp_path / "odd.medvar", change(json.loads(json.dumps(good)), "nodes", 0, "scene", to=odd))
    )
    assert session.nodes[0].image_space is not None
    assert session.nodes[0].image_space.placement.units == ("pixel", "millimeter", "pixel")


def test_a_session_of_the_first_format_still_opens(good: dict[str, Any], tmp_path: Path) -> None:
    """Sittings saved by the version before would be lost."""
    session = new_session()
    list(session.open(write(tmp_path / "old.medvar", {**good, "medvar_session": 1})))
    assert len(session.tree.nodes) == 2


def test_after_opening_the_newest_images_can_be_undone(session: GenerationSession, tmp_path: Path) -> None:
    """A slip just before closing napari could not be taken back the next morning."""
    again = new_session()
    list(again.open(session.save(tmp_path / "work.medvar")))
    ids = [node.id for node in again.tree.nodes]
    assert not again.modified
    again.undo()
    assert [node.id for node in again.tree.nodes] == ids[:-1]
    assert again.tree.current == ids[-2]
    again.redo()
    assert again.tree.current == session.tree.current
    assert not again.modified
    for _ in ids:
        again.undo()
    assert not again.can_undo
    assert again.node is None
    list(again.generate(REQUEST))
    assert again.node is not None
    assert again.node.id > max(ids)


def test_an_unfinished_image_is_continued(session: GenerationSession, tmp_path: Path) -> None:
    """An image stopped half-way, saved and opened, would end as another one."""
    again = new_session()
    list(again.open(session.save(tmp_path / "work.medvar")))
    request = Request(REQUEST.condition, seed=77)
    assert again.continues(request)
    *_, last = again.generate(request)
    *_, straight = session.generate(request)
    np.testing.assert_array_equal(last.pixels, straight.pixels)
    assert again.tree.current == session.tree.current


def test_a_new_image_after_opening_gets_a_new_id(session: GenerationSession, tmp_path: Path) -> None:
    """A new image would take the place of one in the file."""
    again = new_session()
    list(again.open(session.save(tmp_path / "work.medvar")))
    list(again.generate(REQUEST))
    ids = [node.id for node in again.tree.nodes]
    assert len(set(ids)) == len(ids)


def test_common_ancestors_are_written_once(tmp_path: Path) -> None:
    """A long line of edits would make a file that grows with its square."""
    session = new_session()
    list(session.generate(REQUEST))
    for seed in range(12):
        list(session.resample(4, Request(REQUEST.condition, seed=seed)))
    values = json.loads(gzip.decompress(session.save(tmp_path / "a.medvar").read_bytes()))
    assert len(values["traces"]["images"]) == len(session.tree.nodes) == 13


def test_the_same_session_is_the_same_file(session: GenerationSession, tmp_path: Path) -> None:
    """Two saves could not be compared by their hashes."""
    one, other = session.save(tmp_path / "one.medvar"), session.save(tmp_path / "other.medvar")
    assert one.read_bytes() == other.read_bytes()


def test_saved_is_not_modified(session: GenerationSession, tmp_path: Path) -> None:
    """The widget would ask to save what is saved, or not ask where work would be lost."""
    assert session.modified
    path = session.save(tmp_path / "work.medvar")
    assert not session.modified
    session.select(0)
    assert not session.modified  # looking is no work
    list(session.generate(REQUEST))
    assert session.modified
    again = new_session()
    list(again.open(path))
    assert not again.modified


@pytest.mark.parametrize("name", ["work.txt", "work"])
def test_another_ending_is_refused(session: GenerationSession, tmp_path: Path, name: str) -> None:
    """The file could not be opened by dropping it on napari."""
    with pytest.raises(MedvarError, match=r"must end in \.medvar"):
        session.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_file_before(
    session: GenerationSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk would cost the new work and the old."""
    path = session.save(tmp_path / "work.medvar")
    before = path.read_bytes()
    list(session.generate(REQUEST))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MedvarError, match="No space left"):
        session.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert session.modified


def test_panel_settings_that_are_not_json_are_refused(session: GenerationSession, tmp_path: Path) -> None:
    """A widget's bug would become a file that cannot be opened."""
    session.panels = {"window": float("nan")}
    with pytest.raises(MedvarError, match="Panel settings"):
        session.save(tmp_path / "work.medvar")


def test_a_session_that_could_not_be_read_again_is_not_written(
    session: GenerationSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work would be lost in a file that was saved without an error."""
    path = session.save(tmp_path / "work.medvar")
    before = path.read_bytes()
    monkeypatch.setattr(plain_json, "MAX_NUMBERS", 100)
    list(session.generate(REQUEST))
    with pytest.raises(MedvarError, match="delete some of its images"):
        session.save(path)
    assert path.read_bytes() == before


def test_an_empty_session_is_not_saved(tmp_path: Path) -> None:
    """A slip would replace a good file with an empty one."""
    with pytest.raises(MedvarError, match="nothing to save"):
        new_session().save(tmp_path / "work.medvar")


# -- files of strangers -------------------------------------------------------------------------------------------


def change(values: dict[str, Any], *keys: Any, to: Any) -> dict[str, Any]:
    place: Any = values
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    return values


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not an object": lambda v: [],
    "no version": lambda v: {},
    "a later version": lambda v: change(v, "medvar_session", to=3),
    "a parent that comes later": lambda v: change(v, "nodes", 0, "parent", to=1),
    "its own parent": lambda v: change(v, "nodes", 1, "parent", to=1),
    "an id twice": lambda v: change(v, "nodes", 1, "id", to=0),
    "an id that is no number": lambda v: change(v, "nodes", 0, "id", to="0"),
    "an id that is true": lambda v: change(v, "nodes", 1, "id", to=True),
    "an id without end": lambda v: change(v, "nodes", 0, "id", to=10**400),
    "a current image that is not there": lambda v: change(v, "current", to=99),
    "a list as current image": lambda v: change(v, "current", to=[]),
    "fewer nodes than traces": lambda v: change(v, "nodes", to=v["nodes"][:1]),
    "panels that are a list": lambda v: change(v, "panels", to=[]),
    "a trace that comes from itself": lambda v: change(v, "traces", "images", 0, "parent", to=0),
    "a trace asked for that is not there": lambda v: change(v, "traces", "asked", 0, to=-1),
    "a trace without scales": lambda v: change(v, "traces", "images", 0, "tokens", to=[]),
    "tokens that do not fit": lambda v: change(v, "traces", "images", 0, "tokens", to=[1, 2, 3]),
    "an image space that is no dictionary": lambda v: change(v, "nodes", 0, "scene", to=[]),
    "an image space without a place": lambda v: change(v, "nodes", 0, "scene", to={"values": [0, 1]}),
    "an image space of no size": lambda v: change(v, "nodes", 0, "scene", to={**IMAGE_SPACE.to_dict(), "size": 0}),
    "an image space of values without order": lambda v: change(
        v, "nodes", 0, "scene", to={**IMAGE_SPACE.to_dict(), "values": [1, 0]}
    ),
    "an image space flattened to a line": lambda v: change(
        v, "nodes", 0, "scene", to={**IMAGE_SPACE.to_dict(), "matrix": np.diag([1.0, 0, 2, 1]).tolist()}
    ),
    "an image space beyond all axes": lambda v: change(
        v, "nodes", 0, "scene", to={**IMAGE_SPACE.to_dict(), "matrix": np.eye(40).tolist(), "units": ["pixel"] * 39}
    ),
    "an image space along an axis that is not there": lambda v: change(
        v, "nodes", 0, "scene", to={**IMAGE_SPACE.to_dict(), "axes": [1, 3]}
    ),
    "a mask of a million rows": lambda v: change(
        v,
        "traces",
        "images",
        1,
        "edit",
        to={"kind": "resample", "from_scale": 0, "mask": {"shape": [10**6, 10**6], "bits": ""}},
    ),
}


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    """The content of a session file of two images."""
    import tempfile

    session = new_session()
    list(session.generate(REQUEST))
    list(session.resample(3, Request(REQUEST.condition, seed=6)))
    with tempfile.TemporaryDirectory() as folder:
        content: dict[str, Any] = json.loads(gzip.decompress(session.save(Path(folder) / "a.medvar").read_bytes()))
    return content


def write(path: Path, values: Any) -> Path:
    path.write_bytes(gzip.compress(json.dumps(values).encode()))
    return path


@pytest.mark.parametrize("harm", HOSTILE)
def test_hostile_content_is_refused(good: dict[str, Any], tmp_path: Path, harm: str) -> None:
    """A file from the internet would end in a traceback, or in a session that cannot be saved again."""
    path = write(tmp_path / "bad.medvar", HOSTILE[harm](json.loads(json.dumps(good))))
    with pytest.raises(MedvarError, match=r"bad\.medvar"):
        read_session(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x1f\x8b", gzip.compress(b"\xff"), gzip.compress(b"[" * 10**5)])
def test_files_that_are_not_sessions_are_refused(tmp_path: Path, content: bytes) -> None:
    """Any other file of that name would end in a traceback."""
    path = tmp_path / "bad.medvar"
    path.write_bytes(content)
    with pytest.raises(MedvarError, match=r"bad\.medvar"):
        read_session(path)


def test_a_file_cut_short_is_refused(session: GenerationSession, tmp_path: Path) -> None:
    """A download that broke off would open as half a session, or end in a traceback."""
    path = session.save(tmp_path / "work.medvar")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MedvarError, match="is incomplete"):
        read_session(path)


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    """A file moved away would end in a traceback."""
    with pytest.raises(MedvarError, match="Cannot read"):
        read_session(tmp_path / "gone.medvar")


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that unpack to gigabytes would bring the machine down."""
    monkeypatch.setattr(session_file, "MAX_BYTES", 2**20)
    path = tmp_path / "bomb.medvar"
    path.write_bytes(gzip.compress(b" " * 2**22))
    with pytest.raises(MedvarError, match="larger than the limit for sessions"):
        read_session(path)


def test_tokens_beyond_the_codebook_are_refused_and_the_session_stays(good: dict[str, Any], tmp_path: Path) -> None:
    """A file with wrong tokens would crash the runtime, or lose the images that are open."""
    images = good["traces"]["images"]
    bad = change(json.loads(json.dumps(good)), "traces", "images", 0, "tokens", 0, to=10**6)
    assert len(images[0]["tokens"]) == SCHEDULE.tokens
    session = new_session()
    list(session.generate(REQUEST))
    with pytest.raises(MedvarError, match="Tokens must be within"):
        list(session.open(write(tmp_path / "bad.medvar", bad)))
    assert len(session.tree.nodes) == 1


def test_a_session_of_a_missing_model_is_reported(good: dict[str, Any], tmp_path: Path) -> None:
    """Without the bundle, a user would not learn which one is needed, nor where it was looked for."""
    values = {**good, "model": "ee" * 32, "folder": str(tmp_path / "models" / "lung")}
    session = new_session()
    list(session.generate(REQUEST))
    with pytest.raises(MedvarError, match=r"eeee.*models.lung"):
        list(session.open(write(tmp_path / "other.medvar", values)))
    assert len(session.tree.nodes) == 1


@pytest.mark.parametrize("folder", ["\\\\evil\\share", "//evil/share"])
def test_network_folders_are_not_read(good: dict[str, Any], tmp_path: Path, folder: str) -> None:
    """Opening a stranger's file would, on Windows, send the user's password to a server of his choice."""
    values = {**good, "model": "ee" * 32, "folder": folder}
    with pytest.raises(MedvarError) as caught:
        list(new_session().open(write(tmp_path / "other.medvar", values)))
    assert "evil" not in str(caught.value)
