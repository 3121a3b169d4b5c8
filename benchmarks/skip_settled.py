"""What does it save to skip settled tokens (`Sampling.skip_settled`), and what does it cost?

    python benchmarks/skip_settled.py --bundle FOLDER [--data SLICES] [--images 256] [--repeats 9]

Times one image with guidance for several shares, in turns, for a machine is not the same from minute to minute. With a
folder of prepared slices, also how the tokens that are drawn differ from those of the whole model, for several ways to
choose the places and to stand in for them (teacher forcing on held-out slices), and Fréchet and kernel distances
between images and held-out slices, beside those of the same number of images of other seeds. The bundle
must be of an export that can skip; `medvar export` of random weights does for the times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from generate import named
from scipy.ndimage import zoom

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import Backend
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import read_bundle
from medvar_engine.conditions import Condition
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.evaluate.encoders import open_encoder
from medvar_engine.evaluate.frechet import frechet_distance, moments
from medvar_engine.evaluate.kernel import kernel_distance
from medvar_engine.generator import Generator
from medvar_engine.request import Request
from medvar_engine.sampling import Sampling, draw, entropy, log_softmax
from medvar_engine.settled import fill_in, skipped_tokens, unsettled

SHARES = (0.0, 0.25, 0.4, 0.5)
BATCH = 16
OTHER_SEEDS = 10_000


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="an exported model")
    parser.add_argument("--data", type=Path, help="folder of prepared slices, some of them held out")
    parser.add_argument("--encoder", default="descriptor", help="as of `medvar evaluate` (default descriptor)")
    parser.add_argument("--images", type=int, default=256, help="images of each kind that are compared (default 256)")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of which the median is given (default 9)")
    options = parser.parse_args()
    bundle = read_bundle(options.bundle)
    backend = OnnxBackend(bundle, device="cpu")
    times(backend, bundle.sampling, options.repeats)
    if options.data:
        slices = SliceDataset(options.data, split="test")
        chosen = np.random.default_rng(0).permutation(len(slices))
        stand_ins(backend, slices, chosen[:BATCH], bundle.sampling)
        distances(backend, slices, chosen[: options.images], bundle.sampling, options.encoder)


def times(backend: Backend, sampling: Sampling, repeats: int) -> None:
    """One image with guidance, decoded and not."""
    taken: dict[float, list[float]] = {share: [] for share in SHARES}
    tokens: dict[float, list[float]] = {share: [] for share in SHARES}
    for seed in range(repeats + 1):
        for share in SHARES:
            generator, begin = Generator(backend), time.perf_counter()
            done = generator.finish(
                generator.start([Request(named(backend.info.labels), seed, skipping(sampling, share))])
            )
            tokens[share].append(time.perf_counter() - begin)
            generator.image(done)
            taken[share].append(time.perf_counter() - begin)
    print("one image with guidance\n  share      time   of the whole model's   of its tokens alone")
    for share in SHARES:
        ratios = [
            median(own / whole for own, whole in zip(part[share][1:], part[0.0][1:], strict=True))
            for part in (taken, tokens)
        ]
        print(f"  {share:<6} {median(taken[share][1:]):7.3f} s   {ratios[0]:>20.2f}   {ratios[1]:>19.2f}")


def stand_ins(backend: Backend, slices: SliceDataset, chosen: IntArray, sampling: Sampling) -> None:
    """Divergence from the whole model's distributions, and how strong what is drawn is, at the two finest scales."""
    info, schedule = backend.info, backend.info.schedule
    labels = np.array([info.labels.encode(info.labels.known(slices[int(i)][1])) for i in chosen], dtype=np.int64)
    state, latents, features, before = backend.start(labels), [], None, np.zeros(0, np.float32)
    print(
        "\nnats away at skipped and at other places; what is drawn with the same noise: its strength to the whole"
        "\nmodel's, and its mean square difference to that between two seeds"
    )
    for k, tokens in enumerate(backend.encode(slices.batch(chosen))):
        whole, longer = backend.step(state, features)
        if skipped_tokens(schedule, k, SHARES[-1]):
            full, other = (added(backend, whole, sampling, k, first) for first in (0, OTHER_SEEDS))
            for share in SHARES[1:]:
                if not (skipped := skipped_tokens(schedule, k, share)):
                    continue
                for name, choose in choices(latents, before).items():
                    places = choose(schedule[k], skipped)
                    taken = np.take_along_axis(features, places[:, :, None], axis=1)
                    logits, _ = backend.step(state, taken, places)
                    filled = [fill_in(*own, schedule[k]) for own in zip(logits, places, strict=True)]
                    earlier = [interpolated(own, schedule[k - 1], schedule[k]) for own in before]
                    for old, new, own in zip(earlier, logits, places, strict=True):
                        old[own] = new
                    for how, made in (("neighbours", np.stack(filled)), ("scale before", np.stack(earlier))):
                        away, rest = divergence(whole, made, places)
                        drawn = added(backend, made, sampling, k)
                        ratio, apart = mean_square(drawn) / mean_square(full), mean_square(drawn - full)
                        print(
                            f"  scale {k}, share {share:<5} {name:<10} {how:<13} {away:6.2f} {rest:7.3f} {ratio:6.2f} "
                            f"{apart / mean_square(other - full):6.2f}"
                        )
        latent, features = backend.accumulate(latents[-1] if latents else None, tokens, k)
        latents.append(latent)
        state, before = longer, whole


