"""`evaluate`: all metrics of a set of synthetic images, as plain values with intervals and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medvar_engine import __version__
from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.encoders.encoder import Encoder
from medvar_engine.encoders.feature_cache import cached_features
from medvar_engine.encoders.image_source import Images, PreparedImages
from medvar_engine.errors import MedvarError
from medvar_engine.evaluate.copies import PLANTED, calibrate, check_images, find_planted_copies
from medvar_engine.evaluate.encoded_slices import check_structures
from medvar_engine.evaluate.images.baseline_images import JUDGED, CollapsedImages, baselines
from medvar_engine.evaluate.images.synthetic_images import Synthetic
from medvar_engine.evaluate.membership import MembershipInference
from medvar_engine.evaluate.metrics.bootstrap import estimate_mean
from medvar_engine.evaluate.metrics.diversity import pair_similarity
from medvar_engine.evaluate.metrics.feature_rows import FeatureRows
from medvar_engine.evaluate.metrics.frechet import SampleSizeBias, frechet_distance_to, moments, sample_size_bias
from medvar_engine.evaluate.metrics.metric_table import MetricValue, Reference, row, shown
from medvar_engine.evaluate.pairs.pair_quality import PairQuality, measure_pairs
from medvar_engine.evaluate.pairs.segmentation_utility import SegmentationUtility
from medvar_engine.evaluate.recognition import Recognition, Side, measure_recognition
from medvar_engine.evaluate.reconstruction import Reconstruction
from medvar_engine.evaluate.stack_smoothness import StackSmoothness
from medvar_engine.evaluate.texture import MOST, Texture, compare_texture
from medvar_engine.evaluate.utility import Utility
from medvar_engine.train.batches import spread
from medvar_engine.types import FloatArray, IntArray

FEWEST = 12  # least images of a label, on both sides, for metrics of that label
ALL = "all images"

Row = dict[str, MetricValue]
Progress = Callable[[str, int, int], None]
"""Called with a description of the work, the number of finished images, and the number of all images."""


@dataclass(frozen=True, slots=True)
class ByEncoder:
    """The metrics by one encoder."""

    encoder: dict[str, Any]  # name, sha256 and preprocessing
    rows: dict[str, Row]  # `JUDGED`, then each `Baseline`
    labels: dict[str, Row]  # by label: synthetic images against training slices of the same label
    bias: SampleSizeBias | None
    to_held_out: dict[str, float] | None = (
        None  # Fréchet distance to held-out slices: of synthetic images, and of as many training slices
    )


@dataclass(frozen=True, slots=True)
class Memorisation:
    """Results of the search for copies of training slices."""

    threshold: float
    flagged: MetricValue  # share of the synthetic images that are flagged
    false_alarms: MetricValue  # share of slices of new patients, with a threshold set without that patient
    copies_found: dict[str, MetricValue]  # share of planted copies that are flagged, by kind of change
    pairs: list[tuple[int, int]]  # flagged images and their nearest training slices, the nearest pair first


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The content of an evaluation report."""

    name: str
    models: tuple[str, ...]
    data: str  # sha256 of the manifest of the prepared slices
    counts: dict[str, int]  # number of images of each side
    encoders: list[ByEncoder]
    similarity: dict[str, dict[str, MetricValue]]  # label → MS-SSIM of pairs of "synthetic" and "training" images
    memorisation: Memorisation | None
    texture: dict[str, Texture] = field(default_factory=dict)  # by label, and for all images
    recognition: Recognition | None = None
    pairs: PairQuality | None = None
    stacks: dict[str, StackSmoothness] = field(default_factory=dict)  # by label; empty for existing images
    reconstruction: Reconstruction | None = None
    membership: MembershipInference | None = None
    utility: Utility | SegmentationUtility | None = None
    seconds_an_image: float | None = None
    parameters: int | None = None
    version: str = __version__
    left_out: list[str] = field(default_factory=list)  # labels with too few images


