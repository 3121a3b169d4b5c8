"""How long does a step of training take, and how much memory, against VAR's own trainer with its encoder in the loop?

    python benchmarks/train_step.py PATH_OF_VAR_CHECKOUT [--depth 2] [--batch 2] [--steps 5]

Both train a transformer of d16's width (1024, 16 heads) and so many blocks on images of 256 pixels, in float32 on the
CPU. VAR's trainer encodes every image at every step; ours reads pyramids that were encoded once. Steps are interleaved
in one process; the peak of memory is measured in a process of its own each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import var_parity

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards import ShardWriter
from medvar_engine.data.shards.slice_facts import SliceFacts
from medvar_engine.models.presets import VAR_SCHEDULE, tokenizer_preset
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_tokenizer, save_tokenizer
from medvar_engine.storage import sha256
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.stages.transformer_stage import TransformerStage
from medvar_engine.train.token_pyramids import Encoding, codebook_of, write_pyramids
from medvar_engine.train.trainer import Trainer
from medvar_engine.value_range import encode

WIDTH, HEADS = 1024, 16  # of d16


def main() -> None:
    """Print the medians, their ratio and both peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", choices=("ours", "theirs"), help="measure memory only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        makers = {"ours": lambda: ours(options, Path(folder)), "theirs": lambda: theirs(options)}
        if options.only:
            step = makers[options.only]()
            for i in range(2):
                step(i)
            # Not getrusage's figure, which a process inherits from the one that started it.
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20)  # type: ignore[index]
            return
        steps = {name: make() for name, make in makers.items()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for i in range(options.steps + 1):
            for name, step in steps.items():
                begin = time.perf_counter()
                step(i)
                if i:  # the first one warms up
                    times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:<7} {medians[name]:6.2f} s a step, {min(values):.2f} to {max(values):.2f}")
    print(f"ours is {medians['theirs'] / medians['ours']:.2f} times as fast")
    for name in steps:
        again = [sys.executable, __file__, str(options.checkout), "--only", name]
        again += ["--depth", str(options.depth), "--batch", str(options.batch)]
        peak = subprocess.run(again, check=True, capture_output=True, text=True).stdout.split()[-1]
        print(f"{name:<7} {float(peak):6.2f} GiB at most")


def ours(options: argparse.Namespace, folder: Path) -> Callable[[int], None]:
    """A step of `medvar_engine.train`, with every figure that it logs."""
    torch.manual_seed(0)
    config = TrainConfig(
        stage="transformer",
        preset="d16",
        data=folder / "slices",
        out=folder / "run",
        tokenizer=folder / "tokenizer.safetensors",
        pyramids=folder / "pyramids",
        batch_size=options.batch,
        variants=1,
        precision="float32",
        device="cpu",
    )
    assert config.tokenizer is not None
    assert config.pyramids is not None
    save_tokenizer(config.tokenizer, Tokenizer(tokenizer_preset("d16")))
    write_slices(config.data)
    sets = [SliceDataset(config.data, split) for split in ("train", "test")]
    for data in sets:  # as `medvar encode` would have written them, but of random tokens
        codebook = codebook_of(load_tokenizer(config.tokenizer))
        encoding = Encoding(data, lambda: random_tokens, sha256(config.tokenizer), codebook, 1, config.seed)
        write_pyramids(config.pyramids, encoding)
    stage = TransformerStage(config, sets[0], sets[1], Processes(torch.device("cpu")))
    stage.model = stage.network = Transformer(replace(stage.model.config, depth=options.depth, drop_path=0.0))
    del stage.tokenizer.encoder, stage.tokenizer.decoder  # no part of a step
    trainer = Trainer(config, stage, Processes(torch.device("cpu")))

    def step(number: int) -> None:
        trainer.gradients(number, [(0, tuple(map(torch.from_numpy, stage.batches[number, 0])))])
        trainer.update(number)

    return step


def random_tokens(images: np.ndarray) -> np.ndarray:
    """``(B, L)`` in place of an encoder's."""
    return np.random.default_rng(0).integers(0, 4096, (len(images), sum(side * side for side in VAR_SCHEDULE)))


def write_slices(folder: Path, size: int = 256) -> None:
    """Noise of two patients, one of them held out."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder, size) as writer:
        for patient in ("a", "b"):
            about = {"modality": "CT", "region": "chest", "plane": "axial", "dataset": None, "contrast": None}
            about |= {"spacing_mm": 1.0, "low": -1000.0, "high": 1000.0, "unit": "HU", "position_mm": None}
            about |= {"series": "", "source": "noise", "licence": "none", "fingerprint": bytes(32)}
            for _ in range(8):
                image = rng.uniform(-1, 1, (1, size, size)).astype(np.float32)
                writer.add(encode(image), [SliceFacts(patient=patient, **about)])  # type: ignore[arg-type]
        writer.finish({"a": "train", "b": "test"})


def theirs(options: argparse.Namespace) -> Callable[[int], None]:
    """A step of VAR's trainer; nothing is logged but the loss."""
    var_parity.open_checkout(options.checkout)
    logs = types.ModuleType("utils.misc")  # its logs, which ask for more libraries and are not written here
    logs.MetricLogger = logs.TensorboardLogger = object  # type: ignore[attr-defined]
    sys.modules["utils.misc"] = logs
    from models import VAR, VQVAE  # type: ignore[import-not-found]
    from trainer import VARTrainer  # type: ignore[import-not-found]
    from utils.amp_sc import AmpOptimizer  # type: ignore[import-not-found]

    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):  # its constructors report at length
        vae = VQVAE(vocab_size=4096, z_channels=32, ch=160, v_patch_nums=VAR_SCHEDULE, test_mode=True)
        var = VAR(
            vae,
            num_classes=1000,
            depth=options.depth,
            embed_dim=WIDTH,
            num_heads=HEADS,
            attn_l2_norm=True,
            patch_nums=VAR_SCHEDULE,
        )
        var.init_weights(init_adaln=0.5, init_adaln_gamma=1e-5, init_head=0.02, init_std=-1)
    names, weights = zip(*var.named_parameters(), strict=True)
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    amp = AmpOptimizer(0, optimizer, list(names), list(weights), grad_clip=2.0)
    trainer = VARTrainer("cpu", VAR_SCHEDULE, tuple(16 * side for side in VAR_SCHEDULE), vae, var, var, amp, 0.0)
    log = types.SimpleNamespace(log_iters=set(), update=lambda **_: None)
    images = torch.rand(options.batch, 3, 256, 256) * 2 - 1
    labels = torch.zeros(options.batch, dtype=torch.int64)

    def step(number: int) -> None:
        trainer.train_step(number + 1, number + 1, True, log, log, images, labels, len(VAR_SCHEDULE) - 1, 1.0)

    return step


if __name__ == "__main__":
    main()
