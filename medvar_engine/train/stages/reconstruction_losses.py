"""`ReconstructionLoss`: the losses of decoded images against real ones, and the discriminator, for all decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.conditions import Condition
from medvar_engine.metric_log import Metric
from medvar_engine.models.feature_network import load_feature_network
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.stage import Metrics
from medvar_engine.train.stages.held_out_metrics import Scores
from medvar_engine.train.stages.image_similarity import detail_strength, psnr, ssim
from medvar_engine.train.stages.losses import (
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    gradient_loss,
    log_error,
    texture_losses,
)

DRAWN = 8.0  # weight of the texture loss of drawn detail, relative to detail with a pixel-wise loss


@dataclass(frozen=True, eq=False)
class CertainParts:
    """The part of decoded images that must agree with real ones, if some of their tokens were drawn."""

    wholly: Tensor  # (B,) bool: images of true tokens, which must agree completely
    part: Callable[[Tensor], Tensor]  # removes the detail of drawn scales from images (B, C, H, W)


class ReconstructionLoss:
    """Weighted sum of the losses in the settings, optionally with a patch discriminator late in the run."""

    def __init__(self, config: TrainConfig, channels: int, device: torch.device) -> None:
        self.config = config
        self.critic = PatchDiscriminator(channels).to(device) if config.adversarial > 0 else None
        network = config.feature_network
        self.features = None if network is None else load_feature_network(network).to(device)
        self._seen: list[tuple[Tensor, Tensor]] = []  # real and decoded images of this step, for the discriminator

    def forget(self) -> None:
        """Clear the images of the last step. Called before every step."""
        self._seen = []

    def loss(
        self,
        output: Tensor,
        images: Tensor,
        step: int,
        last: Tensor,
        certain: CertainParts | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Loss of decoded images ``(B, C, H, W)`` against real images.

        ``last`` are the weights of the decoder's last layer, which balance the adversarial loss. Without ``certain``
        all images must agree completely. The discriminator judges all images.
        """
        config = self.config
        made, real = (output, images) if certain is None else (certain.part(output), certain.part(images))
        l1, l2 = F.l1_loss(made, real), F.mse_loss(made, real)
        total = config.l1 * l1 + config.l2 * l2 + config.gradient * gradient_loss(made, real)
        if config.log_l2:
            total = total + config.log_l2 * log_error(made, real)
        if config.perceptual and self.features is not None:
            distance = self.features.distance(output, images)
            total = total + config.perceptual * (distance if certain is None else distance * certain.wholly).mean()
        metrics: Metrics = {Metric("l1"): l1.detach(), Metric("psnr"): psnr(output.detach(), images).mean()}
        pixels = total  # what the adversarial loss is balanced with: a large texture loss would strengthen it, too
        if config.texture:
            total = total + config.texture * self._texture(output, images, certain)
        if self.critic and step >= config.adversarial_start * config.steps:
            self.critic.requires_grad_(False)
            adversarial = -self.critic(output).mean()
            total = total + config.adversarial * adaptive_weight(pixels, adversarial, last) * adversarial
            self._seen.append((images, output.detach()))
        return total, metrics

    def _texture(self, output: Tensor, images: Tensor, certain: CertainParts | None) -> Tensor:
        """For drawn images only the strength of detail counts; for other images its position counts, too."""
        local, whole = texture_losses(output, images)
        if certain is None:
            return (local + whole).mean()
        return torch.where(certain.wholly, local + whole, DRAWN * whole).mean()

    def critic_losses(self) -> Iterator[Tensor]:
        """The discriminator's loss on every micro-batch of this step, once it is used."""
        if self.critic is not None:
            self.critic.requires_grad_(True)
            for real, made in self._seen:
                yield discriminator_loss(self.critic(real), self.critic(made))

    def judge(self, scores: Scores, output: Tensor, images: Tensor, conditions: Sequence[Condition]) -> None:
        """Add the similarity of decoded images ``(B, C, H, W)`` to real images with these conditions to ``scores``."""
        scores.add("psnr", psnr(output, images), conditions)
        scores.add("ssim", ssim(output, images), conditions)
        scores.add("detail", detail_strength(output, images), conditions)
        if self.features is not None:
            scores.add("feature_distance", self.features.distance(output, images), conditions)
