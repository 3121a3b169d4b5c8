"""The part of ``medvar generate`` that makes a synthetic dataset."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from medvar_engine.cli.console import needs, print_message, print_result, progress

if TYPE_CHECKING:
    from medvar_engine.bundle.read import Bundle
    from medvar_engine.memorisation.copy_risk import CopyPolicy
    from medvar_engine.sets.make_set import Resources
    from medvar_engine.sets.mixture import Mixture
    from medvar_engine.sets.set_plan import SetFormat
    from medvar_engine.write.marks import Marks


def generate_set(
    out: Path,
    bundle: Bundle,
    mixture: Mixture,
    count: int | None,
    kind: SetFormat,
    computing: Resources,
    copy_policy: CopyPolicy | None,
    marks: Marks,
) -> None:
    """Make or continue a synthetic dataset, and print its progress."""
    from medvar_engine.sets.make_set import make_set
    from medvar_engine.sets.set_plan import UNIT_IMAGES

    wanted = count or mixture.total or 1
    for condition in mixture.folders():
        if bundle.slice_types and bundle.slice_type(condition) is None:
            print_message(f"note: {bundle.name} was not trained on any slice of {condition}")
    print_message(f"{wanted} images by {bundle.name} as {kind}")
    with progress() as bar:
        task = bar.add_task("the first unit", total=wanted)
        begun = time.monotonic()

        def advance(there: int, made: int) -> None:
            # The estimate of the bar ignores everything older than half a minute, but a unit may take longer.
            rate = made / (time.monotonic() - begun)
            left = f", {timedelta(seconds=round((wanted - there) / rate))} left" if rate else ""
            bar.update(task, completed=there, description=f"{rate:.3g} images/s{left}" if made else "found whole")

        try:
            manifest = make_set(
                out,
                mixture,
                wanted,
                bundle,
                kind=kind,
                computing=computing,
                copy_policy=copy_policy,
                marks=marks,
                unit_images=max(UNIT_IMAGES, computing.batch),  # at most one unit is processed together
                progress=advance,
            )
        except ImportError as error:
            raise needs("sets", error) from error
        except KeyboardInterrupt:
            print_message(f"{out} is not complete. Run the same command again to continue.")
            raise
    for condition, images in manifest.plan.counts(manifest.withheld).items():
        print_message(f"{images:>8}  {condition}")
    if manifest.flagged:
        what = "withheld" if manifest.withheld else "flagged"
        print_message(f"{len(manifest.flagged):>8}  {what}: possible copies of training slices; see set.json")
    print_result(out)
