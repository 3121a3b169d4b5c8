"""Token pyramids of prepared slices for stage ``transformer``, encoded once and read as a memory map.

A folder holds ``pyramids-train.npy`` and ``pyramids-held-out.npy``, uint16 arrays (variants, N, L), and for each a JSON
file that records its origin. The first variant contains the unchanged slices, the others are augmented.

Tokens are indices of codes. Pyramids are therefore valid for every tokenizer with the same codebook: the file that
encoded them, a bundle exported from it, weights read back from that bundle, and a copy of which only the decoder was
trained further.
"""

from __future__ import annotations

import functools
import json
import shutil
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import MANIFEST
from medvar_engine.data.work_units import work_folder
from medvar_engine.errors import MedvarError
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.grey import as_grey
from medvar_engine.models.weight_files import load_tokenizer
from medvar_engine.parallel import run
from medvar_engine.storage import replace_file, sha256, sha256_of, whole_file, writing
from medvar_engine.tokens.codebook import codebook_digest
from medvar_engine.train.augment import augment
from medvar_engine.train.batches import in_hounsfield
from medvar_engine.train.image_batches import inputs_of
from medvar_engine.types import FloatArray, IntArray
from medvar_engine.untrusted import plain_json
from medvar_engine.untrusted.plain_npy import open_npy

Pyramids = npt.NDArray[np.uint16]
Encode = Callable[[FloatArray], IntArray]
"""A function that encodes images (B, 1, H, W) in [-1, 1] as tokens (B, L)."""
Progress = Callable[[str, int, int], None]
"""Called with the name of the split, the number of encoded slices, and the number of all slices."""

