"""Does any small file take much memory or time? Each bomb here is read in a process of its own, which is measured.

    python benchmarks/bombs.py [--only WORD] [--reasons]

A bomb is a file that claims, unfolds to, or nests much more than it holds. For each reader there are several, made
here. Each must be read or refused within 5 s of processor time, with no more memory beyond what was in use than
64 MiB + 4 × what such a file may honestly hold: the values that a reader gives for it, where the file may be honest,
or else its own size. Printed are peak memory and time of each, and the exit status is 1 when one is over. For Linux.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import bombs_of_dicom
import bombs_of_others
import bombs_of_pictures
import bombs_of_scans
import numpy as np
from bomb_readers import BOMBS, MIB, PACKED, Read, scan
from fuzz_readers import enhanced, memory
from PIL import Image

from medvar_engine.data.read.header_limits import most_unpacked
from medvar_engine.errors import MedvarError

_ = bombs_of_scans, bombs_of_dicom, bombs_of_pictures, bombs_of_others  # each adds its bombs to the list
SECONDS = 5.0
SPARE = 64 * MIB
FACTOR = 4
LIMIT = 10 * 2**30  # bytes of addresses, so that a bomb that goes off does not take the machine
PATIENCE = 15  # seconds of processor time after which a reader is stopped


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only bombs whose name holds this word")
    parser.add_argument("--reasons", action="store_true", help="print why files are refused")
    options = parser.parse_args()
    import_readers()
    over = 0
    print(f"{'':<44}{'file':>10}{'peak':>10}{'bound':>10}{'time':>8}")
    for one in BOMBS:
        if options.only not in one.name:
            continue
        with tempfile.TemporaryDirectory(prefix="bomb-") as name:
            path = one.make(Path(name))
            size = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
            honest = most_unpacked(size) if one.honest == PACKED else one.honest
            most = SPARE + FACTOR * (size if honest is None else honest)
            outcome, peak, seconds = measured(one.read, path, Path(name))
        bad = outcome not in ("read", "refused") or peak > most or seconds > SECONDS
        over += bad
        sizes = "".join(f"{number / MIB:>10.1f}" for number in (size, peak, most))
        print(f"{one.name:<44}{sizes}{seconds:>8.1f}  {outcome}{'  OVER' if bad else ''}", flush=True)
    print(f"{over} of {len(BOMBS)} over the bounds (MiB, s of processor time)")
    sys.exit(int(over > 0))


def import_readers() -> None:
    """Import everything here, so that only reading is measured."""
    import nibabel
    import onnxruntime
    import pyarrow
    import safetensors.torch
    import torch

    from medvar_engine.data.harmonise import harmonise
    from medvar_engine.data.read import scans
    from medvar_engine.evaluate.images import file_images
    from medvar_engine.models import weight_files
    from medvar_engine.sets import image_set
    from napari_medvar.session import session_file

    _ = nibabel, onnxruntime, pyarrow, safetensors, torch, harmonise, scans, file_images, weight_files, image_set
    _ = session_file
    Image.init()
    with tempfile.TemporaryDirectory() as name:  # decoders are imported at first use
        for syntax in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"):
            dataset = enhanced(np.zeros((3, 64, 64), np.uint16))
            dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(Path(name) / "a.dcm", enforce_file_format=True)
            scan(Path(name))


def measured(read: Read, path: Path, folder: Path) -> tuple[str, int, float]:
    """What came of reading in a process of its own, its peak of memory in bytes, and its seconds of processor time."""
    report, child = folder / ".report", os.fork()
    if child == 0:
        outcome = "broke"
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT + memory("VmSize"), LIMIT + memory("VmSize")))
        Path("/proc/self/clear_refs").write_text("5")
        before, begun = memory("VmRSS"), time.process_time()
        tempfile.tempdir = str(folder)
        try:
            read(path)
            outcome = "read"
        except MedvarError as error:
            outcome = "refused"
            if "--reasons" in sys.argv:
                print("   ", str(error)[:200])
        except BaseException:
            traceback.print_exc()
        report.write_text(f"{outcome} {memory('VmHWM') - before} {time.process_time() - begun}")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not report.exists():
        return ("hung" if os.waitstatus_to_exitcode(status) == -signal.SIGKILL else "died"), 0, PATIENCE
    outcome, peak, seconds = report.read_text().split()
    return outcome, int(peak), float(seconds)


if __name__ == "__main__":
    main()