def choices(latents: Sequence[FloatArray], before: FloatArray) -> dict[str, Callable[[int, int], IntArray]]:
    """Places that are drawn, ``(B, L)``, by what the scale before changed, and by others."""

    def by(values: FloatArray) -> Callable[[int, int], IntArray]:
        return lambda side, skipped: unsettled(values, None, side, skipped)

    earlier = latents[-2] if len(latents) > 1 else 0 * latents[-1]
    side = latents[-1].shape[-1]
    bits = entropy(before)
    grid = round(bits.shape[1] ** 0.5)
    surprise = np.stack([zoom(own.reshape(grid, grid), side / grid, order=1) for own in bits])[:, None]
    return {
        "change": by(latents[-1] - earlier),
        "entropy": by(surprise),
        "mean": by(latents[-1] - latents[-1].mean(axis=(2, 3), keepdims=True)),  # FastVAR's, of features
        "random": by(np.random.default_rng(0).random(latents[-1].shape, dtype=np.float32)),
    }


def interpolated(logits: FloatArray, old: int, new: int) -> FloatArray:
    """``(old², V)`` → ``(new², V)``, bilinear."""
    x = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low, part = np.floor(x).astype(int), (x % 1).astype(np.float32)[:, None, None]
    high = np.minimum(low + 1, old - 1)
    grid = logits.reshape(old, old, -1)
    tall = grid[low] * (1 - part) + grid[high] * part
    wide = tall[:, low] * (1 - part[:, 0]) + tall[:, high] * part[:, 0]
    result: FloatArray = wide.reshape(new * new, -1)
    return result


def divergence(whole: FloatArray, made: FloatArray, places: IntArray) -> tuple[float, float]:
    """Kullback-Leibler divergence of ``made`` from ``whole``, the mean over skipped places and over others, in nats."""
    log_p, log_q = log_softmax(whole), log_softmax(made)
    nats = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    drawn = np.zeros(nats.shape, dtype=bool)
    np.put_along_axis(drawn, places, True, axis=1)
    return float(nats[~drawn].mean()), float(nats[drawn].mean())


def added(backend: Backend, logits: FloatArray, sampling: Sampling, k: int, first: int = 0) -> FloatArray:
    """What tokens drawn from ``logits``, with seeds from ``first`` on, add to the latent."""
    tokens = np.stack([draw(own, sampling, first + i, k) for i, own in enumerate(logits)])
    return backend.accumulate(None, tokens, k)[0]


def mean_square(values: FloatArray) -> float:
    """Over all."""
    return float(np.square(values).mean())


def distances(backend: Backend, slices: SliceDataset, chosen: IntArray, sampling: Sampling, encoder_name: str) -> None:
    """Images under the conditions of held-out slices, from those slices."""
    conditions = [backend.info.labels.known(slices[int(i)][1]) for i in chosen]
    encoder = open_encoder(encoder_name)
    real = encoder.encode(slices.batch(np.arange(len(slices)))[:, 0])
    print(f"\n{len(chosen)} images and {len(real)} held-out slices, {encoder.name}\n  share  seeds   Fréchet   kernel")
    for share, first in ((0.0, 0), (0.0, OTHER_SEEDS), *((share, 0) for share in SHARES[1:])):
        features = encoder.encode(images(backend, conditions, skipping(sampling, share), first))
        apart = frechet_distance(moments(features), moments(real)), kernel_distance(features, real)[0]
        print(f"  {share:<6} {first:>5}…  {apart[0]:8.3f}  {apart[1]:7.4f}", flush=True)


def images(backend: Backend, conditions: Sequence[Condition], sampling: Sampling, first: int) -> FloatArray:
    """One a condition, with rising seeds."""
    requests = [Request(condition, first + i, sampling) for i, condition in enumerate(conditions)]
    made = []
    for start in range(0, len(requests), BATCH):
        generator = Generator(backend)
        made.append(generator.image(generator.finish(generator.start(requests[start : start + BATCH]))))
    return np.concatenate(made)


def skipping(sampling: Sampling, share: float) -> Sampling:
    """The model's own sampling, but for the share."""
    return Sampling(sampling.guidance, sampling.temperature, sampling.top_k, sampling.top_p, share)


if __name__ == "__main__":
    main()
