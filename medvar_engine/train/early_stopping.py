"""Early stopping: a run ends when the loss on held-out patients no longer improves."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """The best held-out loss so far, and the number of validations since then."""

    best: float | None = None
    waited: int = 0

    def after(self, loss: float) -> Patience:
        """The state after one more validation. A loss that is not a number is never the best one."""
        better = not math.isnan(loss) if self.best is None or math.isnan(self.best) else loss < self.best
        return Patience(loss) if better else Patience(self.best, self.waited + 1)
