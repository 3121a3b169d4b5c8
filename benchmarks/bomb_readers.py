"""The readers that `bombs.py` tries, and the list of bombs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medvar_engine.errors import MedvarError

MIB = 2**20
PACKED = -1  # what a compressed scan of its size may unfold to


Read = Callable[[Path], object]
Make = Callable[[Path], Path]


@dataclass(frozen=True)
class Bomb:
    """What it is, the function that writes it into a folder, its reader, and the bytes that it may honestly hold."""

    name: str
    make: Make
    read: Read
    honest: int | None


BOMBS: list[Bomb] = []


def bomb(read: Read, honest: int | None = None) -> Callable[[Make], Make]:
    """Register a bomb, named after its function, for one reader. Without ``honest``, its size counts."""

    def register(make: Make) -> Make:
        BOMBS.append(Bomb(make.__name__.replace("_", " "), make, read, honest))
        return make

    return register


def scan(path: Path) -> None:
    """Everything that `medvar prepare` reads of a folder of scans."""
    from medvar_engine.data.read.scans import find_series

    found, refusals = find_series(path.parent if path.is_file() else path)
    for one in found:
        for volume in one.load():
            assert volume.array.size
    if refusals:
        raise MedvarError("\n".join(map(str, refusals)))


def image(path: Path) -> None:
    """One file that `medvar info`, `replay` and `evaluate` read."""
    from medvar_engine.evaluate.images.file_images import read_slice
    from medvar_engine.write.provenance import read_trace
    from medvar_engine.write.written_mask import read_written_mask

    failed = []
    for read in (read_trace, read_slice, read_written_mask):
        try:
            read(path)
        except MedvarError as error:
            failed.append(str(error))
    if failed:
        raise MedvarError(failed[0])


def single(path: Path) -> None:
    """A single slice of an index."""
    from medvar_engine.data.read.read_slice import read_grey, read_single_dicom

    if path.suffix == ".dcm":
        read_single_dicom(path, "MR")
    else:
        read_grey(path)


def session(path: Path) -> None:
    """A session file of the plugin."""
    from napari_medvar.session.session_file import read_session

    read_session(path)


def trace(path: Path) -> None:
    """A trace beside an image."""
    from medvar_engine.generate.trace import Trace
    from medvar_engine.untrusted import plain_json

    try:
        text = json.dumps(plain_json.read(path))
    except ValueError as error:
        raise MedvarError(str(error)) from error
    Trace.from_json(text)


def recipe(path: Path) -> None:
    """A recipe, and a mixture."""
    from medvar_engine.data.recipe.recipe_file import load_recipe

    load_recipe(path)


def index(path: Path) -> None:
    """An index of scans, and of slices."""
    from medvar_engine.data.recipe.index_file import read_index
    from medvar_engine.data.recipe.slice_index_file import is_slice_index, read_slice_index

    if is_slice_index(path.parent):
        read_slice_index(path.parent)
    read_index(path.parent)


def weights(path: Path) -> None:
    """A file of weights."""
    from medvar_engine.models.weight_files import load_tokenizer

    load_tokenizer(path)


def encoder(path: Path) -> None:
    """An encoder in ONNX."""
    from medvar_engine.encoders.onnx_encoder import OnnxEncoder
    from medvar_engine.encoders.preprocessing import Preprocessing

    OnnxEncoder(path.read_bytes(), Preprocessing(size=32), name="a")


def npy(path: Path) -> None:
    """An array of a set or of shards."""
    from medvar_engine.untrusted.plain_npy import open_npy

    try:
        open_npy(path).max()
    except ValueError as error:
        raise MedvarError(str(error)) from error


def slices(path: Path) -> None:
    """A folder of shards."""
    from medvar_engine.data.dataset import SliceDataset

    SliceDataset(path.parent).batch([0])


def message(path: Path) -> None:
    """A message of the server's protocol."""
    from medvar_engine.remote.messages import unpack

    unpack(path.read_bytes())
