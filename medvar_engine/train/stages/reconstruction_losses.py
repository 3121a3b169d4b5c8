"""How far decoded images are from the real ones: the losses of everything that decodes, and their critic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medvar_engine.conditions import Condition
from medvar_engine.metric_log import Metric
from medvar_engine.models.feature_network import load_feature_network
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.stage import Metrics
from medvar_engine.train.stages.held_out_metrics import Scores
from medvar_engine.train.stages.losses import (
    PatchDiscriminator,
    adaptive_weight,
    detail_strength,
    discriminator_loss,
    frequency_loss,
    gradient_loss,
    psnr,
    ssim,
    texture_loss,
)


class Reconstruction:
    """Weighted sum of the losses that the settings name; optionally a patch discriminator that joins late."""

    def __init__(self, config: TrainConfig, channels: int, device: torch.device) -> None:
        self.config = config
        self.critic = PatchDiscriminator(channels).to(device) if config.adversarial > 0 else None
        network = config.feature_network
        self.features = None if network is None else load_feature_network(network).to(device)
        self._seen: list[tuple[Tensor, Tensor]] = []  # real and decoded images of this step, for the critic

    def forget(self) -> None:
        """Called before every step."""
        self._seen = []

    def loss(
        self,
        output: Tensor,
        images: Tensor,
        step: int,
        last: Tensor,
        certain: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Loss of decoded ``(B, C, H, W)`` against real images.

        ``last`` are the weights of the decoder's last layer, which balance the critic. ``certain`` takes from both
        what they must agree in pixel by pixel; None is all.
        """
        config = self.config
        made, real = (output, images) if certain is None else (certain(output), certain(images))
        l1, l2 = F.l1_loss(made, real), F.mse_loss(made, real)
        total = config.l1 * l1 + config.l2 * l2 + config.gradient * gradient_loss(made, real)
        if config.frequency:
            total = total + config.frequency * frequency_loss(made, real)
        if config.texture:
            total = total + config.texture * texture_loss(output, images)
        if config.perceptual and self.features is not None:
            total = total + config.perceptual * self.features.distance(output, images).mean()
        metrics: Metrics = {Metric("l1"): l1.detach(), Metric("psnr"): psnr(output.detach(), images).mean()}
        if self.critic and step >= config.adversarial_start * config.steps:
            self.critic.requires_grad_(False)
            adversarial = -self.critic(output).mean()
            total = total + config.adversarial * adaptive_weight(total, adversarial, last) * adversarial
            self._seen.append((images, output.detach()))
        return total, metrics

    def critic_losses(self) -> Iterator[Tensor]:
        """The discriminator's loss on every part of the batch just seen, once it has joined."""
        if self.critic is not None:
            self.critic.requires_grad_(True)
            for real, made in self._seen:
                yield discriminator_loss(self.critic(real), self.critic(made))

    def judge(self, scores: Scores, output: Tensor, images: Tensor, conditions: Sequence[Condition]) -> None:
        """Add how like decoded ``(B, C, H, W)`` are to real images of these conditions."""
        scores.add("psnr", psnr(output, images), conditions)
        scores.add("ssim", ssim(output, images), conditions)
        scores.add("detail", detail_strength(output, images), conditions)
        if self.features is not None:
            scores.add("feature_distance", self.features.distance(output, images), conditions)
