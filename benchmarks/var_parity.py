"""Do imported VAR weights compute what VAR computes? Compares with a checkout of `FoundationVision/VAR`.

    python benchmarks/var_parity.py PATH_OF_VAR_CHECKOUT [--depth 16] [--shared-modulation] [--size 512]

Builds VAR's own models with random weights, saves their state dicts as VAR's training does, imports them with
`medvar_engine.models.import_var`, and prints the largest absolute difference at every stage. Exits with 1 when one
exceeds 1e-4, or when one token differs. The default is small; ``--depth 16`` has the sizes of the published d16.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import math
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medvar_engine.models.import_var import import_var
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_tokenizer, load_transformer

TOLERANCE = 1e-4
SCHEDULES = {256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}
CLASSES, GUIDANCE = 1000, 1.5


def main() -> int:
    """Run the comparison; 0 when all is equal within tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of a FoundationVision/VAR checkout")
    parser.add_argument("--depth", type=int, default=4, help="blocks; width is 64 a block (default 4; 16 is d16)")
    parser.add_argument("--shared-modulation", action="store_true", help="one AdaLN for all blocks, as in d36")
    parser.add_argument("--size", type=int, choices=sorted(SCHEDULES), default=256, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # VAR's torch.cuda.amp
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    begin = time.perf_counter()

    vae, var = theirs(options)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        torch.save(vae.state_dict(), root / "vae.pth")
        torch.save(var.state_dict(), root / "var.pth")
        paths = import_var(root / "vae.pth", root / "var.pth", root)
        tokenizer = load_tokenizer(paths[0])
        transformer, labels = load_transformer(paths[1])
    millions = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (tokenizer, transformer)]
    print(f"imported: tokenizer {millions[0]:.1f} M parameters, transformer {millions[1]:.1f} M")
    print(f"          {transformer.config}, {len(labels.dataset)} classes")

    worst = 0.0
    with torch.no_grad():
        for name, ours, reference in compare(vae, var, tokenizer, transformer, options):
            if ours.dtype.is_floating_point:
                difference = float((ours - reference).abs().max())
                verdict = "ok" if difference <= TOLERANCE else "DIFFERS"  # NaN differs, too
                print(f"{name:<46} {difference:9.2e}  of {float(reference.abs().max()):8.2f}  {verdict}")
            else:
                wrong, codes = int((ours != reference).sum()), len(set(reference.flatten().tolist()))
                difference = 0.0 if wrong == 0 else math.inf
                verdict = "ok" if wrong == 0 else "DIFFERS"
                print(f"{name:<46} {wrong:4d} of {reference.numel()} differ, {codes} codes  {verdict}")
            worst = max(worst, difference if difference == difference else math.inf)
    print(f"worst {worst:.2e}, tolerance {TOLERANCE:g}, {time.perf_counter() - begin:.0f} s on the CPU")
    return int(worst > TOLERANCE)


def open_checkout(checkout: Path) -> None:
    """Make VAR's own code importable, on the CPU."""
    if not (checkout / "models" / "var.py").is_file():
        raise SystemExit(f"{checkout} is no checkout of FoundationVision/VAR: it has no models/var.py.")
    if importlib.util.find_spec("huggingface_hub") is None:
        print("huggingface_hub is not installed: standing in an empty class for VAR's download mixin")
        stub = types.ModuleType("huggingface_hub")
        stub.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})  # type: ignore[attr-defined]
        sys.modules["huggingface_hub"] = stub
    sys.path.insert(0, str(checkout.resolve()))
    import dist  # type: ignore[import-not-found]

    dist.get_device = lambda: "cpu"


def theirs(options: argparse.Namespace) -> tuple[Any, Any]:
    """VAR's VQVAE and VAR in eval mode, every weight random."""
    open_checkout(options.checkout)
    from models import VAR, VQVAE  # type: ignore[import-not-found]

    schedule = SCHEDULES[options.size]
    with contextlib.redirect_stdout(io.StringIO()):  # its constructors report at length
        vae = VQVAE(
            vocab_size=4096, z_channels=32, ch=160 if options.depth >= 16 else 32, v_patch_nums=schedule, test_mode=True
        )
        var = VAR(
            vae,
            num_classes=CLASSES,
            depth=options.depth,
            embed_dim=64 * options.depth,
            num_heads=options.depth,
            shared_aln=options.shared_modulation,
            cond_drop_rate=0.0,  # VAR drops conditions in eval mode, too
            attn_l2_norm=True,
            patch_nums=schedule,
        )
    randomise(vae)
    randomise(var)
    # Codes of the latent's size, and ever smaller ones: else all scales would choose the same few.
    with torch.no_grad():
        latent = vae.quant_conv(vae.encoder(images(options)))
        codes = torch.randn_like(vae.quantize.embedding.weight) * torch.rand(4096, 1)
        mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
        vae.quantize.embedding.weight.copy_(codes * std + mean * torch.rand(4096, 1))
        vae.quantize.ema_vocab_hit_SV.uniform_()
    return vae.eval(), var.eval()


