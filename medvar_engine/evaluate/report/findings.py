"""What the figures mean, in sentences; each follows from numbers that the report shows."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.evaluate.evaluation import JUDGED, ByEncoder, Evaluation
from medvar_engine.evaluate.metrics.metric_table import Figure

_NEAR = 2.0  # times the distance of real slices of other people
_ENOUGH = 0.95  # share of planted copies that must be found


@dataclass(frozen=True, slots=True)
class Sentence:
    """One finding; a grave one is a warning."""

    title: str
    text: str
    grave: bool


def verdict(found: Evaluation) -> list[Sentence]:
    """The findings, the gravest first."""
    sentences = [_quality(one) for one in found.encoders]
    sentences += [_diversity(found), *_copies(found), *_members(found), _usefulness(found), _floors(found)]
    return sorted(filter(None, sentences), key=lambda one: not one.grave)


def _quality(one: ByEncoder) -> Sentence | None:
    """Where the images lie between real slices and the floors; nothing by an encoder that ranks the floors wrongly."""
    if not ranked_rightly(one):
        return None
    place = {name: row["frechet"].value for name, row in one.rows.items()}
    ours, real = place.get(JUDGED), place.get("real, other people")
    if ours is None or real is None:
        return None
    worse = [name for name, value in place.items() if name != JUDGED and value is not None and value < ours]
    name, ratio = str(one.encoder["name"]), ours / max(real, 1e-12)
    told = f"Fréchet distance {ours:.3g} against {real:.3g} of real slices of other people, {ratio:.1f} times as much"
    if "real, blurred" in worse:
        return Sentence(f"{name} sees them worse than blurred slices", f"{told}.", True)
    if ratio > _NEAR:
        return Sentence(f"{name} tells them from real slices", f"{told}; blurred slices are farther.", True)
    if ratio < 1:
        why = "nearer to the training slices than new people are, which a model of few people is, sharp or not"
        return Sentence(f"{name} sees them near the training slices", f"{told}: {why}.", False)
    return Sentence(f"{name} hardly tells them from slices of other people", f"{told}.", False)


def _diversity(found: Evaluation) -> Sentence | None:
    alike = [name for name, pair in found.similarity.items() if _value(pair[JUDGED]) > _value(pair["training"]) + 0.1]
    if not found.similarity:
        return None
    if alike:
        text = (
            f"Pairs of synthetic images are more alike than pairs of training slices for {', '.join(alike)} (MS-SSIM)."
        )
        return Sentence("Some kinds of image are all alike", text, True)
    text = "Pairs of synthetic images are no more alike than pairs of training slices, for any label (MS-SSIM)."
    return Sentence("The images differ from each other", text, False)


def _copies(found: Evaluation) -> list[Sentence]:
    one = found.memorisation
    if one is None:
        return [Sentence("Copies were not looked for", "No encoder was trained to find them.", True)]
    share, alarms = _value(one.flagged), _value(one.false_alarms)
    flagged = f"{share:.1%} of the images are nearer to a training slice than 95 % of slices of new people are"
    sentences = [
        Sentence("It memorises", f"{flagged}; of new people themselves {alarms:.1%} would be flagged.", True)
        if share > 2 * max(alarms, 0.05)
        else Sentence("Few images look like copies", f"{flagged}. That is no guarantee of privacy.", False)
    ]
    if poor := {kind: _value(found) for kind, found in one.copies_found.items() if _value(found) < _ENOUGH}:
        told = ", ".join(f"{kind} {share:.0%}" for kind, share in poor.items())
        sentences.append(Sentence("Some planted copies are not found", f"Of copies that were changed: {told}.", True))
    return sentences


def _members(found: Evaluation) -> list[Sentence]:
    one = found.membership
    if one is None:
        return []
    told = (
        f"By the likelihood of its tokens a training slice is told from one of new people with an AUC of {one.auc:.2f}"
    )
    grave = one.low > 0.6
    title = "Whether a slice was trained on can be told" if grave else "Whether a slice was trained on is hard to tell"
    return [Sentence(title, f"{told} ({one.low:.2f} to {one.high:.2f}; 0.5 is a guess).", grave)]


def _usefulness(found: Evaluation) -> Sentence | None:
    """Whether a classifier learns more when synthetic images are added; a difference within the interval is none."""
    one = found.utility
    if one is None:
        return None
    told = ", ".join(f"from {name} images {_with_interval(figure)}" for name, figure in one.accuracy.items())
    text = f"Balanced accuracy of telling the {one.task} of people held out, learned {told}."
    real, both = one.accuracy["real"].value, one.accuracy["real and synthetic"]
    if real is not None and both.high is not None and both.high < real:
        return Sentence("Added to real slices, they make a classifier worse", text, True)
    if real is not None and both.low is not None and both.low > real:
        return Sentence("Added to real slices, they make a classifier better", text, False)
    return Sentence("Added to real slices, they make a classifier neither better nor worse", text, False)


def _floors(found: Evaluation) -> Sentence | None:
    """Whether the figures themselves can be trusted."""
    wrong = [str(one.encoder["name"]) for one in found.encoders if not ranked_rightly(one)]
    if not wrong:
        return None
    text = (
        f"{', '.join(wrong)} does not rank real slices of other people before blurred ones, and these before noise: "
        "with so few people held out, or with this encoder, the distances mean little."
    )
    return Sentence("The figures contradict what is known", text, True)


def ranked_rightly(one: ByEncoder) -> bool:
    """Whether the Fréchet distance puts real slices first, noise last, and the repeated images below the real ones."""

    def distance(name: str) -> float:
        return _value(one.rows[name]["frechet"])

    real, noise = distance("real, other people"), distance("noise")
    return real < distance("real, blurred") < noise and real < distance("four real images, repeated")


def _with_interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{_value(figure):.3f}"
    return f"{_value(figure):.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _value(figure: Figure) -> float:
    """NaN, with which every comparison fails, where there is none."""
    return float("nan") if figure.value is None else figure.value
