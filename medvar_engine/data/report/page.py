"""The HTML page of a report on prepared slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.near_duplicates import Duplicates
from medvar_engine.data.report import counts
from medvar_engine.data.report.charts import Bar, bars, lines
from medvar_engine.data.report.concerns import Concern, at_least, patient_pairs
from medvar_engine.data.report.histograms import GroupHistograms, Histogram, ScanHistograms, slice_histograms
from medvar_engine.data.report.montage import montages, pairs
from medvar_engine.page.document import Section, document, note
from medvar_engine.page.elements import Child, Markup, counted, element, join, number, table

_ROWS = 100  # largest number of rows of a table that grows with the data
_PAIRS = 12


def page(
    dataset: SliceDataset, duplicates: Duplicates, raised: Sequence[Concern], scans: ScanHistograms | None
) -> Markup:
    """The whole report on a dataset of both splits, as one HTML file."""
    patients = Counter(dataset.manifest.split.values())
    title = f"Slices in {dataset.folder.resolve().name}"
    sections = [
        Section("counts", "Numbers of slices", _counts(dataset)),
        Section("examples", "Example slices", _examples(dataset)),
        Section("intensities", "Intensities", _intensities(dataset, scans)),
        Section("duplicates", "Near-duplicates", _duplicates(dataset, duplicates)),
        Section("patients", "Patients", _patients(dataset)),
        Section("spacing", "Pixel size", _spacing(dataset)),
        Section("refused", "Left out", _refused(dataset)),
        Section("sources", "Sources and licences", _sources(dataset)),
        Section("recipe", "Recipe and remarks", _recipe(dataset)),
    ]
    lead = (
        f"{counted(len(dataset), 'slice')} of {dataset.size}×{dataset.size} pixels, of "
        f"{counted(patients.total(), 'patient')}: {number(patients['train'])} in training, "
        f"{number(patients['test'])} in test."
    )
    return document(
        title, element("p", lead), sections, notes=[note(one.title, one.text, grave=one.grave) for one in raised]
    )


def _counts(dataset: SliceDataset) -> Markup:
    found = counts.labels(dataset)
    key = element(
        "p",
        element("span", class_="key train"),
        "training",
        element("span", class_="key test"),
        "test",
        class_="quiet",
    )
    rows: list[tuple[Child, ...]] = [
        (one.region, one.modality, one.plane, one.train, one.train_patients, one.test, one.test_patients)
        for one in found
    ]
    columns = ("region", "modality", "plane", "training slices", "patients", "test slices", "patients")
    chart = bars([Bar(one.name, one.train, one.test) for one in found], "Slices of each label, training and test")
    return join(key, chart, table(columns, rows))


def _examples(dataset: SliceDataset) -> Markup:
    intro = "The examples come from as many patients as possible. Point at a slice to read its patient."
    return join(
        element("p", intro, class_="quiet"),
        *(join(element("h3", name), tiles) for name, tiles in montages(dataset)),
    )


def _intensities(dataset: SliceDataset, scans: ScanHistograms | None) -> Markup:
    before = (
        "Before: all values of a few scans, but for the thousandth at each end; the blue band is the CT window."
        if scans is not None
        else "Before: the values the slices stand for, which end where their window ends; with --scans FOLDER, all "
        "values of a few scans."
    )
    intro = (
        f"A line is one patient, its height the square root of the share of pixels. {before} After: what a model sees. "
        "Scans with lines that lie apart after harmonising are worth a look; point at a line to read its patient."
    )
    charts = [_charts(one, None if scans is None else scans.groups.get(one.group)) for one in slice_histograms(dataset)]
    unread = f"{counted(scans.unread, 'scan')} could not be read." if scans is not None and scans.unread else None
    return join(element("p", intro, class_="quiet"), *charts, None if unread is None else element("p", unread))


def _charts(one: GroupHistograms, scans: Histogram | None) -> Markup:
    name = " ".join(filter(None, one.group))
    before = scans or one.window
    charts = [
        element(
            "figure",
            lines(shown.bounds, shown.lines, f"{name}, {title}", shown.unit, limits),
            element("figcaption", f"{title}: {counted(len(shown.lines), 'scan' if shown is scans else 'patient')}"),
        )
        for title, shown, limits in (
            ("before" if scans else "before, within the window", before, one.limits if scans else None),
            ("after", one.after, None),
        )
    ]
    clipped = f"Not drawn: {one.low:.0%} of the pixels at -1 (air, padding, below the window), {one.high:.1%} at 1."
    return join(element("h3", name), element("div", *charts, class_="charts"), element("p", clipped, class_="quiet"))


def _duplicates(dataset: SliceDataset, found: Duplicates) -> Markup:
    parts: list[Child] = []
    for title, kind in (
        ("Between training and test", found.leaks),
        ("Between patients on the same side", found.patients),
        ("Within a series", found.series),
    ):
        parts.append(element("h3", f"{title}: {at_least(found) if kind else ''}{counted(len(kind), 'pair')}"))
        if kind:
            rows: list[tuple[Child, ...]] = [
                (*names, count) for names, count in patient_pairs(dataset, kind).most_common(_ROWS)
            ]
            if kind is not found.series:
                parts.append(table(("patient", "and", "pairs"), rows))
            parts.append(pairs(dataset, kind[:_PAIRS]))
    note = (
        "Found by fingerprint, confirmed by the pixels. Shifted, turned, cropped or noisy copies are not found, "
        f"so finding none is no proof. {counted(found.plain, 'slice')} had too little content to be compared."
    )
    return join(*parts, element("p", note, class_="quiet"))


def _patients(dataset: SliceDataset) -> Markup:
    found = counts.patients(dataset)
    share = found[0].slices / len(dataset)
    intro = f"The patient with the most slices has {share:.0%} of all." + (
        f" The first {_ROWS} of {number(len(found))} are listed." if len(found) > _ROWS else ""
    )
    rows: list[tuple[Child, ...]] = [(one.name, one.split, one.series, one.slices) for one in found[:_ROWS]]
    return join(element("p", intro), table(("patient", "split", "series", "slices"), rows))


def _spacing(dataset: SliceDataset) -> Markup:
    rows: list[tuple[Child, ...]] = [
        (one.dataset, one.modality, one.slices, one.smallest, one.median, one.largest, one.unknown)
        for one in counts.spacings(dataset)[:_ROWS]
    ]
    columns = ("data set", "modality", "slices", "smallest, mm", "median, mm", "largest, mm", "not stated")
    return table(columns, rows)


def _refused(dataset: SliceDataset) -> Markup:
    refused = dataset.manifest.refused
    if not refused:
        return element("p", "Nothing was refused.")
    rows: list[tuple[Child, ...]] = [(one.get("path"), one.get("reason")) for one in refused[:_ROWS]]
    more = f"The first {_ROWS} of {number(len(refused))}." if len(refused) > _ROWS else None
    return join(None if more is None else element("p", more), table(("path", "reason"), rows))


def _sources(dataset: SliceDataset) -> Markup:
    rows: list[tuple[Child, ...]] = [
        (one.get("source"), one["licence"], one.get("dataset"), len(one["patients"]), int(one["slices"]))
        for one in dataset.manifest.sources
    ]
    return table(("source", "licence", "data set", "patients", "slices"), rows)


def _recipe(dataset: SliceDataset) -> Markup:
    remarks = Counter(dataset.manifest.remarks)
    items = [element("li", text if times == 1 else f"{text} ({times} times)") for text, times in remarks.items()]
    rows: list[tuple[Child, ...]] = [(name, _plain(value)) for name, value in dataset.manifest.recipe.items()]
    return join(element("ul", *items) if items else element("p", "No remarks."), table(("setting", "value"), rows))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return "–" if value is None else str(value)
