"""Codes of a bundle: which tokens are alike, and what a damaged file of them does."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import CODEBOOK, MANIFEST, Bundle, find_bundle, manifest_digest, read_bundle
from medvar_engine.errors import MedvarError
from medvar_engine.tokens.codebook import nearest_codes


def with_codebook(bundle: Path, folder: Path, content: bytes | None) -> Bundle:
    """A copy of a bundle whose codebook is ``content``, with the right hashes; None leaves it out."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if content is None:
        (folder / CODEBOOK).unlink()
        del manifest["sha256"][CODEBOOK]
    else:
        (folder / CODEBOOK).write_bytes(content)
        manifest["sha256"][CODEBOOK] = hashlib.sha256(content).hexdigest()
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return read_bundle(folder)


def npy(values: object, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_nearest_codes() -> None:
    """The picker would offer tokens that look like something else, or not the one that is there."""
    codebook = np.array([[0, 0], [3, 4], [0, 1], [0, 0], [9, 9]], dtype=np.float32)
    tokens, distances = nearest_codes(codebook, 3, 4)
    assert tokens.tolist() == [3, 0, 2, 1]
    assert distances.tolist() == [0, 0, 1, 5]
    assert nearest_codes(codebook, 1, 99)[0].tolist()[0] == 1
    assert len(nearest_codes(codebook, 1, 99)[0]) == 5
    with pytest.raises(MedvarError, match=r"0…4"):
        nearest_codes(codebook, 5, 1)
    with pytest.raises(MedvarError, match="1 or more"):
        nearest_codes(codebook, 0, 0)


def test_a_bundle_holds_the_codes_of_its_graphs(tiny_bundle: Path, tiny_onnx: OnnxBackend) -> None:
    """Tokens that are alike in the file would not be in the image."""
    import onnx
    from onnx import numpy_helper

    codebook = read_bundle(tiny_bundle).codebook()
    assert codebook is not None
    graph = onnx.load(tiny_bundle / "accumulate_2.onnx").graph
    (codes,) = (tensor for tensor in graph.initializer if tensor.name == "codebook")
    np.testing.assert_array_equal(codebook, numpy_helper.to_array(codes))
    np.testing.assert_array_equal(tiny_onnx.codebook, codebook)


def test_the_shipped_bundle_has_a_codebook() -> None:
    """The picker would not work in the demo."""
    bundle = read_bundle(find_bundle("demo"))
    codebook = bundle.codebook()
    assert codebook is not None
    assert codebook.shape == (len(bundle.schedule), bundle.vocabulary, bundle.latent_channels)  # each scale has its own


def test_an_older_bundle_opens_without(tiny_bundle: Path, tmp_path: Path) -> None:
    """Models exported by an earlier version could not be used any more."""
    bundle = with_codebook(tiny_bundle, tmp_path / "older", None)
    assert bundle.codebook() is None
    assert OnnxBackend(bundle, device="cpu").codebook is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        npy(np.zeros((24, 4), np.float32))[:-1],
        npy(np.zeros((24, 4), np.float64)),
        npy(np.zeros((4, 24), np.float32)),
        npy(np.full((24, 4), np.nan, np.float32)),
        npy(np.array([[{}] * 4] * 24, dtype=object), allow_pickle=True),
        npy(np.zeros((24, 4), np.float32)).replace(b"(24, 4)", b"(2**9,)"),
        npy(np.zeros((24, 4), np.float32)).replace(b"(24, 4)", b"(9**9, 4)"[:7]),
    ],
    ids=["empty", "cut", "double", "turned", "nan", "pickle", "code", "cut header"],
)
def test_a_wrong_codebook_is_one_clear_error(tiny_bundle: Path, tmp_path: Path, content: bytes) -> None:
    """A stranger's bundle would run code, or crash the picker."""
    bundle = with_codebook(tiny_bundle, tmp_path / "wrong", content)
    with pytest.raises(MedvarError, match=CODEBOOK):
        bundle.codebook()


@given(start=st.binary(max_size=40), rest=st.binary(max_size=200))
def test_random_bytes_give_at_most_an_error(start: bytes, rest: bytes) -> None:
    """A hostile file would crash napari with whatever exception it likes."""

    class Claims(Bundle):
        def read(self, name: str) -> bytes:
            return b"\x93NUMPY\x01\x00" + start + rest

    demo = read_bundle(find_bundle("demo"))
    with pytest.raises(MedvarError):
        Claims(**{name: getattr(demo, name) for name in demo.__dataclass_fields__}).codebook()


def test_a_changed_codebook_is_not_used(tiny_bundle: Path, tmp_path: Path) -> None:
    """A download that broke off would offer nonsense."""
    folder = tmp_path / "changed"
    shutil.copytree(tiny_bundle, folder)
    (folder / CODEBOOK).write_bytes(b"other")
    with pytest.raises(MedvarError, match="sha256 differs"):
        read_bundle(folder).codebook()
