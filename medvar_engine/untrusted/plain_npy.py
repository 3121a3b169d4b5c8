"""NumPy files of strangers, as memory maps: nothing is taken for what a header only claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def open_npy(path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file as a read-only memory map.

    Raises `OSError` when it cannot be opened, and `ValueError` when it is damaged, holds objects or claims more
    than it holds.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise ValueError("it is not a regular file")
    try:
        # Not `numpy.load`, which opens archives too.
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a header is Python's text, and fails in as many ways
        raise ValueError(f"its header cannot be read ({error})") from error
