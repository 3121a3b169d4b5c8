"""Findings of an evaluation as sentences, derived from the metrics in the report."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.evaluate.evaluation import ByEncoder, Evaluation
from medvar_engine.evaluate.images.baseline_images import JUDGED, Baseline
from medvar_engine.evaluate.learning_curve import BOTH, REAL
from medvar_engine.evaluate.metrics.metric_table import MetricValue
from medvar_engine.evaluate.pairs.segmentation_utility import SegmentationUtility

_NEAR = 2.0  # factor over the distance of real slices of other patients
_FITTING = 0.9  # required share of the Dice of held-out pairs
_ROUGH = 1.3  # factor over the difference of neighbouring slices in real volumes
_ENOUGH = 0.95  # required share of planted copies that are found


@dataclass(frozen=True, slots=True)
class Sentence:
    """One finding; a ``grave`` one is a warning."""

    title: str
    text: str
    grave: bool


def findings(found: Evaluation) -> list[Sentence]:
    """The findings, warnings first."""
    sentences = [_quality(one) for one in found.encoders]
    sentences += [_diversity(found), *_copies(found), *_members(found), _masks(found), _stacks(found)]
    sentences += [_usefulness(found), _baselines(found)]
    return sorted(filter(None, sentences), key=lambda one: not one.grave)


def _quality(one: ByEncoder) -> Sentence | None:
    """The quality relative to real slices and the baselines; None if the encoder ranks the baselines wrongly."""
    if not ranked_rightly(one):
        return None
    place = {name: row["frechet"].value for name, row in one.rows.items()}
    ours, real = place.get(JUDGED), place.get(Baseline.REAL)
    if ours is None or real is None:
        return None
    worse = [name for name, value in place.items() if name != JUDGED and value is not None and value < ours]
    name, ratio = str(one.encoder["name"]), ours / max(real, 1e-12)
    details = f"Fréchet distance {ours:.3g}, {ratio:.1f} times that of real slices of other patients ({real:.3g})"
    if "real, blurred" in worse:
        return Sentence(f"{name} rates them worse than blurred slices", f"{details}.", True)
    if ratio > _NEAR:
        return Sentence(
            f"{name} distinguishes them from real slices", f"{details}; blurred slices have a larger distance.", True
        )
    if ratio < 1:
        why = "closer to the training slices than new patients, as expected of a model of few patients, sharp or not"
        return Sentence(f"{name} rates them close to the training slices", f"{details}: {why}.", False)
    return Sentence(f"{name} hardly distinguishes them from slices of other patients", f"{details}.", False)


def _diversity(found: Evaluation) -> Sentence | None:
    alike = [name for name, pair in found.similarity.items() if _value(pair[JUDGED]) > _value(pair["training"]) + 0.1]
    if not found.similarity:
        return None
    if alike:
        text = (
            f"Pairs of synthetic images are more similar than pairs of training slices for {', '.join(alike)} "
            "(MS-SSIM)."
        )
        return Sentence("Images of some labels are too similar to each other", text, True)
    text = "Pairs of synthetic images are not more similar than pairs of training slices, for any label (MS-SSIM)."
    return Sentence("The images differ from each other", text, False)


def _copies(found: Evaluation) -> list[Sentence]:
    one = found.memorisation
    if one is None:
        return [Sentence("Copies were not searched for", "The search for copies was switched off.", True)]
    share, alarms = _value(one.flagged), _value(one.false_alarms)
    flagged = f"{share:.1%} of the images are closer to a training slice than 95 % of slices of new patients are"
    sentences = [
        Sentence("The model memorises", f"{flagged}; for new patients, {alarms:.1%} would be flagged.", True)
        if share > 2 * max(alarms, 0.05)
        else Sentence("Few images look like copies", f"{flagged}. This does not guarantee privacy.", False)
    ]
    if poor := {kind: _value(found) for kind, found in one.copies_found.items() if _value(found) < _ENOUGH}:
        details = ", ".join(f"{kind} {share:.0%}" for kind, share in poor.items())
        sentences.append(
            Sentence("Some planted copies are not found", f"Share of changed copies that were found: {details}.", True)
        )
    return sentences


def _members(found: Evaluation) -> list[Sentence]:
    one = found.membership
    if one is None:
        return []
    auc = f"{one.auc:.2f} ({one.low:.2f} to {one.high:.2f}; 0.5 is chance)"
    grave = one.low > 0.6
    title = "Training slices can be identified" if grave else "Training slices are hard to identify"
    text = f"The likelihood of their tokens separates training slices from those of new patients with an AUC of {auc}."
    return [Sentence(title, text, grave)]


def _usefulness(found: Evaluation) -> Sentence | None:
    """Whether adding synthetic images improves a network; a difference within the interval does not count."""
    one = found.utility
    if one is None:
        return None
    if isinstance(one, SegmentationUtility):
        network, what = "segmenter", "Dice of segmenting held-out patients"
    else:
        network, what = "classifier", f"Balanced accuracy of classifying the {one.task} of held-out patients"
    metrics = one.metrics
    details = ", ".join(f"from {name} images {_with_interval(metric)}" for name, metric in metrics.items())
    text = f"{what}, trained {details}."
    real, both = metrics[REAL].value, metrics[BOTH]
    if real is not None and both.high is not None and both.high < real:
        return Sentence(f"Added to real slices, they make a {network} worse", text, True)
    if real is not None and both.low is not None and both.low > real:
        return Sentence(f"Added to real slices, they make a {network} better", text, False)
    return Sentence(f"Added to real slices, they make a {network} neither better nor worse", text, False)


def _masks(found: Evaluation) -> Sentence | None:
    """Whether masks fit their images as well as those of real pairs do, according to a segmenter."""
    one = found.pairs
    if one is None:
        return None
    ours, real = _value(one.synthetic), _value(one.held_out)
    text = (
        f"The Dice between masks and a segmenter trained on real pairs is {_with_interval(one.synthetic)}, compared "
        f"with {_with_interval(one.held_out)} for held-out pairs; {_value(one.mask_copies):.1%} of the masks may be "
        "copies of training masks."
    )
    if ours < _FITTING * real:
        return Sentence("Masks fit their images worse than those of real pairs", text, True)
    return Sentence("Masks fit their images about as well as those of real pairs", text, False)


def _stacks(found: Evaluation) -> Sentence | None:
    """Whether neighbouring slices of stacks are as alike as those of real volumes."""
    if not found.stacks:
        return None
    ratios = {name: one.ratio for name, one in found.stacks.items()}
    listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    text = f"Mean difference between neighbouring slices, relative to real volumes at the same distance: {listed}."
    if max(ratios.values()) > _ROUGH:
        return Sentence("Stacks are rougher than real volumes", text, True)
    return Sentence("Stacks are about as smooth as real volumes", text, False)


def _baselines(found: Evaluation) -> Sentence | None:
    """A warning if an encoder ranks the baselines wrongly, so that its metrics are not reliable."""
    wrong = [str(one.encoder["name"]) for one in found.encoders if not ranked_rightly(one)]
    if not wrong:
        return None
    text = (
        f"{', '.join(wrong)} does not rank real slices of other patients before blurred ones, and these before noise. "
        "With so few held-out patients, or with this encoder, the distances have little meaning."
    )
    return Sentence("The metrics contradict the baselines", text, True)


def ranked_rightly(one: ByEncoder) -> bool:
    """Whether the Fréchet distance ranks real slices first, noise last, and repeated images below real slices."""

    def distance(name: str) -> float:
        return _value(one.rows[name]["frechet"])

    real, noise = distance(Baseline.REAL), distance(Baseline.NOISE)
    return real < distance(Baseline.BLURRED) < noise and real < distance(Baseline.REPEATED)


def _with_interval(metric: MetricValue) -> str:
    if metric.low is None or metric.high is None:
        return f"{_value(metric):.3f}"
    return f"{_value(metric):.3f} ({metric.low:.3f} to {metric.high:.3f})"


def _value(metric: MetricValue) -> float:
    """The value, or NaN without one, for which every comparison is false."""
    return float("nan") if metric.value is None else metric.value