def evaluate(
    synthetic: Synthetic,
    data: Path,
    encoders: Sequence[Encoder],
    cache: Path,
    *,
    copies: bool = False,
    planted: int = PLANTED,
    progress: Progress | None = None,
) -> Evaluation:
    """Compute all metrics of ``synthetic`` against the prepared slices in ``data``.

    Features are cached in ``cache``, so that an interrupted run can be continued. ``copies`` switches the search for
    copies of training slices on, which is tested with ``planted`` copies of each kind. Raises `MedvarError` when there
    are no held-out patients, for fewer than two encoders, because a single encoder can mislead, and for slices with
    masks of other structures than those of the images.
    """
    if len(encoders) < 2:
        raise MedvarError("An evaluation needs at least two encoders, because each misses some differences.")
    training, held_out = SliceDataset(data, "train"), SliceDataset(data, "test")
    if synthetic.masks is not None and training.structures:
        check_structures(synthetic.masks.structures, training, synthetic.name)
    sides = {"training": PreparedImages(training), "held out": PreparedImages(held_out)}
    judged = [_by_encoder(one, synthetic, training, held_out, sides, cache, progress) for one in encoders]
    labels, left_out = _labels(synthetic.conditions, training)
    memorisation, flagged = _memorisation(synthetic, training, held_out, planted, progress) if copies else (None, None)
    return Evaluation(
        name=synthetic.name,
        models=synthetic.models,
        data=training.manifest.digest,
        counts={JUDGED: len(synthetic), "training": len(training), "held out": len(held_out)},
        encoders=judged,
        similarity={name: _similarity(synthetic, ours, training, theirs) for name, (ours, theirs) in labels.items()},
        memorisation=memorisation,
        texture=_texture(synthetic, labels, training, held_out),
        recognition=_recognition(encoders, synthetic, training, held_out, cache),
        pairs=_pairs(synthetic, training, held_out, flagged, progress),
        left_out=left_out,
    )


def label_of(condition: Condition) -> str:
    """The label of a condition: modality, region and plane."""
    return " ".join(filter(None, (condition.modality, condition.region, condition.plane))) or "unconditional"


def _by_encoder(
    encoder: Encoder,
    synthetic: Synthetic,
    training: SliceDataset,
    held_out: SliceDataset,
    sides: dict[str, PreparedImages],
    cache: Path,
    progress: Progress | None,
) -> ByEncoder:
    def features(name: str, images: Images) -> FloatArray:
        report = None if progress is None else lambda done, total: progress(f"{encoder.name}: {name}", done, total)
        return cached_features(encoder, images, cache, report)

    training_patients = [one.patient for one in training.rows]
    reference = Reference.of(
        features("training", sides["training"]), features("held out", sides["held out"]), training_patients
    )
    ours = features(JUDGED, synthetic.images)
    own_groups = [str(i) for i in range(len(synthetic))]
    rows: dict[str, Row] = {JUDGED: row(ours, own_groups, reference)}
    # As many evenly spaced slices as synthetic images, because most metrics depend on the number of images.
    some = spread(len(held_out), len(synthetic))
    patients = [held_out.rows[int(i)].patient for i in some]
    for baseline, images in baselines(sides["held out"]).items():
        # Repeated images come from no more patients than there are different images.
        few = isinstance(images, CollapsedImages)
        groups = [str(i % images.kept) for i in some] if isinstance(images, CollapsedImages) else patients
        over = "different images" if few else "held-out patients"
        rows[baseline] = row(FeatureRows(features(baseline, images), some), groups, reference, over=over)
    labels, _ = _labels(synthetic.conditions, training)
    by_label = {}
    for name, (mine, theirs) in labels.items():
        others = np.flatnonzero(_names(held_out) == name)
        part = Reference.of(
            FeatureRows(reference.training, theirs),
            FeatureRows(reference.held_out, others),
            [training_patients[int(i)] for i in theirs],
        )
        by_label[name] = row(FeatureRows(ours, mine), [str(i) for i in mine], part)
    bias = sample_size_bias(ours, reference.training_moments)
    return ByEncoder(encoder.describe(), rows, by_label, bias, _to_held_out(ours, reference))


def _to_held_out(ours: FloatArray, reference: Reference) -> dict[str, float] | None:
    """Fréchet distances to held-out slices; None when a side has too few images."""
    some = FeatureRows(reference.training, spread(len(reference.training), len(ours)))
    try:
        distance = frechet_distance_to(moments(reference.held_out))
        return {JUDGED: distance(ours), "training": distance(some)}
    except MedvarError:
        return None


