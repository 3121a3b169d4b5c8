from __future__ import annotations

from typing import Any

from medvar_engine.evaluate.report.measures import measures


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def texture(images: int, gradient: float, *octaves: float) -> dict[str, Any]:
    return {"images": images, "gradient": gradient, "octaves": octaves}


def test_every_measure_has_its_value_and_a_reference() -> None:
    """Whoever judges a model would look at its strong sides only."""
    labels = {f"label {i}": texture(10 + i, 0.8 + i / 100, 1.0, 0.4 + i / 10) for i in range(7)}
    new = texture(50, 9.0, 9.0, 9.0) | {"against": "training"}  # not of held-out people, so it does not count
    found = measures(
        {
            "reconstruction": {"full": figure(29.3, 28.0, 30.1), "by_scale": [17.0, 26.9], "finest_drawn": figure(2.4)},
            "texture": {"all images": texture(77, 0.95, 1.1, 0.8), "new": new} | labels,
            "encoders": [
                {"encoder": {"name": "descriptor"}, "to_held_out": {"synthetic": 3.0, "training": 2.0}},
                {"encoder": {"name": "simclr"}, "to_held_out": None},
            ],
            "recognition": {"classes": ["a", "b"], "synthetic": figure(0.97, 0.9, 0.99), "held_out": figure(0.85)},
            "memorisation": {"flagged": figure(0.02), "false_alarms": figure(0.05)},
            "membership": {"auc": 0.59, "low": 0.43, "high": 0.74},
            "seconds_an_image": 0.221,
        }
    )
    assert found == [
        ("reconstruction of held-out slices, dB", "29.3 (28 to 30.1)", ""),
        ("previews after each scale, dB", "17.0, 26.9", ""),
        ("loss by drawing the finest scale, dB", "2.4", "0"),
        ("mean gradient, synthetic / real", "0.95 (0.81 to 0.86 in 6 labels)", "1"),
        ("power at 1 to 2 periods per image, synthetic / real", "1.10 (1.00 to 1.00 in 6 labels)", "1"),
        ("power at 2 to 4 periods per image, synthetic / real", "0.80 (0.50 to 1.00 in 6 labels)", "1"),
        ("Fréchet distance to held-out slices by descriptor", "3, 1.50 times that of training slices", "2"),
        (
            "a classifier of real slices finds the requested region and plane (2 classes)",
            "97.0% (90.0% to 99.0%)",
            "85.0% of held-out slices",
        ),
        ("flagged as copies", "2.0%", "5.0% of held-out slices"),
        ("AUC of membership inference by likelihood", "0.59 (0.43 to 0.74)", "0.5"),
        ("time per image, s", "0.22", ""),
    ]


def test_texture_is_judged_beside_that_of_training_slices() -> None:
    """Held-out slices of few patients can differ from all other patients: the model would take the blame."""
    chest = texture(20, 0.9, 0.8) | {"training": texture(50, 1.2, 1.3)}
    brain = texture(10, 0.7, 0.6) | {"training": None}
    every = texture(30, 0.8, 0.7) | {"training": texture(99, 1.1, 0.9)}
    found = measures({"texture": {"all images": every, "chest": chest, "brain": brain}, "encoders": []})
    assert found == [
        (
            "mean gradient, synthetic / real",
            "0.80 (0.70 to 0.90 in 2 labels)",
            "1.10 (1.20 in 1 label) of training slices",
        ),
        (
            "power at 1 to 2 periods per image, synthetic / real",
            "0.70 (0.60 to 0.80 in 2 labels)",
            "0.90 (1.30 in 1 label) of training slices",
        ),
    ]


def test_reports_of_earlier_versions_have_fewer() -> None:
    """The card of a bundle that was evaluated before could not be written any more."""
    assert measures({"encoders": [{"encoder": {"name": "descriptor"}}]}) == []