NAMES = {"train": "train", "test": "held-out"}
_BATCH = 64  # slices that share a random generator: another value would change the augmentations
_BLOCK = 16 * _BATCH  # slices of one work unit
_KEPT = "finished blocks are kept; free some disk space, and run the same command again to continue"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How slices are encoded. ``open_encoder`` loads the tokenizer in the process that does the work.

    ``tokenizer`` is the digest of the tokenizer, ``codebook`` that of its codebook. Augmentation runs on ``device``.
    All fields must be picklable when other processes do the work.
    """

    data: SliceDataset
    open_encoder: Callable[[], Encode]
    tokenizer: str  # sha256
    codebook: str
    variants: int
    seed: int
    device: str = "cpu"
    masks: bool = False  # encode pairs of image and mask

    @property
    def note(self) -> dict[str, Any]:
        """Everything that the pyramids depend on, for the JSON file: equal notes mean equal pyramids."""
        return {
            "tokenizer": self.tokenizer,
            "codebook": self.codebook,
            "slices": sha256(self.data.folder / MANIFEST),
            "variants": self.variants,
            "seed": self.seed,
            "count": len(self.data),
        }


@dataclass(frozen=True, slots=True)
class _Block:
    encoding: Encoding
    start: int
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{self.start:010d}.npy"


def write_pyramids(
    folder: Path,
    encoding: Encoding,
    *,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Pyramids:
    """The pyramids (variants, N, L) of one split as a memory map; they are encoded unless ``folder`` contains them.

    ``workers`` and ``cluster`` are those of `medvar_engine.parallel.run`. After an interruption, the same call
    continues the work. Raises `MedvarError` when they cannot be written.
    """
    path = _path(folder, encoding.data)
    note, made_of = path.with_suffix(".json"), json.dumps(encoding.note)
    if path.is_file() and note.is_file() and note.read_text(encoding="utf-8") == made_of:
        return _open(path)
    with work_folder(path) as parts:
        blocks_folder = parts / sha256_of(made_of)
        with writing(path, _KEPT):
            folder.mkdir(parents=True, exist_ok=True)
            blocks_folder.mkdir(exist_ok=True)
        count = len(encoding.data)
        blocks = [_Block(encoding, start, blocks_folder) for start in range(0, count, _BLOCK)]
        done = 0
        with closing(run(_encode_block, blocks, workers=workers, cluster=cluster)) as outcomes:
            for _, outcome in outcomes:
                if isinstance(outcome, MedvarError):
                    raise outcome
                done += outcome
                if progress is not None:
                    progress(path.stem, done, count)
        with writing(path, _KEPT):
            note.unlink(missing_ok=True)
            _gather(path, blocks)
            replace_file(note, made_of.encode())
        shutil.rmtree(parts, ignore_errors=True)
    return _open(path)


def read_pyramids(folder: Path, data: SliceDataset, tokenizer: Path, variants: int) -> Pyramids:
    """Read the first ``variants`` pyramids of the slices of ``data``, which `write_pyramids` wrote to ``folder``.

    Raises `MedvarError` when they belong to other slices or another codebook, or when there are fewer variants.
    """
    path = _path(folder, data)
    again = "Encode the slices with this tokenizer: `medvar encode SLICES TOKENIZER OUT`."
    try:
        note = plain_json.read(path.with_suffix(".json"))
        found = {name: note[name] for name in ("tokenizer", "slices", "variants", "count")}
        pyramids = _open(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MedvarError(f"{folder} does not contain complete pyramids of {data.folder} ({error}). {again}") from error
    if found["slices"] != sha256(data.folder / MANIFEST):
        raise MedvarError(f"{path} was not made from {data.folder}, or the slices have changed since (sha256). {again}")
    if found["tokenizer"] != sha256(tokenizer) and note.get("codebook") != codebook_of(load_tokenizer(tokenizer)):
        raise MedvarError(
            f"{path} contains tokens of another tokenizer than {tokenizer}: the codebooks differ. {again}"
        )
    if pyramids.ndim != 3 or pyramids.shape[:2] != (found["variants"], found["count"]) or len(data) != found["count"]:
        raise MedvarError(f"{path} contains an array {pyramids.shape}, which contradicts its JSON file. {again}")
    if variants > len(pyramids):
        raise MedvarError(f"{path} contains {len(pyramids)} variants, but variants={variants} are needed. {again}")
    return pyramids[:variants]


@functools.lru_cache(maxsize=1)
def tokenizer_encoder(path: Path, digest: str, device: str) -> Encode:
    """The encoder of a trained tokenizer (.safetensors) with that sha256, cached for the next work unit."""
    return encoder_of(as_grey(load_tokenizer(path)).to(device))


def codebook_of(tokenizer: AnyTokenizer) -> str:
    """The `codebook_digest` of a tokenizer."""
    return codebook_digest(tokenizer.quantizer.codes)


def encoder_of(tokenizer: AnyTokenizer) -> Encode:
    """The encoder of a loaded tokenizer."""
    device = next(tokenizer.parameters()).device

    @torch.no_grad()
    def encode(images: FloatArray) -> IntArray:
        tokens: IntArray = torch.cat(tokenizer.encode(torch.from_numpy(images).to(device)), 1).cpu().numpy()
        return tokens

    return encode


def _encode_block(block: _Block) -> int:
    """Encode a block of slices in all variants, unless its file exists; returns the number of its slices."""
    encoding = block.encoding
    index = np.arange(block.start, min(block.start + _BLOCK, len(encoding.data)))
    if block.path.is_file():
        return len(index)
    encode = encoding.open_encoder()
    variants = [
        np.concatenate(
            [_encode_batch(encoding, encode, index[i : i + _BATCH], variant) for i in range(0, len(index), _BATCH)]
        )
        for variant in range(encoding.variants)
    ]
    # On a cluster, two processes may encode the same block.
    temporary = block.path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    with writing(block.folder, _KEPT), whole_file(block.path, temporary) as file:
        np.save(file, np.stack(variants), allow_pickle=False)
    return len(index)


def _encode_batch(encoding: Encoding, encode: Encode, index: npt.NDArray[np.int64], variant: int) -> Pyramids:
    images = inputs_of(encoding.data, index, encoding.masks)
    if variant:
        torch.manual_seed((encoding.seed * 1_000_003 + variant) * 1_000_003 + int(index[0]))
        hounsfield = torch.from_numpy(in_hounsfield(encoding.data, index))
        pixels = torch.from_numpy(images).to(encoding.device)
        images = augment(pixels, hounsfield, masks=encoding.masks).cpu().numpy()
    tokens = encode(images)
    if tokens.max() > np.iinfo(np.uint16).max:
        raise MedvarError(f"Token {tokens.max()} does not fit into 16 bits: the vocabulary must be at most 65536.")
    return tokens.astype(np.uint16)


def _gather(path: Path, blocks: list[_Block]) -> None:
    """Write all blocks to one file sequentially, because writing to a memory map crashes on a full disk."""
    parts = [open_npy(block.path) for block in blocks]
    variants, _, tokens = parts[0].shape
    about = {"descr": "<u2", "fortran_order": False, "shape": (variants, sum(part.shape[1] for part in parts), tokens)}
    with whole_file(path, path.with_name(f".{path.name}.tmp")) as file:
        np.lib.format.write_array_header_1_0(file, about)
        for variant in range(variants):
            for part in parts:
                file.write(part[variant].astype("<u2").tobytes())


def _path(folder: Path, data: SliceDataset) -> Path:
    return folder / f"pyramids-{NAMES[str(data.split)]}.npy"


def _open(path: Path) -> Pyramids:
    pyramids: Pyramids = open_npy(path)
    return pyramids
