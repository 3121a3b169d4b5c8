from __future__ import annotations

import pytest

from medvar_engine.errors import MedvarError
from medvar_engine.tokens.schedule import ScaleSchedule


def test_counts_tokens_of_the_published_model() -> None:
    """Imported VAR weights would not fit: they expect 680 tokens with these offsets."""
    schedule = ScaleSchedule((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
    assert schedule.tokens == 680
    assert schedule.offsets == (0, 1, 5, 14, 30, 55, 91, 155, 255, 424, 680)
    assert schedule.latent_side == 16
    assert len(schedule) == 10
    assert schedule[3] == 4
    assert str(ScaleSchedule((1, 2))) == "1, 2"


@pytest.mark.parametrize("sides", [(), (0, 1), (2, 2), (3, 2), (-1,)])
def test_refuses_what_is_not_coarse_to_fine(sides: tuple[int, ...]) -> None:
    """A damaged bundle would fail far from its cause."""
    with pytest.raises(MedvarError, match="increasing"):
        ScaleSchedule(sides)


def test_names_the_scales_there_are() -> None:
    """Somebody who asks for scale 3 of 3 would get an index error that says nothing."""
    schedule = ScaleSchedule((1, 2, 3))
    assert schedule.check_scale(2) == 2
    for k in (-1, 3):
        with pytest.raises(MedvarError, match=rf"Scale {k} is out of range.*0…2.*1, 2, 3"):
            schedule.check_scale(k)


def test_equal_schedules_are_equal_whatever_they_were_made_of() -> None:
    """A trace from JSON (lists) would not be recognised as this model's (tuples)."""
    assert ScaleSchedule([1, 2]) == ScaleSchedule((1, 2))  # type: ignore[arg-type]
    assert hash(ScaleSchedule([1, 2])) == hash(ScaleSchedule((1, 2)))  # type: ignore[arg-type]
