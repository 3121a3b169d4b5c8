from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from medvar_engine.conditions import Condition
from medvar_engine.generate.trace import Trace
from medvar_engine.write.output_image import OutputImage


@pytest.fixture
def make_output_image(make_trace: Callable[..., Trace]) -> Callable[..., OutputImage]:
    """CT images of 6 rows and 4 columns, -1000…400 HU at 0.75 mm; keywords change them."""

    def make(**changes: object) -> OutputImage:
        values: dict[str, object] = {
            "pixels": np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4),
            "trace": make_trace(),
            "spacing_mm": 0.75,
            "low": -1000.0,
            "high": 400.0,
            "unit": "HU",
        }
        return OutputImage(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def images(make_output_image: Callable[..., OutputImage], make_trace: Callable[..., Trace]) -> list[OutputImage]:
    """CT, MR in each plane, a slice of which nothing is known, and CT without a spacing."""
    ct = make_output_image(trace=make_trace(condition=Condition("CT", "chest", "axial")))
    mr = [
        make_output_image(
            trace=make_trace(condition=Condition("MR", "brain", plane)), low=0.0, high=1.0, unit="arbitrary"
        )
        for plane in ("axial", "coronal", "sagittal")
    ]
    unknown = make_output_image(trace=make_trace(condition=Condition()), low=0.0, high=1.0, unit="arbitrary")
    no_spacing = make_output_image(trace=make_trace(condition=Condition("CT")), spacing_mm=None)
    return [ct, *mr, unknown, no_spacing]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """An archive on this machine: its DICOM and its HTTP port."""
    program = shutil.which("Orthanc")
    if program is None or shutil.which("storescu") is None:
        pytest.skip("Orthanc or storescu is not installed (Debian: orthanc, dcmtk)")
    dicom, http = _free_port(), _free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "archive"),
        "IndexDirectory": str(tmp_path / "archive"),
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    log = (tmp_path / "orthanc.log").open("wb")
    server = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{http}/system", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((tmp_path / "orthanc.log").read_text())
        yield dicom, http
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
