"""Bombs in arrays, archives, weights, graphs, texts and tables."""

from __future__ import annotations

import gzip
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
from bomb_readers import MIB, Make, Read, bomb, encoder, index, npy, recipe, scan, session, single, trace, weights
from bombs_of_scans import zeros

from medvar_engine.bundle.read import find_bundle


def npy_of(folder: Path, header: bytes) -> Path:
    """An array with that header."""
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    length = struct.pack("<H", len(padded)) if len(padded) < 65_536 else struct.pack("<I", len(padded))
    version = b"\x01\x00" if len(length) == 2 else b"\x02\x00"
    (folder / "a.npy").write_bytes(b"\x93NUMPY" + version + length + padded + bytes(64))
    return folder / "a.npy"


for reader in (npy, single):

    @bomb(reader)
    def npy_of_huge_shape(folder: Path) -> Path:
        """NPY of huge shape."""
        return npy_of(folder, b"{'descr': '<u2', 'fortran_order': False, 'shape': (1000000, 1000000)}")

    @bomb(reader)
    def npy_of_a_long_header(folder: Path) -> Path:
        """NPY of a long header."""
        return npy_of(folder, b"{'descr': '<u2', 'fortran_order': False, 'shape': (" + b"1," * 8_000_000 + b")}")

    @bomb(reader)
    def npy_of_a_deep_header(folder: Path) -> Path:
        """NPY of a deep header."""
        return npy_of(folder, b"(" * 9000)


@bomb(scan)
def zip_of_zeros(folder: Path) -> Path:
    """ZIP of zeros."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("a.dcm", bytes(1000 * MIB))
    return folder / "a.zip"


@bomb(scan)
def zip_of_overlapping_entries(folder: Path) -> Path:
    """ZIP of overlapping entries."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0.dcm", bytes(50 * MIB))
        one = file.filelist[0]
        for number in range(1, 200):
            other = zipfile.ZipInfo(f"{number}.dcm")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(other, name, getattr(one, name))
            file.filelist.append(other)
            file.NameToInfo[other.filename] = other
    return folder / "a.zip"


@bomb(scan)
def zip_of_many_entries(folder: Path) -> Path:
    """ZIP of many entries."""
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        for number in range(60_000):
            file.writestr(f"{number}", b"")
    return folder / "a.zip"


@bomb(scan)
def zip_of_a_long_list(folder: Path) -> Path:
    """ZIP whose list names one empty entry very often."""
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr("a", b"")
    content = (folder / "a.zip").read_bytes()
    listed, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entries = content[listed:end] * 1_500_000
    last = content[end : end + 12] + struct.pack("<2IH", len(entries), listed, 0)
    (folder / "a.zip").write_bytes(content[:listed] + entries + last)
    return folder / "a.zip"


@bomb(scan)
def tar_of_many_entries(folder: Path) -> Path:
    """Tar of many entries."""
    with tarfile.open(folder / "a.tar.gz", "w:gz", compresslevel=1) as file:
        for number in range(100_000):
            file.addfile(tarfile.TarInfo(f"{number}"))
    return folder / "a.tar.gz"


@bomb(scan)
def tar_of_zeros(folder: Path) -> Path:
    """Tar of zeros."""
    entry = tarfile.TarInfo("a.dcm")
    entry.size = 1000 * MIB
    return zeros(folder / "a.tar.gz", entry.tobuf(), 1000 * MIB)


