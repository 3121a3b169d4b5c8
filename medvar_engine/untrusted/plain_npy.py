"""Opens untrusted NumPy files as memory maps, so that a false header cannot cause large allocations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvar_engine.storage import check_regular


def open_npy(path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file as a read-only memory map.

    Raises `OSError` when it cannot be opened, and `ValueError` when it is damaged, contains Python objects, or is
    shorter than its header says.
    """
    check_regular(path)
    try:
        # Not `numpy.load`, which also opens archives.
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # parsing the header as a Python literal can raise many exceptions
        raise ValueError(f"its header cannot be read ({error})") from error
