"""Early stopping by the loss on held-out patients."""

from __future__ import annotations

import math

from medvar_engine.train.early_stopping import Patience


def test_it_counts_validations_without_a_lower_loss() -> None:
    """A run would stop while it improves, or never."""
    assert Patience().after(3.0).after(2.0) == Patience(2.0)
    assert Patience().after(2.0).after(3.0).after(2.0) == Patience(2.0, 2)


def test_a_loss_that_is_not_a_number_is_never_the_best() -> None:
    """One bad validation would end a run that improves."""
    assert Patience().after(2.0).after(math.nan).after(1.0) == Patience(1.0)
    assert Patience().after(math.nan).after(3.0).after(2.0) == Patience(2.0)
    assert Patience(math.nan, 3).after(3.0) == Patience(3.0)  # from a checkpoint of an earlier version
