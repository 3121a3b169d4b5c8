"""What do the parts of making an image cost: drawing again from a scale on, looking at every scale, memory?

    python benchmarks/generate_parts.py [--bundle FOLDER] [--repeats 7] [--batch 8] [--device cpu]

Measures on the CPU, or with ``--device cuda`` on a GPU, with a bundle's own sampling:

    resample   an image drawn again from every scale on, as a share of drawing all of it, against the share of tokens
               that are drawn. Without decoding. Both in turns; medians of the ratios.
    previews   all previews but the last, as a share of a run that shows them all
    memory     the most that a process of its own took to make a batch, above what it took with the runtime loaded,
               against the weights (in float32, as they are computed with) and the keys and values of all rows. On
               Linux only, and not of a GPU, whose memory the system does not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from generate import named, row, seconds, timed, title

from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import Bundle, find_bundle, read_bundle
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request

_MEASURE = """
import sys
from pathlib import Path
import onnxruntime
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

bundle, batch = read_bundle(Path(sys.argv[1])), int(sys.argv[2])
before = status("VmRSS")
generator = Generator(OnnxBackend(bundle, device="cpu"))
if batch:
    condition = bundle.labels.decode([0] * len(bundle.labels.factors))  # under none, half of the rows would be alike
    requests = [Request(condition, seed, bundle.sampling) for seed in range(batch)]
    generator.image(generator.finish(generator.start(requests)))
print(status("VmHWM") - before)
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="an exported model; the shipped one by default")
    parser.add_argument("--repeats", type=int, default=7, help="of which the median is given (default 7)")
    parser.add_argument("--batch", type=int, default=8, help="images whose memory is measured (default 8)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run (default cpu)")
    options = parser.parse_args()
    bundle = read_bundle(find_bundle(options.bundle))
    backend = OnnxBackend(bundle, device=options.device)
    resample(backend, bundle, options.repeats)
    previews(backend, bundle, options.repeats)
    if sys.platform == "linux" and options.device == "cpu":
        memory(bundle, options.batch)


def resample(backend: OnnxBackend, bundle: Bundle, repeats: int) -> None:
    """From every scale on, against the share of tokens."""
    title(f"{bundle.name}: an image drawn again from a scale on")
    schedule = bundle.schedule
    generator = Generator(backend)
    trace = generator.finish(generator.start([Request(named(bundle.labels), 0, bundle.sampling)])).trace(0)
    seeds = iter(range(1, 10**6))

    def whole() -> None:
        generator.finish(generator.start([Request(named(bundle.labels), next(seeds), bundle.sampling)]))

    def again(k: int) -> None:
        generator.finish(generator.resample(trace, k, seed=next(seeds)))

    for k in range(len(schedule)):
        again(k)
        ratios = sorted(timed(lambda k=k: again(k)) / timed(whole) for _ in range(repeats))  # type: ignore[misc]
        tokens = 1 - schedule.offsets[k] / schedule.tokens
        cost = median(ratios)
        spread = f"{tokens:.3f} of the tokens: {cost / tokens:.2f} of that ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        row(f"from scale {k}, {schedule[k]}×{schedule[k]}", f"{cost:.3f}", spread)


def previews(backend: OnnxBackend, bundle: Bundle, repeats: int) -> None:
    """All previews but the last, which is the image."""
    title("previews of all scales but the last")
    ratios, times = [], []
    for seed in range(repeats):
        generator = Generator(backend)
        begin, looking = time.perf_counter(), 0.0
        for generation in generator.run(generator.start([Request(named(bundle.labels), seed, bundle.sampling)])):
            shown = time.perf_counter()
            generator.preview(generation, generation.depth - 1)
            if not generation.complete:
                looking += time.perf_counter() - shown
        ratios.append(looking / (time.perf_counter() - begin))
        times.append(looking)
    spread = f"{seconds(median(times))}; {min(ratios):.1%} to {max(ratios):.1%}"
    row("their share of a run", f"{median(ratios):.1%}", spread)


def memory(bundle: Bundle, batch: int) -> None:
    """The peak, above a process that has the runtime loaded."""
    title(f"memory of {batch} images at once, with guidance")
    loaded, peak = (measured(bundle, count) for count in (0, batch))
    shapes = (bundle.transformer, bundle.guide or bundle.transformer)  # with the condition, and to move away from
    weights = sum((bundle.path / name).stat().st_size for name in bundle.sha256 if name.endswith((".onnx", ".data")))
    weights *= 2 if bundle.precision == "float16-weights" else 1
    each = sum(shape["depth"] * 2 * shape["heads"] * shape["head_dim"] * 4 for shape in shapes)
    keys_values = batch * bundle.schedule.tokens * each
    row("loaded", f"{loaded / 1e6:.0f} MB", f"weights {weights / 1e6:.0f} MB")
    bound = weights + keys_values
    note = f"{peak / bound:.2f} of weights and keys and values, {bound / 1e6:.0f} MB"
    row("peak", f"{peak / 1e6:.0f} MB", note)


def measured(bundle: Bundle, batch: int) -> int:
    """Bytes that a process of its own took at most."""
    command = [sys.executable, "-c", _MEASURE, str(bundle.path), str(batch)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    main()
