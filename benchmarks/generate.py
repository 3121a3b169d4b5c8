"""How fast are images made here, and how much faster could they be?

    python benchmarks/generate.py [--bundle FOLDER] [--weights TOKENIZER TRANSFORMER] [--var VAR_CHECKOUT [--depth 2]]
        [--device cpu]

Measures on the CPU, or with ``--device cuda`` on a GPU, in one run: the device's own rate of float32 matrix products,
the first preview and a whole image, 64 images in a batch against one by one, for several sizes of the blocks that go
through the networks (on a GPU all at once), and the torch backend with the same weights. A bundle holds no weights for
torch, so give both to compare them; without any, random weights of the demo preset are exported first, which takes a
minute. ``--var`` adds a checkout of `FoundationVision/VAR`: its own code against ours, on the same random weights and
settings, on the CPU. Everything but the rate and the batches (the best of a few) is a median; rates are of
floating-point operations in matrix products and convolutions.
What parts of a run cost is measured by generate_parts.py, a diffusion model of the same size by generate_diffusion.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from medvar_engine.backends.base import Backend
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.backends.torch import TorchBackend
from medvar_engine.bundle.read import read_bundle
from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.generate.generator import Generator
from medvar_engine.generate.trace import Request
from medvar_engine.models.import_var import import_var
from medvar_engine.models.presets import tokenizer_preset, transformer_preset
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import save_tokenizer, save_transformer
from medvar_engine.request import Sampling
from medvar_export.precision import Precision

BATCH = 64
BLOCKS = (256, 1024, 4096, None)  # tokens that go through a network together; None is all of a batch
LABELS = LabelSpace(modality=("CT", "MR"), region=("abdomen", "brain", "chest"), plane=("axial", "coronal", "sagittal"))
VAR_SAMPLING = Sampling(guidance=1.5, top_k=900, top_p=0.96)  # as VAR's own demonstration
Weights = tuple[Path, Path]
_seeds = count()  # no image twice, so that no prefix is taken from an earlier one


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="an exported model")
    parser.add_argument("--weights", type=Path, nargs=2, help="tokenizer.safetensors and transformer.safetensors")
    parser.add_argument("--guide", type=Path, help="transformer.safetensors of the guide, if the model has one")
    parser.add_argument("--var", type=Path, help="folder of a FoundationVision/VAR checkout")
    parser.add_argument("--depth", type=int, default=2, help="of the VAR that is compared with (default 2; 16 is d16)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of which the median is given (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run (default cpu)")
    options = parser.parse_args()
    if options.var and options.device != "cpu":
        parser.error("--var compares on the CPU: leave out --device")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        peak = matmul_rate(options.device)
        where = f"{options.threads} threads" if options.device == "cpu" else options.device
        row("matrix products of this machine, float32", f"{peak / 1e9:.1f} GFLOP/s", f"{where}, best")
        ours(options, Path(folder), peak)
        if options.var:
            theirs(options, Path(folder), peak)


def ours(options: argparse.Namespace, folder: Path, peak: float) -> None:
    """The bundle in ONNX Runtime, and the same weights in torch."""
    weights = tuple(options.weights) if options.weights else None if options.bundle else demo_weights(folder)
    bundle = options.bundle or export(weights, folder / "demo")
    model = read_bundle(bundle)
    begin = time.perf_counter()
    backend = OnnxBackend(model, device=options.device, threads=options.threads)
    title(f"{model.name}: {model.image_size} pixels, {backend.info.provider}, the model's own sampling")
    row("loading", seconds(time.perf_counter() - begin))
    row("first preview after loading", seconds(timed(lambda: preview(backend))))
    one = median(timed(lambda: image(backend, sampling=model.sampling)) for _ in range(options.repeats))
    row("one image with guidance", seconds(one))
    usual = backend._block
    blocks = (None,) if usual is None else BLOCKS
    batched = dict.fromkeys(blocks, float("inf"))
    for block in blocks * 2:  # in turns, for a machine is not the same from minute to minute
        backend._block = block
        batched[block] = min(batched[block], timed(lambda: image(backend, BATCH, sampling=model.sampling)) / BATCH)
    for block, each in batched.items():
        what = "all at once" if block is None else f"{block} tokens at once" + " (as usual)" * (block == usual)
        row(f"{BATCH} images, {what}, each", seconds(each), f"{one / each:.2f} times as fast as one by one")
    backend._block = usual
    if weights is None:
        return
    if model.guide and not options.guide:
        raise SystemExit("The bundle has a guide: give its weights with --guide, too.")
    reference = TorchBackend.load(*weights, device=options.device, guide=options.guide)
    image(reference, sampling=model.sampling)
    slower = median(timed(lambda: image(reference, sampling=model.sampling)) for _ in range(options.repeats))
    row("one image in torch", seconds(slower), f"ONNX takes {one / slower:.2f} of it")
    shares(reference, {"ONNX": one, "torch": slower}, peak)


def theirs(options: argparse.Namespace, folder: Path, peak: float) -> None:
    """VAR's own code against ours, one image of 256 pixels, on the same random weights; taken in turns."""
    import var_parity

    task = argparse.Namespace(
        checkout=options.var, depth=options.depth, shared_modulation=False, size=256, batch=1, seed=0
    )
    vae, var = var_parity.theirs(task)
    torch.save(vae.state_dict(), folder / "vae.pth")
    torch.save(var.state_dict(), folder / "var.pth")
    paths = import_var(folder / "vae.pth", folder / "var.pth", folder)
    weights = paths[0], paths[1]
    torch_backend = TorchBackend.load(*weights)
    backends: dict[str, Backend] = {"torch": torch_backend}
    for name, precision in (("ONNX", "float32"), ("ONNX, int8", "int8-weights")):
        bundle = read_bundle(export(weights, folder / name, precision))
        backends[name] = OnnxBackend(bundle, device="cpu", threads=options.threads)
    label = torch.tensor([7])

    def published() -> None:
        sampling = VAR_SAMPLING
        settings = {"cfg": sampling.guidance, "top_k": sampling.top_k, "top_p": sampling.top_p}
        var.autoregressive_infer_cfg(1, label, g_seed=next(_seeds), **settings)

    def ours_once(backend: Backend, batch: int = 1) -> Callable[[], object]:
        return lambda: image(backend, batch, VAR_SAMPLING)

    tasks = {"VAR": published, **{name: ours_once(backend) for name, backend in backends.items()}}
    taken = in_turns(tasks, options.repeats)
    title(f"VAR of depth {options.depth}, 256 pixels, one image with guidance")
    for name, times in taken.items():
        ratios = sorted(own / other for own, other in zip(times, taken["VAR"], strict=True))
        spread = f"{median(ratios):.2f} of VAR's time ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        row(name, seconds(median(times)), spread)
    shares(torch_backend, {name: median(times) for name, times in taken.items()}, peak)
    eight = in_turns({name: ours_once(backend, 8) for name, backend in backends.items()}, 2)
    title("the same, 8 images at once")
    shares(torch_backend, {name: min(times) / 8 for name, times in eight.items()}, peak)