def randomise(model: nn.Module) -> None:
    """Random values everywhere: VAR starts with zeros and near-zero gates, which would hide mistakes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale_mul_1H11"):  # some beyond the limit log 100, where both have to clamp
                parameter.uniform_(1.0, 5.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim >= 2 and "emb" not in name and not name.startswith("pos_") and "ada_gss" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)  # keeps activations of order 1
            else:
                parameter.normal_(std=0.3)


def images(options: argparse.Namespace) -> Tensor:
    """Random images ``(B, 3, H, W)`` in [-1, 1] with structure at all scales."""
    generator = torch.Generator().manual_seed(options.seed)
    random = torch.zeros(options.batch, 3, options.size, options.size)
    for side in (2, 8, 32, options.size):
        noise = torch.randn(options.batch, 3, side, side, generator=generator)
        random += nn.functional.interpolate(noise, size=options.size, mode="bilinear")
    return (random / 2).clamp(-1, 1)


def compare(
    vae: Any, var: Any, tokenizer: Tokenizer, transformer: Transformer, options: argparse.Namespace
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, ours and theirs of every stage."""
    random = images(options)
    quantizer = tokenizer.quantizer
    schedule = transformer.schedule
    yield "latent before quantisation", tokenizer.latent(random), vae.quant_conv(vae.encoder(random))

    tokens = tuple(vae.img_to_idxBl(random))
    for k, (ours, reference) in enumerate(zip(tokenizer.encode(random), tokens, strict=True)):
        yield f"tokens of scale {k} ({schedule[k]}x{schedule[k]})", ours, reference

    embedded = [
        vae.quantize.embedding(index).transpose(1, 2).unflatten(2, (side, side))
        for index, side in zip(tokens, schedule, strict=True)
    ]
    latents = vae.quantize.embed_to_fhat(embedded, all_to_max_scale=True, last_one=False)
    ours = torch.stack([quantizer.decode(tokens[: k + 1]) for k in range(len(schedule))])
    yield "latents of all prefixes", ours, torch.stack(latents)
    features = vae.quantize.idxBl_to_var_input(list(tokens))
    yield "features (teacher-forcing input)", quantizer.scale_features(tokens), features
    decoded = tokenizer.decoder(tokenizer.post_quant_conv(latents[-1]))
    yield "decoded image, before clamping", decoded, vae.decoder(vae.post_quant_conv(latents[-1]))

    label = torch.arange(options.batch) * 7 % CLASSES
    ours, reference = transformer(label[:, None], features), var(label, features)
    yield "logits, teacher forcing", ours, reference
    targets = torch.cat(tokens, 1).flatten()
    losses = [nn.functional.cross_entropy(logits.flatten(0, 1), targets)[None] for logits in (ours, reference)]
    yield "loss, teacher forcing", losses[0], losses[1]
    nothing = torch.full_like(label, CLASSES)
    yield "logits, teacher forcing, unconditional", transformer(nothing[:, None], features), var(nothing, features)

    recorded, image = infer(var, label, tokens)
    for k, (ours, reference) in enumerate(zip(step(transformer, quantizer, label, tokens), recorded, strict=True)):
        yield f"guided logits, cached keys, scale {k} ({schedule[k]}x{schedule[k]})", ours, reference
    yield "decoded image, of VAR's own inference", tokenizer.decode(quantizer.decode(tokens)), image


def infer(var: Any, label: Tensor, tokens: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor]:
    """VAR's own loop with its sampler replaced by given tokens: guided logits of every scale, and the image."""
    module, recorded = sys.modules["models.var"], []

    def choose(logits: Tensor, **_: Any) -> Tensor:
        recorded.append(logits.clone())
        return tokens[len(recorded) - 1][:, :, None]

    module.sample_with_top_k_top_p_ = choose  # type: ignore[attr-defined]
    image = var.autoregressive_infer_cfg(len(label), label, cfg=GUIDANCE)
    return recorded, image * 2 - 1


def step(transformer: Transformer, quantizer: Any, label: Tensor, tokens: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Our inference with the same tokens: guided logits of every scale."""
    labels = torch.cat((label, torch.full_like(label, CLASSES)))[:, None]
    scales = len(transformer.schedule)
    past, features = None, None
    for k in range(scales):
        logits, present = transformer.step(labels, features, past, k)
        past = present if past is None else torch.cat((past, present), dim=4)
        asked, unconditional = logits.chunk(2)
        strength = GUIDANCE * k / (scales - 1)
        yield (1 + strength) * asked - strength * unconditional
        if k + 1 < scales:
            features = quantizer.pool(quantizer.decode(tokens[: k + 1]), k + 1).repeat(2, 1, 1)


if __name__ == "__main__":
    sys.exit(main())
