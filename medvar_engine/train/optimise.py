"""Optimisers, the learning-rate schedule, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medvar_engine.errors import MedvarError
from medvar_engine.models.lora import LowRank
from medvar_engine.train.config import TrainConfig

_WITH_DECAY = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def optimizers(model: nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of a model by name: AdamW, or Muon for the matrices of blocks and AdamW for the rest.

    Weight decay applies to the weights of linear maps and convolutions. It does not apply to biases, norms, embeddings
    of positions, scales and names, and the sharpness of attention.
    """
    owned = [(module, dict(module.named_parameters(recurse=False))) for module in model.modules()]
    weights = [own["weight"] for module, own in owned if isinstance(module, _WITH_DECAY) and "weight" in own]
    # Low-rank changes of linear maps have weight decay, too.
    weights += [part for module, own in owned if isinstance(module, LowRank) for part in own.values()]
    decayed = {id(weight): weight for weight in weights if weight.requires_grad}
    matrices = _block_matrices(model) if config.optimizer == "muon" else {}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in decayed | matrices]
    groups = [
        {"params": [p for key, p in decayed.items() if key not in matrices], "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), fused=True)
    if not matrices:
        return {"optimizer": adamw}
    # Its updates are as large as those of AdamW (arXiv 2502.16982, section 2.2), so both use the same learning rate.
    muon = torch.optim.Muon(
        matrices.values(), lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return {"optimizer": adamw, "matrix_optimizer": muon}


def _block_matrices(model: nn.Module) -> dict[int, nn.Parameter]:
    """The two-dimensional weights of a transformer's blocks, by identity."""
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        raise MedvarError("optimizer=muon is for transformers only. Use optimizer=adamw.")
    return {id(p): p for p in blocks.parameters() if p.requires_grad and p.ndim == 2}


def critic_optimizer(critic: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam for a discriminator, with a low beta1, because the images that it judges change (arXiv 1511.06434)."""
    return torch.optim.Adam(critic.parameters(), lr=config.critic_learning_rate, betas=(0.5, 0.9))


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to ``final_learning_rate`` of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def copied(model: nn.Module) -> nn.Module:
    """A frozen copy of a model."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move ``average`` towards ``model``.

    The decay is lower in early steps, so that the initial weights soon vanish.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, its in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(its)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments under flat names ``INDEX.NAME``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; learning rates stay those of ``optimizer``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
