"""Fits the patches of a tokenizer of resolutions to slices, scale by scale, by k-means."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer

MOST_VECTORS = 200_000  # largest number of vectors of one scale for k-means
ITERATIONS = 16
CHUNK = 16_384  # vectors with distances in memory at once
NOISE_FLOOR = 0.02  # standard deviation below which scale features are not amplified, as a fraction of half the range

Log = Callable[[str], None]


@torch.no_grad()
def fit_patches(quantizer: ResolutionQuantizer, canvases: Tensor, log: Log = print) -> None:
    """Fit patches and whitening, from coarse to fine, to images folded as canvases ``(N, p², side, side)``.

    Uses torch's global random generator. Patches of one scale get the numbers of the most similar patches of the scale
    before, so that the transformer can share embeddings of tokens between scales.
    """
    rest, before = canvases.clone(), dict[tuple[int, int], Tensor]()
    for k in range(len(quantizer.schedule)):
        if k > 0:
            _fit_whitening(quantizer, canvases - rest, k)
        vectors = _some(torch.cat([quantizer.residual(part, k).flatten(0, 1) for part in rest.split(256)]))
        patches = _k_means(vectors, quantizer.vocabulary)
        if (coarser := before.get(quantizer.coded[k])) is not None:
            patches = _numbered_like(patches, coarser)
        quantizer.patches(k).copy_(patches)
        before[quantizer.coded[k]] = patches
        for part in rest.split(256):  # views, so `rest` itself is changed
            part -= quantizer.lift(quantizer.nearest(quantizer.residual(part, k), k), k)
        log(f"Scale {k}: {-10 * torch.log10(rest.square().mean((1, 2, 3)).clamp_min(1e-12) / 4).mean():.2f} dB")


def _some(vectors: Tensor) -> Tensor:
    """At most `MOST_VECTORS` random vectors of ``(N, D)``."""
    return vectors[torch.randperm(len(vectors))[:MOST_VECTORS]]


def _k_means(vectors: Tensor, count: int) -> Tensor:
    """``count`` centres of vectors ``(N, D)``; an unused centre is restarted at a vector far from its centre.

    With fewer vectors than centres, some centres stay unused.
    """
    centres = vectors[torch.randint(len(vectors), (count,))].clone()
    for iteration in range(ITERATIONS):
        chosen, distance = _nearest(vectors, centres)
        uses = torch.bincount(chosen, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, chosen, vectors)
        centres = torch.where(uses[:, None] > 0, sums / uses[:, None].clamp_min(1), centres)
        dead = (uses == 0).nonzero().flatten()
        if len(dead) and iteration + 1 < ITERATIONS:
            far = torch.multinomial(distance.clamp_min(1e-12), min(len(dead), len(vectors)))
            centres[dead[: len(far)]] = vectors[far]
    return centres


def _nearest(vectors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The index of the nearest centre and the squared distance to it, ``(N,)`` each."""
    squares = centres.square().sum(1)
    parts = [(squares - 2 * part @ centres.T).min(1) for part in vectors.split(CHUNK)]
    index = torch.cat([part.indices for part in parts])
    return index, (torch.cat([part.values for part in parts]) + vectors.square().sum(1)).clamp_min(0)


def _numbered_like(patches: Tensor, before: Tensor) -> Tensor:
    """Patches reordered to match ``before``; both are ``(V, D)`` and scaled to the same variance."""
    cost = torch.cdist(patches / patches.std(), before / before.std())
    rows, columns = linear_sum_assignment(cost.numpy())
    ordered = torch.empty_like(patches)
    ordered[torch.from_numpy(columns)] = patches[torch.from_numpy(rows)]
    return ordered


def _fit_whitening(quantizer: ResolutionQuantizer, canvases: Tensor, k: int) -> None:
    """Fit the principal axes of the windows of scale k, scaled to unit variance, and their offsets."""
    windows = _some(torch.cat([_windows(quantizer, part, k) for part in canvases.split(256)]))
    mean = windows.mean(0)
    variance, axes = torch.linalg.eigh((windows - mean).T @ (windows - mean) / len(windows))
    kernels = quantizer.get_buffer(f"feature_kernels_{k}")
    largest = torch.arange(len(variance) - 1, len(variance) - 1 - len(kernels), -1)
    whitening = axes[:, largest] / (variance[largest].clamp_min(0) + NOISE_FLOOR**2).sqrt()  # (D, C)
    kernels.copy_(whitening.T.view_as(kernels))
    quantizer.get_buffer(f"feature_offsets_{k}").copy_(-mean @ whitening)


def _windows(quantizer: ResolutionQuantizer, canvases: Tensor, k: int) -> Tensor:
    """All blocks of scale k with their margins, with black as 0: ``(B · L_k, D)``."""
    image, side = quantizer.shrink(canvases, k) + quantizer.get_buffer("black"), quantizer.patch + 2 * quantizer.margin
    columns = F.unfold(image, side, stride=quantizer.patch, padding=quantizer.margin)
    return columns.transpose(1, 2).flatten(0, 1)