def in_turns(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every task, each repeat of all in a row: a machine is not the same from minute to minute."""
    for call in tasks.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, call in tasks.items():
            times[name].append(timed(call))
    return times


def shares(backend: TorchBackend, taken: dict[str, float], peak: float) -> None:
    """What part of the machine's rate each way of making one image reaches."""
    with FlopCounterMode(display=False) as counter:
        image(backend)
    flops = counter.get_total_flops()
    for name, value in taken.items():
        row(f"rate of {name}", f"{flops / value / 1e9:.1f} GFLOP/s", f"{flops / value / peak:.0%} of the machine's")
    row("operations of one image", f"{flops / 1e9:.1f} GFLOP", f"{flops / peak:.3f} s at the machine's rate")


def matmul_rate(device: str = "cpu", side: int = 2048, repeats: int = 7) -> float:
    """Floating-point operations a second of a large product; the best of several, for it is a bound."""
    a, b = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    return 2 * side**3 / min(timed(lambda: (a @ b)[0, 0].item()) for _ in range(repeats))  # item waits for a GPU


def named(labels: LabelSpace) -> Condition:
    """The first name of every factor. Under no condition guidance would cost nothing: its two rows are then one."""
    return labels.decode((0,) * len(labels.factors))


def image(backend: Backend, batch: int = 1, sampling: Sampling = Sampling()) -> None:
    """Whole images, by a generator that has seen none before."""
    generator = Generator(backend)
    requests = [Request(named(backend.info.labels), next(_seeds), sampling) for _ in range(batch)]
    generator.image(generator.finish(generator.start(requests)))


def preview(backend: Backend) -> None:
    """The coarsest scale, as an image."""
    generator = Generator(backend)
    generator.preview(generator.step(generator.start([Request(named(backend.info.labels), next(_seeds))])), 0)


def demo_weights(folder: Path) -> Weights:
    """The demo preset with random weights. They cost what trained ones cost."""
    torch.manual_seed(0)
    config = tokenizer_preset("demo")
    save_tokenizer(folder / "tokenizer.safetensors", Tokenizer(config))
    transformer = Transformer(transformer_preset("demo", config, LABELS.sizes))
    save_transformer(folder / "transformer.safetensors", transformer, LABELS)
    return folder / "tokenizer.safetensors", folder / "transformer.safetensors"


def export(weights: Weights, out: Path, precision: Precision = "float32") -> Path:
    """A bundle of the weights, to be thrown away."""
    from medvar_export.write_bundle import Description, export_bundle

    print(f"exporting {out.name} …")
    about = Description(f"{out.name}, random weights", "none", (), "nobody", "")
    return export_bundle(*weights, out, about, precision=precision, log=lambda _: None)


def timed(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def seconds(value: float) -> str:
    """In the unit that is easiest to read."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def title(text: str) -> None:
    """The head of a part of the table."""
    print(f"\n{text}")


def row(what: str, value: str, note: str = "") -> None:
    """One line of the table."""
    print(f"  {what:<60} {value:>14}   {note}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