@bomb(scan)
def tar_with_a_long_name(folder: Path) -> Path:
    """Tar with a long name."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1000 * MIB
    return zeros(folder / "a.tar.gz", entry.tobuf(), 1000 * MIB)


@bomb(session, honest=64 * MIB)
def session_of_zeros(folder: Path) -> Path:
    """Session of zeros."""
    return zeros(folder / "a.medvar", b"", 1024 * MIB)


TEXTS = {
    "json_nested_deeply": "[" * 40_000_000,
    "json_of_many_lists": "[" + "[]," * 13_000_000 + "1]",
    "json_of_many_floats": "[" + "1e1," * 10_000_000 + "1]",
    "json_of_many_numbers": "[" + "1000," * 8_000_000 + "1]",
    "json_of_as_many_numbers_as_are_read": "[" + "2000000000," * 5_900_000 + "1]",
    "json_of_as_many_long_numbers_as_fit": "[" + "2000000000000000000," * 3_300_000 + "1]",
    "json_of_many_texts": "[" + '"ab",' * 8_000_000 + "1]",
    "json_of_many_keys": "{" + ",".join(f'"{number:x}":1' for number in range(4_000_000)) + "}",
    "json_of_one_long_number": "1" * 40_000_000,
    "json_of_escapes": '"' + "\\u00e9" * 6_000_000 + '"',
}


def file_bomb(read: Read, file_name: str, name: str, content: bytes, honest: int | None = None) -> None:
    """Register a bomb that is one file of this ``content``."""

    def make(folder: Path) -> Path:
        """Write it."""
        (folder / file_name).write_bytes(content)
        return folder / file_name

    make.__name__ = name
    bomb(read, honest)(make)


for title, text in TEXTS.items():
    # A number of four characters is one of eight bytes.
    file_bomb(trace, "a.json", title, text.encode(), 2 * len(text) if "number" in title else None)
    file_bomb(session, "a.medvar", f"session: {title}", gzip.compress(text.encode(), 1), 64 * MIB)


def yaml(name: str, text: str) -> None:
    """Register a bomb in YAML."""
    file_bomb(recipe, "a.yaml", name, text.encode())


ALIASES = "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghi"))
yaml("yaml_of_aliases", "a: &a [x, x]\n" + ALIASES)
yaml("yaml_nested_deeply", "[" * 100_000)
yaml("yaml_of_many_lists", "notes: [" + "[]," * 80_000 + "]")
yaml("yaml_of_many_lines", "\n".join(f"a{number}: {number}" for number in range(20_000)))
yaml("yaml_of_a_long_number", "a: " + "1" * 250_000)
yaml("yaml_of_base_sixty", "a: " + "1:" * 120_000 + "1")
yaml("yaml_of_merges", "a: &a {x: 1}\nb: {<<: [" + "*a," * 10_000 + "]}")
yaml("yaml_of_a_long_range", "name: a\nentries: [{files: ['{case}'], parts: {case: 1-999999999999}}]")
yaml("yaml_of_a_slow_pattern", "name: a\nentries: [{files: ['" + "**/" * 2000 + "a']}]")


def table(name: str, text: str) -> None:
    """Register a bomb in CSV."""
    file_bomb(index, "index.csv", name, text.encode())


HEAD = "path,patient,modality,region,plane,contrast,spacing_mm,low,high,unit,split,set,source,licence"
table("table_of_many_empty_rows", HEAD + "\n" + ",\n" * 8_000_000)
table("table_of_many_short_rows", HEAD + "\n" + "a\n" * 4_000_000)
table("table_of_many_columns", HEAD + ",x" * 4_000_000 + "\n" + "1,2\n" * 100)
table("table_of_one_long_cell", HEAD + "\n" + "a" * 50_000_000)
table("table_of_an_open_quote", HEAD + '\n"' + "a,\n" * 10_000_000)
table("table_of_scans_of_short_rows", "path,patient,modality,region\n" + "a,b,CT,c\n" * 2_000_000)


def weight_bomb(name: str, header: bytes, body: bytes = b"") -> None:
    """Register a file of weights with that header."""
    file_bomb(weights, "a.safetensors", name, struct.pack("<Q", len(header)) + header + body)


def said(**config: Any) -> bytes:
    """A header with a configuration."""
    about = {"medvar": json.dumps({"kind": "tokenizer", "config": config})}
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return json.dumps({"__metadata__": about, "a": one}).encode()


DEFAULTS = {"image_size": 32, "schedule": [1, 2, 4], "vocabulary": 64, "latent_channels": 4, "channels": [8, 16]}
weight_bomb("weights_of_a_huge_shape", b'{"a":{"dtype":"F32","shape":[4294967296,4],"data_offsets":[0,16]}}', bytes(16))
weight_bomb(
    "weights_of_many_tensors",
    (
        "{" + ",".join(f'"{n:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(300_000)) + "}"
    ).encode(),
)
weight_bomb("weights_of_a_huge_model", said(**DEFAULTS | {"vocabulary": 2**31}), bytes(16))
weight_bomb("weights_of_huge_channels", said(**DEFAULTS | {"channels": [2**15, 2**15]}), bytes(16))
weight_bomb("weights_of_many_blocks", said(**DEFAULTS | {"res_blocks": 10**7}), bytes(16))
weight_bomb("weights_of_a_huge_schedule", said(**DEFAULTS | {"schedule": [2**15] * 999}), bytes(16))
weight_bomb("weights_with_a_long_header", b'{"__metadata__":{"medvar":"' + b"[" * 50_000_000 + b'"}}')


def bundle_graph(path: Path) -> None:
    """A graph of a bundle, loaded and run once: a decoder beside the shipped model."""
    from medvar_engine.backends.onnx_sessions import Sessions
    from medvar_engine.bundle.read import read_bundle
    from medvar_engine.bundle.sign import sign_bundle

    folder = path.parent / "bundle"
    copytree(find_bundle(), folder)
    path.rename(folder / "decode.onnx")
    sign_bundle(folder)
    sessions = Sessions(read_bundle(folder), ["CPUExecutionProvider"], 1)
    sessions.run("decode.onnx", {"x": np.zeros((2, 3, 32, 32), np.float32)})


# Each reader, and what such a graph may honestly hold: 16 slices of 32² pixels, or a decoder of images of 128² pixels.
GRAPHS = {encoder: 16 * MIB, bundle_graph: 128 * MIB}


def graph(nodes: Callable[[], Any]) -> Make:
    """Register a graph."""

    def make(folder: Path) -> Path:
        """Write it."""
        (folder / "a.onnx").write_bytes(nodes().SerializeToString())
        return folder / "a.onnx"

    for read, honest in GRAPHS.items():
        make.__name__ = nodes.__name__ if read is encoder else f"{nodes.__name__}_in_a_bundle"
        bomb(read, honest)(make)
    return make


def model(nodes: list[Any], *initializers: Any) -> Any:
    """A model of these nodes."""
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "a", [given], [result], list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@graph
def graph_of_a_huge_constant() -> Any:
    """Graph of a huge constant."""
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([2**29], np.int64), "s")
    return model([helper.make_node("ConstantOfShape", ["s"], ["y"])], shape)


@graph
def graph_that_tiles() -> Any:
    """Graph that tiles."""
    from onnx import helper, numpy_helper

    many = numpy_helper.from_array(np.array([1, 1, 2**8, 2**8], np.int64), "s")
    return model([helper.make_node("Tile", ["x", "s"], ["y"])], many)


@graph
def graph_of_a_huge_range() -> Any:
    """Graph of a huge range."""
    from onnx import helper, numpy_helper

    ends = [
        numpy_helper.from_array(np.array(number, np.int64), name) for number, name in ((0, "a"), (2**29, "b"), (1, "c"))
    ]
    return model(
        [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Cast", ["r"], ["y"], to=1)], *ends
    )


@graph
def graph_that_doubles() -> Any:
    """Graph that doubles its image 20 times."""
    from onnx import helper

    names = ["x", *map(str, range(19)), "y"]
    return model([helper.make_node("Concat", [one, one], [two], axis=3) for one, two in pairwise(names)])


@graph
def graph_that_doubles_a_constant() -> Any:
    """Graph that doubles a constant 29 times."""
    from onnx import helper, numpy_helper

    names = ["s", *map(str, range(28)), "y"]
    nodes = [helper.make_node("Concat", [one, one], [two], axis=0) for one, two in pairwise(names)]
    return model(nodes, numpy_helper.from_array(np.ones(1, np.float32), "s"))


@graph
def graph_of_an_outer_product() -> Any:
    """Graph of an outer product of two vectors that it derives from its image."""
    from onnx import helper, numpy_helper

    shapes = [
        numpy_helper.from_array(np.array(sides, np.int64), name) for name, sides in (("r", (-1, 1)), ("c", (1, -1)))
    ]
    nodes = [helper.make_node("Concat", ["x"] * 8, ["z"], axis=3)]
    nodes += [helper.make_node("Reshape", ["z", name], [f"z{name}"]) for name in "rc"]
    return model([*nodes, helper.make_node("Mul", ["zr", "zc"], ["y"])], *shapes)


@graph
def graph_of_a_sparse_tensor() -> Any:
    """Graph of a sparse tensor that is huge when it is dense."""
    from onnx import helper, numpy_helper

    value, place = (numpy_helper.from_array(one, "s") for one in (np.ones(1, np.float32), np.array([[5]], np.int64)))
    sparse = helper.make_sparse_tensor(value, place, [2**29])
    return model([helper.make_node("Constant", [], ["y"], sparse_value=sparse)])


@graph
def graph_of_functions_that_call_each_other() -> Any:
    """Graph of functions each of which calls the one before twice."""
    from onnx import helper

    given, opsets = model([helper.make_node("f19", ["x"], ["y"], domain="d")]), [helper.make_opsetid("", 17)]
    for number in range(20):
        inner = {"op_type": f"f{number - 1}", "domain": "d"} if number else {"op_type": "Neg"}
        nodes = [helper.make_node(inputs=[one], outputs=[two], **inner) for one, two in pairwise("abc")]
        given.functions.append(
            helper.make_function("d", f"f{number}", ["a"], ["c"], nodes, [*opsets, helper.make_opsetid("d", 1)])
        )
    given.opset_import.append(helper.make_opsetid("d", 1))
    return given


@graph
def graph_of_many_nodes() -> Any:
    """Graph of many nodes that do next to nothing."""
    from onnx import helper

    names = ["x", *map(str, range(60_000)), "y"]
    return model([helper.make_node("Neg", [one], [two]) for one, two in pairwise(names)])
