"""Multi-scale residual quantisation (VAR, arXiv 2404.02905, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.models.interpolate import area_matrix, bicubic_matrix, resize
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.types import FloatArray


class Phi(nn.Conv2d):
    """Residual 3×3 convolution that reduces the error of upsampling a coarse map: ``(1-r)·h + r·conv(h)``."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1)
        self.ratio = ratio
        # Starts as the identity, so that the code nearest to a residual is the best one from the first step.
        nn.init.dirac_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, C, H, W)``."""
        return h * (1 - self.ratio) + super().forward(h) * self.ratio


@dataclass(frozen=True)
class Quantized:
    """The result of quantising a latent in a training step."""

    latent: Tensor  # (B, C, H, W), quantised, with a straight-through gradient to the encoder
    tokens: tuple[Tensor, ...]  # K × (B, L_k)
    residuals: tuple[Tensor, ...]  # K × (B·L_k, C): the quantised vectors, used to restart unused codes
    loss: Tensor  # codebook loss + β · commitment loss, averaged over scales


class MultiScaleQuantizer(nn.Module):
    """Quantises with one codebook for all scales; scale ``k`` encodes the residual of the coarser scales.

    The K scales share ``phis`` convolutions; each scale uses the nearest one.
    """

    def __init__(
        self,
        schedule: ScaleSchedule,
        vocabulary: int,
        channels: int,
        *,
        phis: int = 4,
        phi_ratio: float = 0.5,
        beta: float = 0.25,
    ) -> None:
        super().__init__()
        self.schedule, self.vocabulary, self.channels, self.beta = schedule, vocabulary, channels, beta
        self.codebook = nn.Embedding(vocabulary, channels).requires_grad_(False)  # see `forward`
        nn.init.normal_(self.codebook.weight, std=channels**-0.5)
        self.phis = nn.ModuleList(Phi(channels, phi_ratio) for _ in range(phis))
        # Moving average of the number of uses of each code by each scale, per image.
        self.register_buffer("usage", torch.zeros(len(schedule), vocabulary))
        side = schedule.latent_side
        for k, n in enumerate(schedule):
            self.register_buffer(f"down_{k}", area_matrix(side, n), persistent=False)
            self.register_buffer(f"up_{k}", bicubic_matrix(n, side), persistent=False)

    @property
    def codes(self) -> FloatArray:
        """The code of every token as a float32 array ``(V, C)``, whatever the device and precision of the weights."""
        array: FloatArray = self.codebook.weight.detach().float().cpu().numpy()
        return array

    def phi(self, k: int) -> Phi:
        """The shared convolution of scale ``k``."""
        count = len(self.phis)
        position = k / max(1, len(self.schedule) - 1)
        edge = (1 / 3 if count == 4 else 1 / 2) / count  # ticks as in VAR
        # A scale can lie midway between two ticks (k = 2 of 10 with 4 phis), so the last bit decides. As in VAR, it
        # is computed with numpy: torch.linspace rounds differently and depends on the default device.
        ticks = np.linspace(edge, 1 - edge, count)
        return self.phis[int(np.abs(ticks - position).argmin())]  # type: ignore[return-value]

    def pool(self, latent: Tensor, k: int) -> Tensor:
        """Latent ``(B, C, H, W)`` averaged to the resolution of scale ``k``, as a sequence ``(B, L_k, C)``."""
        if self.schedule[k] != self.schedule.latent_side:
            latent = resize(latent, self.get_buffer(f"down_{k}"))
        return latent.flatten(2).transpose(1, 2)

    def _band(self, latent: Tensor, k: int) -> Tensor:
        """The part of a latent ``(B, C, H, W)`` that scale ``k`` can hold: averaged to its resolution, and enlarged."""
        if self.schedule[k] == self.schedule.latent_side:
            return latent
        return resize(resize(latent, self.get_buffer(f"down_{k}")), self.get_buffer(f"up_{k}"))

    def residual(self, latent: Tensor, k: int) -> Tensor:
        """The residual of a latent at scale k as vectors ``(B, L_k, C)``, which codes approximate."""
        return self.pool(latent, k)

    def lift(self, tokens: Tensor, k: int) -> Tensor:
        """Tokens ``(B, L_k)`` → their contribution to the latent, ``(B, C, H, W)``."""
        side = self.schedule[k]
        h = self.codebook(tokens).transpose(1, 2).unflatten(2, (side, side))
        if side != self.schedule.latent_side:
            h = resize(h, self.get_buffer(f"up_{k}"))
        out: Tensor = self.phi(k)(h)
        return out

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the codebook entry nearest to each vector: ``(N, C)`` → ``(N,)``."""
        codes = self.codebook.weight
        distance = vectors.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * vectors @ codes.T
        return distance.argmin(dim=1)

    def encode(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Latent ``(B, C, H, W)`` → K token maps ``(B, L_k)``."""
        rest, tokens = latent, []
        for k in range(len(self.schedule)):
            vectors = self.pool(rest, k)
            tokens.append(self.nearest(vectors.flatten(0, 1)).view(vectors.shape[:2]))
            rest = rest - self.lift(tokens[-1], k)
        return tuple(tokens)

    def decode(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """The first k token maps (a prefix of any length ≥ 1) → latent ``(B, C, H, W)``."""
        return torch.stack([self.lift(t, k) for k, t in enumerate(tokens)]).sum(0)

    def scale_features(self, tokens: tuple[Tensor, ...]) -> Tensor:
        """Scale features of scales 1…K-1 for teacher forcing: ``(B, L - L_0, C)``."""
        latent, parts = torch.zeros(()), []
        for k, token_map in enumerate(tokens[:-1]):
            latent = latent.to(token_map.device) + self.lift(token_map, k)
            parts.append(self.pool(latent, k + 1))
        return torch.cat(parts, dim=1)

    def forward(self, latent: Tensor, depths: Tensor | None = None) -> Quantized:
        """Quantise a latent ``(B, C, H, W)`` in a training step, in float32.

        ``depths`` ``(B,)``, if given, is the number of scales of each image that are passed to the decoder, so that it
        learns to decode previews of coarse scales; beyond K, the latent before quantisation is passed. The loss always
        covers all scales. The gradient of an image passes through the resolution of its last scale: finer detail of the
        latent does not change what the decoder gets. The codebook gets no gradient; training updates it as a moving
        average of the residuals.
        """
        target, scales = latent.detach(), len(self.schedule)
        total = torch.zeros_like(latent)
        seen = latent
        tokens: list[Tensor] = []
        residuals: list[Tensor] = []
        loss = latent.new_zeros(())
        for k in range(scales):
            vectors = self.pool(target - total.detach(), k)
            with torch.no_grad():
                index = self.nearest(vectors.flatten(0, 1)).view(vectors.shape[:2])
            total = total + self.lift(index, k)
            if depths is not None:
                shown = _straight(self._band(latent, k), total)
                seen = torch.where((depths > k)[:, None, None, None], shown, seen)
            loss = loss + F.mse_loss(total, target) + self.beta * F.mse_loss(latent, total.detach())
            tokens.append(index)
            residuals.append(vectors.flatten(0, 1))
        if depths is None:
            seen = _straight(latent, total)
        else:
            seen = torch.where((depths > scales)[:, None, None, None], latent, seen)
        return Quantized(seen, tuple(tokens), tuple(residuals), loss / scales)


def _straight(passed: Tensor, value: Tensor) -> Tensor:
    """``value`` with the gradient of ``passed``: the straight-through estimator."""
    return passed + (value - passed).detach()