def _labels(
    conditions: Sequence[Condition], training: SliceDataset
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """Indices of the synthetic images and the training slices of each label, and the labels with too few images."""
    asked = np.array([label_of(condition) for condition in conditions])
    training_names = _names(training)
    found, few = {}, []
    for name in sorted(set(asked.tolist())):
        sides = np.flatnonzero(asked == name), np.flatnonzero(training_names == name)
        if min(map(len, sides)) < FEWEST:
            few.append(f"{name} ({len(sides[0])} synthetic, {len(sides[1])} training)")
        else:
            found[name] = sides
    return found, few


def _names(data: SliceDataset) -> np.ndarray:
    """The label of every slice."""
    names: np.ndarray = np.array([label_of(condition) for condition in data.conditions.distinct])[data.conditions.codes]
    return names


def _similarity(
    synthetic: Synthetic, ours: np.ndarray, training: SliceDataset, theirs: np.ndarray, pairs: int = 60
) -> dict[str, MetricValue]:
    """MS-SSIM of pairs of synthetic and of real images of one label, from a sample of images."""
    some = [numbers[:: max(1, len(numbers) // 64)] for numbers in (ours, theirs)]
    patients = [training.rows[int(i)].patient for i in some[1]]
    several = patients if len(set(patients)) > 1 else None  # slices of one patient are similar, but there are no others
    return {
        JUDGED: shown(pair_similarity(synthetic.images.batch(some[0]), pairs=pairs), "images"),
        "training": shown(
            pair_similarity(training.batch(some[1])[:, 0], several, pairs=pairs),
            "training patients" if several else "slices of one patient",
        ),
    }


def _texture(
    synthetic: Synthetic,
    labels: dict[str, tuple[np.ndarray, np.ndarray]],
    training: SliceDataset,
    held_out: SliceDataset,
) -> dict[str, Texture]:
    """Texture of each label and of all images, against held-out slices, or training slices if those are too few.

    Held-out slices are of few patients. Training slices are therefore compared with them, too.
    """

    def compared(ours: IntArray, theirs: IntArray, new: IntArray) -> Texture:
        images = synthetic.images.batch(_some(ours))
        known = training.batch(_some(theirs))[:, 0]
        if len(new) < FEWEST:
            return compare_texture(images, known, "training")
        slices = held_out.batch(_some(new))[:, 0]
        found = compare_texture(images, slices, "held out")
        return replace(found, training=compare_texture(known, slices, "held out"))

    names = _names(held_out)
    every = compared(np.arange(len(synthetic)), np.arange(len(training)), np.arange(len(held_out)))
    return {ALL: every} | {
        name: compared(ours, theirs, np.flatnonzero(names == name)) for name, (ours, theirs) in labels.items()
    }


def _some(numbers: IntArray) -> IntArray:
    """At most `MOST` of ``numbers``, evenly spaced."""
    return numbers[spread(len(numbers), MOST)]


def _recognition(
    encoders: Sequence[Encoder], synthetic: Synthetic, training: SliceDataset, held_out: SliceDataset, cache: Path
) -> Recognition | None:
    """Recognition by a classifier on the concatenated features of all encoders, which are in ``cache``."""

    def side(images: Images, conditions: Sequence[Condition], groups: Sequence[str]) -> Side:
        features = np.concatenate([cached_features(one, images, cache) for one in encoders], axis=1)
        names = [f"{one.region} {one.plane}" if one.region and one.plane else None for one in conditions]
        return Side(features, names, groups)

    real = [
        side(PreparedImages(data), data.conditions, [one.patient for one in data.rows]) for data in (training, held_out)
    ]
    made = side(synthetic.images, synthetic.conditions, [str(i) for i in range(len(synthetic))])
    return measure_recognition(real[0], real[1], made)


def _pairs(
    synthetic: Synthetic,
    training: SliceDataset,
    held_out: SliceDataset,
    flagged: npt.NDArray[np.bool_] | None,
    progress: Progress | None,
) -> PairQuality | None:
    """None where images or slices have no masks."""
    if synthetic.masks is None or not training.structures:
        return None
    return measure_pairs(synthetic, training, held_out, flagged, progress=progress)


def _memorisation(
    synthetic: Synthetic,
    training: SliceDataset,
    held_out: SliceDataset,
    planted: int,
    progress: Progress | None,
) -> tuple[Memorisation, npt.NDArray[np.bool_]]:
    """The metrics, and which of the synthetic images are flagged."""
    report = None if progress is None else lambda done, total: progress("searching for copies", done, total)
    names = [[one.patient for one in data.rows] for data in (training, held_out)]
    images = PreparedImages(training)
    calibration = calibrate(images, names[0], PreparedImages(held_out), names[1], report)
    check = check_images(calibration.gate, synthetic.images, progress=report)
    alarms = np.array(list(calibration.false_alarms.values()))
    patients = list(calibration.false_alarms)
    found = Memorisation(
        threshold=calibration.gate.threshold,
        flagged=shown(estimate_mean(check.flagged, [str(i) for i in range(len(synthetic))]), "images"),
        false_alarms=shown(estimate_mean(alarms, patients), "held-out patients"),
        copies_found={
            kind: shown(share, "training patients")
            for kind, share in find_planted_copies(calibration.gate, images, count=planted).items()
        },
        pairs=[(int(a), int(b)) for a, b in check.pairs()],
    )
    return found, check.flagged
