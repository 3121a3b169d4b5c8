"""The report: one page that is safe to open, tells leaks, and is the same for the same slices."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from medvar_engine.cli.main import app
from medvar_engine.data.duplicates.fingerprint import fingerprint
from medvar_engine.data.report import write_report
from medvar_engine.data.report.choose_slices import spread
from medvar_engine.data.report.counts import alike_names
from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.errors import MedvarError
from medvar_engine.page.elements import element, escape
from medvar_engine.value_range import encode

SIZE = 32
HOSTILE = "<script>alert(1)</script>\"'&--><!--\u202e\x1b"
VOID = {"br", "img", "line", "meta", "rect"}


def random_image(seed: int) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 2)
    return np.clip(smooth / np.abs(smooth).max(), -1, 1).astype(np.float32)


def prepared(folder: Path, slices: list[dict[str, Any]], tested: set[str], **about: Any) -> Path:
    """A folder of slices; each says its ``image`` and what differs from a plain one."""
    plain: dict[str, Any] = {
        "patient": "ann",
        "modality": "MR",
        "region": "brain",
        "plane": "axial",
        "dataset": "set",
        "contrast": None,
        "spacing_mm": 1.5,
        "low": 0.0,
        "high": 800.0,
        "unit": "arbitrary",
        "position_mm": 2.5,
        "series": "scan",
        "source": "A hospital",
        "licence": "CC BY 4.0",
    }
    with ShardWriter(folder, SIZE) as writer:
        for one in slices:
            image = one["image"]
            changed = {name: value for name, value in one.items() if name != "image"}
            facts = SliceFacts(**plain | changed, fingerprint=fingerprint(image))
            writer.add(encode(image)[np.newaxis], [facts])
        people = {one.get("patient", "ann") for one in slices}
        writer.finish({one: "test" if one in tested else "train" for one in people}, **about)
    return folder


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and text. Fails on elements that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_content_of_the_page(tmp_path: Path) -> None:
    """Breaks for whoever prepares data: numbers, names, reasons and licences must be those of the folder."""
    slices = [{"image": random_image(i), "patient": "ann"} for i in range(3)]
    slices += [{"image": random_image(i), "patient": "bob", "spacing_mm": None} for i in range(10, 12)]
    slices += [
        {"image": random_image(20), "patient": "eve", "modality": "CT", "region": "chest", "unit": "HU", "plane": None,
         "low": -1000.0, "high": 400.0, "dataset": None, "licence": ""},
    ]  # fmt: skip
    about = {
        "refused": [{"path": "b/c.nii", "reason": "its header is cut"}],
        "remarks": ["faces", "faces"],
        "recipe": {"size": 32, "ct_windows_hu": {"chest": [-1000.0, 400.0]}, "spacing_mm": None},
    }
    raised = write_report(prepared(tmp_path / "a", slices, {"bob"}, **about), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    for text in (
        "6 slices of 32×32 pixels, of 3 patients: 2 in training, 1 in test.",
        "brain MR axial",
        "chest CT",
        "its header is cut",
        "faces (2 times)",
        "chest: -1000.0, 400.0",
        "CC BY 4.0",
        "not stated",
        "A hospital",
        "-1000-300400 HU",  # the axis of the chest's values
        "There are no test slices of chest CT.",
    ):
        assert text in page.text, text
    assert len(page.all("img")) == len(slices)
    assert [concern.grave for concern in raised] == [False, False]


def test_example_images_are_the_slices(tmp_path: Path) -> None:
    """Breaks for everybody who looks: a montage must show the slices, and say whose they are."""
    bright = np.where(np.arange(SIZE) < SIZE // 2, -0.5, 0.75) * np.ones((SIZE, 1))
    write_report(
        prepared(tmp_path / "a", [{"image": bright.astype(np.float32), "patient": "bob"}], set()), tmp_path / "r.html"
    )
    (image,) = Page(tmp_path / "r.html").all("img")
    assert image["title"] == "bob (train), series scan, 2.5 mm"
    kind, data = str(image["src"]).split(",")
    assert kind == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_allclose(shown, (bright + 1) * 127.5, atol=4)


def test_leaks_are_warned_about(tmp_path: Path) -> None:
    """Breaks for evaluation: a person on both sides under two names makes every figure too good."""
    slices = [{"image": random_image(i), "patient": "ann"} for i in range(3)]
    slices += [{"image": random_image(i), "patient": "Zoe"} for i in (1, 2)]
    slices += [{"image": random_image(7), "patient": "P-01"}, {"image": random_image(8), "patient": "p1"}]
    folder = prepared(tmp_path / "a", slices, {"Zoe", "p1"})
    raised = write_report(folder, tmp_path / "r.html")
    assert [concern.title for concern in raised if concern.grave] == [
        "Training and test share slices.",
        "Training and test may share a patient.",
    ]
    page = Page(tmp_path / "r.html")
    assert "2 pairs of near-duplicates with one slice in training and one in test: Zoe and ann." in page.text
    assert "P-01 = p1" in page.text
    assert "Training and test are apart" not in page.text
    assert len(page.all("figure")) == 2 + 2  # pairs of slices, and histograms before and after
    result = CliRunner().invoke(app, ["data", "report", str(folder), "-o", str(tmp_path / "s.html")])
    assert result.exit_code == 0, result.output
    assert "warning: Training and test share slices." in result.output
    assert (tmp_path / "s.html").read_bytes() == (tmp_path / "r.html").read_bytes()


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    """Breaks for who opens a report on somebody else's scans: nothing in a file may become part of the page."""
    slices = [
        {"image": random_image(i), "patient": f"{HOSTILE}{i % 2}", "series": HOSTILE, "dataset": HOSTILE,
         "region": HOSTILE, "plane": HOSTILE, "modality": HOSTILE, "source": HOSTILE, "licence": HOSTILE,
         "unit": HOSTILE}
        for i in (0, 1, 0, 3)
    ]  # fmt: skip
    slices[2]["patient"] = f"{HOSTILE}1"  # a leak, so that its name is in the warnings too
    about = {
        "refused": [{"path": HOSTILE, "reason": "</style>" + HOSTILE}],
        "remarks": [HOSTILE],
        "recipe": {HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
    }
    raised = write_report(prepared(tmp_path / "a<b>", slices, {f"{HOSTILE}1"}, **about), tmp_path / "r.html")
    assert raised[0].grave
    assert "\x1b" not in str(raised[0])
    page = Page(tmp_path / "r.html")
    assert page.all("script") == []
    assert "alert(1)" in page.text
    for text in ("\u202e", "\x1b"):
        assert text not in (tmp_path / "r.html").read_text(encoding="utf-8")
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    """Breaks for hospitals without network, and for privacy: the page loads nothing, and its policy forbids it."""
    write_report(prepared(tmp_path / "a", [{"image": random_image(1)}], set()), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:image/jpeg;base64,"))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "default-src 'none'" in str(page.all("meta"))
    anchors = {str(link["href"])[1:] for link in page.all("a")}
    assert anchors == {section["id"] for section in page.all("section")}


def test_histograms_of_the_scans(tmp_path: Path, nifti: Callable[..., Path], phantom: np.ndarray) -> None:
    """Breaks for judging a window: what it cuts off shows only in the scans themselves."""
    scans = tmp_path / "scans"
    content = nifti(scans / "one.nii.gz", phantom).read_bytes()
    (scans / "two.nii.gz").write_bytes(content[: len(content) // 2])
    (scans / "index.csv").write_text(
        "path,patient,modality,region\none.nii.gz,ann,MR,brain\ntwo.nii.gz,bob,MR,brain\n", encoding="utf-8"
    )
    folder = prepared(tmp_path / "a", [{"image": random_image(1)}], set())
    write_report(folder, tmp_path / "r.html", scans=scans)
    page = Page(tmp_path / "r.html")
    assert "before: 1 scan" in page.text
    assert "1 scan could not be read." in page.text
    for name in ("bob", "two.nii", str(scans)):  # the slices may have been made with pseudonyms
        assert name not in (tmp_path / "r.html").read_text(encoding="utf-8")
    write_report(folder, tmp_path / "s.html")
    assert "before, within the window" in Page(tmp_path / "s.html").text


def test_odd_values_do_not_stop_the_report(tmp_path: Path) -> None:
    """Breaks for tables of other tools: an axis without width or numbers, sizes that nobody stated, blank slices."""
    blank = np.full((SIZE, SIZE), -1, np.float32)
    slices = [
        {"image": blank, "patient": "a", "low": 5.0, "high": 5.0, "spacing_mm": None, "position_mm": None},
        {"image": random_image(1), "patient": "b", "region": "liver", "low": float("nan"), "high": float("inf")},
        {"image": blank, "patient": "c", "region": None, "plane": None, "dataset": None},
    ]
    write_report(prepared(tmp_path / "a", slices, {"a"}), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "2 slices had too little content" in page.text
    assert "nan" not in "".join(str(line["points"]) for line in page.all("polyline"))


def test_many_names_stay_readable(tmp_path: Path) -> None:
    """Breaks for large sets: a page of ten thousand rows is not read. The numbers still say how many there are."""
    slices = [{"image": random_image(i), "patient": f"patient {i}"} for i in range(130)]
    refused = [{"path": f"{i}.nii", "reason": "no"} for i in range(130)]
    write_report(prepared(tmp_path / "a", slices, set(), refused=refused), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "The first 100 of 130" in page.text
    assert "The first 100 of 130 are listed" in page.text
    assert len(page.all("img")) == 20
    assert len({image["title"] for image in page.all("img")}) == 20


def test_impossible_reports_are_refused(tmp_path: Path) -> None:
    """Breaks at the command line: a wrong name gives a sentence, and an older report stays."""
    folder = prepared(tmp_path / "a", [{"image": random_image(1)}], set())
    (tmp_path / "r.html").write_text("old")
    (tmp_path / "empty").mkdir()
    for slices, out, scans, match in [
        (folder, tmp_path / "r.txt", None, "html"),
        (folder, tmp_path / "no" / "r.html", None, "no folder"),
        (tmp_path / "no", tmp_path / "r.html", None, "prepared slices"),
        (folder, tmp_path / "r.html", tmp_path / "no", "does not exist"),
        (folder, tmp_path / "r.html", tmp_path / "empty", "No images"),
    ]:
        with pytest.raises(MedvarError, match=match):
            write_report(slices, out, scans=scans)
    assert (tmp_path / "r.html").read_text() == "old"


def test_slices_are_chosen_evenly_and_reproducibly() -> None:
    """Breaks for montages: each person comes once before anybody comes twice, and the same ones every time."""
    whose = np.repeat([7, 3, 9], [1, 50, 4])
    positions = np.arange(100, 155)
    chosen = spread(positions, whose, 8)
    people = whose[chosen - 100].tolist()
    assert sorted(people[:3]) == [3, 7, 9]
    assert sorted(people[3:5]) == [3, 9]
    assert (people.count(7), people.count(9), people.count(3)) == (1, 3, 4)
    assert len(set(chosen.tolist())) == 8
    np.testing.assert_array_equal(chosen, spread(positions, whose, 8))
    assert len(spread(positions, whose, 1000)) == 55
    assert len(spread(positions[:0], whose[:0], 5)) == 0


def test_alike_names() -> None:
    """Breaks for mistyped patients: the same name in another spelling is told, numbers are not mixed up."""
    names = ["P-01", "p1", "P 10", "P100", "ann", "Ann ", "sub-02", "sub-20", "日本", "--", "__"]
    assert sorted(alike_names(names)) == [("Ann ", "ann"), ("P-01", "p1")]


def test_elements_escape_text() -> None:
    """Breaks for everything on the page: text is text, also in attributes; markup is made in one place."""
    assert element("p", "a < b", title='"x" & y', class_="note") == (
        '<p title="&quot;x&quot; &amp; y" class="note">a &lt; b</p>'
    )
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"
    assert escape("\u202ea\x00\ud800") == "\ufffda\ufffd\ufffd"
