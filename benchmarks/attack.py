"""Does everything that reads a stranger's files withstand it? Each input must be read or refused; all else is a bug.

    python benchmarks/attack.py [--inputs 50000] [--seed 0] [--keep FOLDER]

Inputs are made here, from small files that are made here too: traces and sessions whose values are changed, bundles
whose manifest is changed and signed again, files whose bytes are damaged, bombs that claim or unfold to much, spellings
of patients, and frames of the server's protocol. Printed are, for each kind, how many were

    read      and gave what such files give
    refused   by a `MedvarError`
    broke     by any other error, which would be a traceback
    slow      not answered within 5 s of processor time, or a minute of any
    large     answered with more than 64 MiB + 4 × the largest honest file beyond what was in use

and the exit status is 1 when one of the last three is not 0. ``--keep`` keeps these inputs. For POSIX systems. Readers
of scans have a benchmark of their own, ``benchmarks/fuzz_readers.py``; killed processes ``benchmarks/kill.py``.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medvar_engine.bundle.read import MANIFEST, find_bundle, manifest_digest, read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.identity.same_patient import by_marks, marks_of
from medvar_engine.data.split import split_patients
from medvar_engine.errors import MedvarError
from medvar_engine.generate.trace import Encoded, Resample, Trace, traces_from_dict, traces_to_dict
from medvar_engine.remote.messages import pack, unpack
from medvar_engine.request import Request
from medvar_engine.tokens.pyramid import TokenPyramid
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.write.compare import differing_pixels
from medvar_engine.write.dicom import write_dicom
from medvar_engine.write.nifti import write_nifti
from medvar_engine.write.open_slice_file import MAX_BYTES
from medvar_engine.write.output_image import OutputImage
from medvar_engine.write.png import write_png
from medvar_engine.write.provenance import read_about_pixels, read_trace

OUTCOMES = ("read", "refused", "broke", "slow", "large")
SECONDS = 5
MEMORY = 64 * 2**20 + 4 * MAX_BYTES
ODD: tuple[Any, ...] = (
    *(None, True, [], {}, "", "\x1b[2J", "\ud800", "nan", -1, 0, 2**31, 2**63, 10**400, 1e308, float("nan")),
    *(float("inf"), [[[]]], {"a": {}}, [None], "0" * 10_000, [1] * 1000),
)
SPELLINGS = (str.upper, str.lower, str.title, lambda name: f" {name} ", lambda name: name.replace(" 1", " 001"))

Case = tuple[bytes, Callable[[Path], object]]
"""An input, and what reads it from a file."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=50_000, help="how many, of all kinds together (default 50000)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default 0)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that were neither read nor refused")
    options = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        kinds = {kind: make(Path(name), random.Random(options.seed)) for kind, make in KINDS.items()}
        for number in range(options.inputs):
            kind = list(KINDS)[number % len(KINDS)]
            content, read = next(kinds[kind])
            outcome, result = attack(Path(name) / "input", content, read)
            counts.setdefault(kind, Counter())[outcome] += 1
            if outcome not in OUTCOMES[:2]:
                print(f"input {number}, {kind}, {outcome}: {result[-1500:]}", flush=True)
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{kind.replace(' ', '-')}-{number}").write_bytes(content)
    print(f"{'':<16}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES))
    for kind, row in counts.items():
        print(f"{kind:<16}" + "".join(f"{row[outcome]:>9}" for outcome in OUTCOMES))
    total = sum(counts.values(), Counter())
    print(f"{'all':<16}" + "".join(f"{total[outcome]:>9}" for outcome in OUTCOMES))
    sys.exit(int(any(total[outcome] for outcome in OUTCOMES[2:])))


class _Slow(BaseException):
    """The time is up."""


def attack(path: Path, content: bytes, read: Callable[[Path], object]) -> tuple[str, str]:
    """What came of one input, and the traceback when it broke."""

    def late(*_: object) -> None:
        raise _Slow

    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(12 * SECONDS)
    begun, outcome, result = time.process_time(), "read", ""
    try:
        read(path)
    except MedvarError:
        outcome = "refused"
    except _Slow:
        outcome, result = "slow", traceback.format_exc()
    except BaseException:
        outcome, result = "broke", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MEMORY:
        return "large", f"{grown >> 20} MiB more in {time.process_time() - begun:.1f} s"
    return outcome, result


def changed_values(values: Any, chance: random.Random) -> Any:
    """A copy of plain values in which one to three of them, wherever they lie, are others or gone."""
    values = copy.deepcopy(values)
    for _ in range(chance.randint(1, 3)):
        holder, key = _somewhere(values, chance)
        if holder is None:
            return copy.deepcopy(chance.choice(ODD))
        if isinstance(holder, dict) and chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(chance.choice(ODD))
    return values


def _somewhere(values: Any, chance: random.Random) -> tuple[Any, Any]:
    holder, key = None, None
    while isinstance(values, dict | list) and values and (holder is None or chance.random() < 0.8):
        holder = values
        key = chance.choice(list(values)) if isinstance(values, dict) else chance.randrange(len(values))
        values = values[key]
    return holder, key


def damaged(content: bytes, chance: random.Random) -> bytes:
    """``content`` with a few bytes changed, cut out, doubled or cut off."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(max(1, min(len(found), chance.choice((64, 400, 4000, 2**30)))))
        match chance.randrange(5):
            case 0:
                found[at : at + 4] = chance.choice((b"\0\0\0\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x01\0\0\0"))
            case 1:
                found[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                del found[at : at + chance.randint(1, 64)]
            case 3:
                found[at:at] = found[at : at + chance.randint(1, 64)]
            case _:
                found = found[: max(1, at)] if chance.random() < 0.2 else found
    return bytes(found)


def _image() -> OutputImage:
    schedule, chance = ScaleSchedule((1, 2, 3, 4)), np.random.default_rng(0)
    tokens = chance.integers(0, 9, (1, schedule.tokens))
    entropy = tuple(np.full((side, side), 0.5, dtype=np.float32) for side in schedule)
    request = Request(Condition("CT", "chest", "axial"), 3)
    first = Trace(request, TokenPyramid.from_sequence(schedule, tokens), (), "ab" * 32, Encoded("00ff"))
    trace = Trace(request, first.pyramid, entropy, first.bundle_id, Resample(1, np.eye(5, dtype=bool)), first)
    pixels = np.linspace(-1, 1, 48, dtype=np.float32).reshape(8, 6)
    return OutputImage(pixels, trace, 0.75, -1000.0, 400.0, "HU")


def _read_image(name: str) -> Callable[[Path], object]:
    """Everything that `medvar info` and `medvar replay` read of a file of that name."""

    def read(path: Path) -> None:
        file = path.with_name(name)
        file.write_bytes(path.read_bytes())
        trace = read_trace(file)
        json.dumps(traces_to_dict([trace]), allow_nan=False)  # what is opened can be saved
        read_about_pixels(file)
        differing_pixels(file, _image())

    return read


def traces(_: Path, chance: random.Random) -> Iterator[Case]:
    """Traces whose values are changed."""
    good = json.loads(_image().trace.to_json())

    def read(path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="surrogatepass")
        json.dumps(traces_to_dict([Trace.from_json(text)]), allow_nan=False)

    while True:
        yield json.dumps(changed_values(good, chance)).encode(), read


def sessions(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Session files of the plugin whose values are changed."""
    from napari_medvar.session.session_file import SavedSession, read_session, write_session
    from napari_medvar.session.trace_tree import Node

    trace = _image().trace
    nodes = (Node(0, trace), Node(1, trace, 0, "a name"))
    path = write_session(folder / "good.medvar", SavedSession("ab" * 32, "fake", "/here", nodes, 1, {"guidance": 2}))
    good = json.loads(gzip.decompress(path.read_bytes()))

    def read(path: Path) -> None:
        write_session(path.with_name("again.medvar"), read_session(path))

    while True:
        content = gzip.compress(json.dumps(changed_values(good, chance)).encode(), 1)
        yield damaged(content, chance) if chance.random() < 0.2 else content, read


def bundles(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Manifests of bundles that are changed, and signed again."""
    good = json.loads((find_bundle(None) / MANIFEST).read_text(encoding="utf-8"))
    place = folder / "bundle"
    place.mkdir()

    def read(path: Path) -> None:
        (place / MANIFEST).write_bytes(path.read_bytes())
        bundle = read_bundle(place)
        bundle.labels.encode(Condition())
        [bundle.display(slice_type.condition) for slice_type in bundle.slice_types]

    while True:
        values = changed_values(good, chance)
        if isinstance(values, dict):
            values["digest"] = manifest_digest(values)
        yield json.dumps(values).encode(), read


def byte_damage(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Image files whose bytes are damaged."""
    image = _image()
    files = (write_png(folder / "a.png", image), write_dicom(folder / "a.dcm", image))
    files = (*files, *(write_nifti(folder / name, image)[0] for name in ("a.nii", "a.nii.gz")))
    contents = [(path.name, path.read_bytes()) for path in files]
    while True:
        name, content = chance.choice(contents)
        yield damaged(content, chance), _read_image(f"damaged-{name}")


def bombs(folder: Path, chance: random.Random) -> Iterator[Case]:
    """Small files that claim much, or unfold to it."""
    nifti = write_nifti(folder / "b.nii", _image())[0].read_bytes()
    dicom = write_dicom(folder / "b.dcm", _image()).read_bytes()
    png = write_png(folder / "b.png", _image()).read_bytes()
    zeros = gzip.compress(nifti[:348] + b"\1\0\0\0" + struct.pack("<2i", 2**28, 6) + bytes(2**28), 1)
    plain, deflated = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    start = 144 + int.from_bytes(dicom[140:144], "little")
    meta = bytearray(dicom[:start].replace(plain, deflated))
    meta[meta.index(deflated) - 2 : meta.index(deflated)] = struct.pack("<H", len(deflated))
    meta[140:144] = struct.pack("<I", int.from_bytes(dicom[140:144], "little") + len(deflated) - len(plain))
    packer = zlib.compressobj(1, wbits=-15)
    inflates = bytes(meta) + packer.compress(bytes(2**28)) + packer.flush()
    fixed = [(zeros, "b.nii.gz"), (inflates, "b.dcm")]
    while True:
        match chance.randrange(12):
            case 0:
                content, name = chance.choice(fixed)
                yield content, _read_image(name)
            case 1 | 2 | 3:
                dims = struct.pack("<8h", *(chance.choice((-1, 0, 1, 3, 7, 32767, -32768)) for _ in range(8)))
                yield nifti[:40] + dims + nifti[56:], _read_image("b.nii")
            case 4 | 5:
                sides = struct.pack(">2I", *(chance.choice((1, 2**15, 2**17, 2**31 - 1)) for _ in range(2)))
                header = png[12:16] + sides + png[24:29]
                yield png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:], _read_image("b.png")
            case 6 | 7:
                deep = b"\x08\0\x96\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * chance.choice((50, 3000))
                yield dicom[:start] + deep + dicom[start:], _read_image("b.dcm")
            case _:
                one = chance.choice(("[", '{"a":', "[[],", '"', "[1,"))
                text = one * chance.choice((200, 50_000))
                yield text.encode(), lambda path: Trace.from_json(path.read_text())


def spellings(_: Path, chance: random.Random) -> Iterator[Case]:
    """Patients in several spellings: each must be on one side of the split, whatever is drawn."""
    people = [f"Doe^{letter}ane 1{number}" for number in range(4) for letter in "JKÄ"]

    def read(path: Path) -> None:
        names = json.loads(path.read_text())
        same = by_marks({name: marks_of(name, []) for name in names}).groups()
        split, _ = split_patients(
            {name: {("CT", "chest")} for name in names}, test_fraction=0.4, seed=len(names), same=same
        )
        sides: dict[str, set[str]] = {}
        for name, own in names.items():
            sides.setdefault(own, set()).add(split[name])
        if any(len(own) > 1 for own in sides.values()):
            raise AssertionError(f"a patient is on both sides: {sides}")

    while True:
        names = {chance.choice(SPELLINGS)(person): person for person in people for _ in range(chance.randint(1, 3))}
        yield json.dumps(names).encode(), read


def frames(_: Path, chance: random.Random) -> Iterator[Case]:
    """Messages of the server's protocol, damaged, and what `POST /generate` is sent, changed."""
    arrays = {"labels": np.zeros((1, 3), dtype=np.int64), "features": np.zeros((1, 5, 4), dtype=np.float32)}
    message = pack({"scale": 1}, arrays)
    asked = {"traces": traces_to_dict([_image().trace])}

    def read_message(path: Path) -> None:
        found = unpack(path.read_bytes())
        found.array("labels", "int64", (None, 3))

    def read_asked(path: Path) -> None:
        from medvar_engine.serve.stream import parsed

        values = parsed(path.read_bytes())
        pack({"traces": traces_to_dict(traces_from_dict(values.get("traces", {})))}, {})

    while True:
        if chance.random() < 0.5:
            yield damaged(message, chance), read_message
        else:
            yield json.dumps(changed_values(asked, chance)).encode(), read_asked


KINDS: dict[str, Callable[[Path, random.Random], Iterator[Case]]] = {
    "traces": traces,
    "sessions": sessions,
    "bundles": bundles,
    "byte damage": byte_damage,
    "bombs": bombs,
    "spellings": spellings,
    "server frames": frames,
}

if __name__ == "__main__":
    main()
