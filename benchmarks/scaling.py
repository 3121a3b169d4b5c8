"""Do larger transformers learn more? A power law over small ones, as VAR's over large ones (arXiv 2404.02905, 5.1).

    python benchmarks/scaling.py SLICES TOKENIZER [--out FOLDER] [--steps 300] [--widths 32 48 64 96 128]

Trains transformers of depth width/16 on the same batches of the same slices, on the CPU, and fits ``loss = a · N^b`` to
the training loss, the held-out loss and that of the finest scale, N being the parameters without embeddings. Prints the
fits, and draws them in FOLDER/scaling.html. Honest and small: with few patients held-out loss stops falling early.

Slices are encoded once for all widths. Started again, it goes on where it was; other steps or batches are other runs.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
from rich.console import Console

from medvar_engine.data.dataset import SliceDataset
from medvar_engine.metric_log import Metric, read_log
from medvar_engine.models.weight_files import load_tokenizer, load_transformer
from medvar_engine.page.curves import Curve, curves
from medvar_engine.page.document import Section, document
from medvar_engine.page.elements import element, join, table
from medvar_engine.storage import sha256
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.run_training import run
from medvar_engine.train.token_pyramids import Encoding, codebook_of, tokenizer_encoder, write_pyramids

VARIANTS = 2


def main() -> None:
    """Train, fit, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--out", type=Path, default=Path("scaling"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 48, 64, 96, 128])
    options = parser.parse_args()
    encode(options.slices, options.tokenizer, options.out / "pyramids")
    found = [measure(options, width) for width in options.widths]
    sizes = np.array([size for size, _ in found], dtype=float)
    drawn, rows = [], []
    for name, title in (("held_out_loss", "held out"), ("finest", "held out, finest scale"), ("loss", "training")):
        losses = np.array([metrics[name] for _, metrics in found])
        slope, intercept = np.polyfit(np.log(sizes), np.log(losses), 1)
        explained = np.corrcoef(np.log(sizes), np.log(losses))[0, 1] ** 2
        print(f"{title:<24} loss = {np.exp(intercept):.3g} · N^{slope:.4f}, R² {explained:.3f}")
        rows.append((title, f"{np.exp(intercept):.3g} · N^{slope:.4f}", float(explained)))
        fit = np.exp(intercept) * sizes**slope
        drawn.append(
            curves(
                [
                    Curve("measured", tuple(zip(sizes, losses, strict=True)), marked=True),
                    Curve("fit", tuple(zip(sizes, fit, strict=True))),
                ],
                title,
                "parameters without embeddings",
                log_across=True,
            )
        )
    body = join(element("div", *drawn, class_="charts"), table(("loss, nats a token", "fit", "R²"), rows))
    lead = element("p", f"{options.steps} steps of {options.batch} slices, the same for all sizes.")
    page = options.out / "scaling.html"
    page.write_text(document("Small transformers", lead, [Section("loss", "Loss and size", body)]), encoding="utf-8")
    print(page)


def encode(slices: Path, tokenizer: Path, folder: Path) -> None:
    """What all widths learn from, and are judged by."""
    digest, codebook = sha256(tokenizer), codebook_of(load_tokenizer(tokenizer))
    encoder = functools.partial(tokenizer_encoder, tokenizer, digest, "cpu")
    for split, variants in (("train", VARIANTS), ("test", 1)):
        write_pyramids(folder, Encoding(SliceDataset(slices, split), encoder, digest, codebook, variants, seed=0))


def measure(options: argparse.Namespace, width: int) -> tuple[int, dict[str, float]]:
    """Parameters without embeddings, and figures at the end of the run; for training the mean of its last steps."""
    config = TrainConfig(
        stage="transformer",
        data=options.slices,
        out=options.out / f"width-{width}-steps-{options.steps}-batch-{options.batch}",
        tokenizer=options.tokenizer,
        pyramids=options.out / "pyramids",
        depth=max(2, width // 16),
        width=width,
        heads=max(1, width // 32),
        steps=options.steps,
        batch_size=options.batch,
        learning_rate=1.5e-3,
        warmup=options.steps // 10,
        variants=VARIANTS,
        ema=0.98,
        log_every=max(1, options.steps // 30),
        validate_every=options.steps,
        save_every=max(1, options.steps // 10),
        validate_slices=128,
        device="cpu",
    )
    path = run(config, resume=True, console=Console(quiet=True))  # of a finished one, only looks whether it fits
    log = read_log(config.out / "log.csv")
    last = [value for step, value in log[Metric("loss")] if step > 0.8 * options.steps]
    finest = max((one for one in log if one.split == "held_out" and one.scale is not None), key=lambda one: one.scale)
    held_out, finest = Metric("loss", "held_out"), finest._replace(name="loss")
    metrics = {"held_out_loss": log[held_out][-1][1], "finest": log[finest][-1][1], "loss": float(np.mean(last))}
    model, _ = load_transformer(path)
    apart = sum(p.numel() for name, p in model.named_parameters() if name.split(".")[0] in ("labels", "positions"))
    size = sum(p.numel() for p in model.parameters()) - apart
    print(f"width {width:4d}: {size / 1e6:6.3f} M, " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    return size, metrics


if __name__ == "__main__":
    main()
