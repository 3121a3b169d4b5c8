"""GUI time of the plugin: a scale, the first preview, and scrubbing, against plain ``layer.data`` updates in one run.

And what memory it takes to make many images.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/ui.py

GUI time is what the window cannot use for anything else: the sum of the slots that show results, and of the redraws
that follow. The peer is a bare Image layer of the same size that is given as many arrays.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import napari
import numpy as np
import psutil
from qtpy.QtWidgets import QApplication

from napari_medvar.session.generation_session import GenerationSession, Preview
from napari_medvar.widget import MedvarWidget

_FIRST = 20  # images, after which memory is measured first


def settle(widget: MedvarWidget) -> None:
    """Until nothing is going on."""
    idle = 0
    while idle < 20:
        QApplication.processEvents()
        time.sleep(0.005)
        idle = 0 if widget.busy else idle + 1


def timed(do: Callable[[], object]) -> float:
    """Seconds of doing and of redrawing."""
    start = time.perf_counter()
    do()
    QApplication.processEvents()
    return time.perf_counter() - start


def generation(widget: MedvarWidget, seed: int) -> tuple[float, float, float, float]:
    """Seconds from the click to the first preview drawn, to the end, and those that the GUI had to work for it.

    Last those of its thread on a processor, which other programs that are at work do not lengthen.
    """
    widget.sampling.show_seed(seed)
    QApplication.processEvents()
    shown: list[float] = []
    busy = [0.0]
    original = widget.image_view.show

    def show(preview: Preview, *rest: object, **more: object) -> None:
        original(preview, *rest, **more)
        shown.append(0)

    widget.image_view.show = show  # type: ignore[method-assign]
    first, clicked, thread = 0.0, time.perf_counter(), time.thread_time()
    widget.scales.generate_button.click()
    busy[0] += time.perf_counter() - clicked
    while widget.busy:
        start = time.perf_counter()
        QApplication.processEvents()
        spent = time.perf_counter() - start
        busy[0] += spent
        if shown and not first:
            first = time.perf_counter() - clicked
        if spent < 1e-3:
            time.sleep(1e-3)
    whole, thread = time.perf_counter() - clicked, time.thread_time() - thread
    widget.image_view.show = original  # type: ignore[method-assign]
    settle(widget)
    return first, whole, busy[0], thread


def resident() -> float:
    """MB that this process holds now."""
    return psutil.Process().memory_info().rss / 1e6


def growth(widget: MedvarWidget, images: int) -> float:
    """MB that making ``images`` more takes, beyond those of the first twenty."""
    held = 0.0
    for i in range(images):
        widget.sampling.show_seed(1000 + i)
        widget.scales.generate_button.click()
        while widget.busy:
            QApplication.processEvents()
            time.sleep(1e-3)
        if i + 1 == _FIRST:
            held = resident()
    settle(widget)
    return resident() - held


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=200, help="for the memory; 0 leaves it out")
    arguments = parser.parse_args()
    runs = arguments.runs
    viewer = napari.Viewer()
    widget = MedvarWidget(viewer, GenerationSession())
    viewer.window.add_dock_widget(widget, name="MedVAR Generate")
    settle(widget)
    assert widget.session.opened is not None
    scales = len(widget.session.opened.bundle.schedule)
    size = widget.session.opened.bundle.image_size

    plain = viewer.add_image(np.zeros((size, size), np.float32), contrast_limits=(0, 1), visible=False)
    images = np.random.default_rng(0).random((scales, size, size), dtype=np.float32)

    def peer_run() -> float:
        """Seconds for as many images into one bare layer, alone in the window."""
        widget.image_view.layers.show_only(None)
        plain.visible = True
        settle(widget)
        seconds = sum(timed(lambda p=image: setattr(plain, "data", p)) for image in images)
        plain.visible = False
        settle(widget)
        return seconds

    first_run = generation(widget, 1)
    later, peers, scrub = [], [], []
    for i in range(runs):  # turn by turn: whatever else the machine does meanwhile, all suffer from it
        later.append(generation(widget, 2 + i))
        scrub += [timed(lambda k=k: widget.scales.slider.setValue(k)) for k in range(scales)]
        peers.append(peer_run())
    peer = statistics.median(peers)
    peer_frames = 1 / (peer / scales)

    first, whole, busy, thread = (statistics.median(column) for column in zip(*later, strict=True))
    frames = 1 / statistics.median(scrub)
    print(f"shipped model, {scales} scales of {size}×{size}; median of {runs} runs")
    print(f"click to first preview drawn: {first:.2f} s (very first run {first_run[0]:.2f} s; goal 0.1 s)")
    print(f"click to finished image: {whole:.2f} s")
    print(f"GUI time a run: {busy:.2f} s, {busy / scales * 1000:.0f} ms a scale (goal 0.3 s for eight scales)")
    print(f"of that on a processor: {thread:.2f} s")
    print(f"plain layer.data updates: {peer:.2f} s a run; ratio {busy / peer:.2f}")
    ratio = frames / peer_frames
    print(f"scrubbing: {frames:.1f} frames/s; plain updates {peer_frames:.1f}; ratio {ratio:.2f} (goal 0.8)")
    if arguments.images > _FIRST:
        more = growth(widget, arguments.images)
        print(f"memory after {arguments.images} images: {more:+.0f} MB beyond that after {_FIRST} (goal 100 MB)")
    viewer.close()


if __name__ == "__main__":
    main()
