"""Time to augment a batch of 32 slices of 128×128 pixels, against kornia (``pip install kornia``), on one thread.

python benchmarks/augmentation.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from medvar_engine.train.augment import augment

RUNS = 9


def seconds(change: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Median of CPU time, which other work on the machine does not change."""
    change(images)
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        change(images)
        times.append(time.process_time() - start)
    return median(times)


def main() -> None:
    """Print both and their ratio."""
    from kornia.augmentation import AugmentationSequential, RandomAffine, RandomElasticTransform, RandomGamma

    torch.set_num_threads(1)
    images = torch.rand(32, 1, 128, 128)
    library = AugmentationSequential(
        RandomAffine(7, translate=(0.03, 0.03), scale=(0.88, 1.12), p=1.0),
        RandomElasticTransform(kernel_size=(33, 33), sigma=(9.0, 9.0), alpha=(0.5, 0.5), p=1.0),
        RandomGamma((0.78, 1.28), (1.0, 1.0), p=1.0),
        data_keys=["input"],
    )
    ours, theirs = seconds(augment, images), seconds(library, images)
    print(f"ours {ours * 1e3:.0f} ms, kornia without bias field {theirs * 1e3:.0f} ms, ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
