"""Stage ``transformer``: learns to predict each token map from the coarser ones, on pyramids encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.data.shards.files import sha256
from medvar_engine.models.files import load_tokenizer, save_transformer
from medvar_engine.models.presets import transformer_preset
from medvar_engine.models.sample import sample
from medvar_engine.models.transformer import Transformer
from medvar_engine.train.batches import BalancedSampler, check_size, spread
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.images import write_grid
from medvar_engine.train.pyramids import Encoding, encoder_of, read_pyramids, write_pyramids

SHOWN = 6  # samples a cell in a sample grid
CELLS = 12  # cells in a sample grid


class TransformerStage:
    """Cross-entropy of every token, under teacher forcing."""

    critic = None

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, device: torch.device) -> None:
        assert config.tokenizer is not None  # checked by TrainConfig
        self.config, self.device = config, device
        self.state: dict[str, nn.Module] = {}
        self.tokenizer = load_tokenizer(config.tokenizer).to(device).requires_grad_(False)
        check_size(train, self.tokenizer.config.image_size)
        self.schedule = self.tokenizer.schedule
        self.label_space = LabelSpace.of(map(self._asked, train.conditions.kinds))
        torch.manual_seed(config.seed)
        shape = transformer_preset(config.preset, self.tokenizer.config, self.label_space.sizes)
        if config.dropout is not None:
            shape = replace(shape, dropout=config.dropout)
        self.model: Transformer = Transformer(shape).to(device)
        variants = config.variants if config.augment else 1
        self.pyramids = self._pyramids(train, variants)  # (variants, N, L)
        self.labels = self._labels(train.conditions.kinds)[train.conditions.codes]
        self.held_out = self._pyramids(held_out, 1)[0]
        self.held_out_labels = self._labels(held_out.conditions.kinds)[held_out.conditions.codes]
        self.sampler = BalancedSampler(train.conditions, config.balance)
        self.cells = sorted({(c.modality, c.region, c.plane) for c in train.conditions.kinds}, key=str)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy over tokens, and that of each scale."""
        index = self.sampler.draw(self.config.batch_size, rng)
        variant = rng.integers(len(self.pyramids), size=len(index))
        scales = len(self.schedule)
        depth = 3 * scales // 4 if rng.random() < self.config.short else scales
        tokens = self._tokens(self.pyramids[variant, index])[:depth]
        labels = self.model.drop_condition(self.labels[torch.from_numpy(index)].to(self.device))
        losses = self._cross_entropy(self.model, labels, tokens)
        return losses.mean(), {f"loss_scale_{k}": part.mean().item() for k, part in enumerate(self._scales(losses))}

    def critic_loss(self) -> Tensor | None:
        """There is no critic."""
        return None

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module, folder: Path) -> dict[str, float]:
        """Cross-entropy on held-out patients, overall and a scale; samples of every kind of slice as PNG."""
        assert isinstance(model, Transformer)
        index = spread(len(self.held_out), self.config.validate_slices)
        losses = torch.cat(
            [
                self._cross_entropy(
                    model, self.held_out_labels[part].to(self.device), self._tokens(self.held_out[part])
                )
                for part in np.array_split(index, -(-len(index) // self.config.batch_size))
            ]
        )
        figures = {"held_out_loss": losses.mean().item()}
        figures |= {f"held_out_loss_scale_{k}": part.mean().item() for k, part in enumerate(self._scales(losses))}
        self._show(model, folder)
        return figures

    def held_out_loss(self, figures: Mapping[str, float]) -> float:
        """What is to fall."""
        return figures["held_out_loss"]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the transformer and its label space as one file."""
        assert isinstance(model, Transformer)
        save_transformer(path, model, self.label_space)

    def _show(self, model: Transformer, folder: Path) -> None:
        """A row a cell: samples of one modality, region and plane."""
        cells = [self.cells[i] for i in spread(len(self.cells), CELLS)]
        labels = self._labels([Condition(m, r, p) for m, r, p in cells for _ in range(SHOWN)]).to(self.device)
        tokens = sample(model, self.tokenizer.quantizer, labels, top_k=100, seed=self.config.seed)
        write_grid(folder / "samples.png", self.tokenizer.decode(self.tokenizer.quantizer.decode(tokens)), SHOWN)

    def _cross_entropy(self, model: Transformer, labels: Tensor, tokens: tuple[Tensor, ...]) -> Tensor:
        """``(B, L)``."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            features = self.tokenizer.quantizer.features(tokens)
        logits, target = model(labels, features).float(), torch.cat(tokens, 1)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)

    def _asked(self, condition: Condition) -> Condition:
        """Only the factors that this model is conditioned on."""
        return Condition(**{n: v for n, v in condition.to_dict().items() if n in self.config.factors})

    def _scales(self, losses: Tensor) -> tuple[Tensor, ...]:
        counts = [
            n
            for n, end in zip(self.schedule.token_counts, self.schedule.offsets[1:], strict=True)
            if end <= losses.shape[1]
        ]
        return losses.detach().split(counts, dim=1)

    def _tokens(self, pyramids: npt.NDArray[np.uint16]) -> tuple[Tensor, ...]:
        flat = torch.from_numpy(pyramids.astype(np.int64)).to(self.device)
        return flat.split(self.schedule.token_counts, dim=1)

    def _labels(self, conditions: list[Condition] | tuple[Condition, ...]) -> Tensor:
        """``(N, F)``; a held-out label that training never saw is the unconditional one."""
        known = self.label_space
        rows = []
        for condition in conditions:
            values = {n: v for n, v in self._asked(condition).to_dict().items() if v in getattr(known, n)}
            rows.append(known.encode(Condition(**values)))
        return torch.tensor(rows, dtype=torch.int64)

    def _pyramids(self, data: SliceDataset, variants: int) -> npt.NDArray[np.uint16]:
        """Those encoded beforehand, or else encoded now and kept for the next start."""
        config = self.config
        assert config.tokenizer is not None
        if config.pyramids is not None:
            return read_pyramids(config.pyramids, data, config.tokenizer, variants)
        encoding = Encoding(
            data,
            lambda: encoder_of(self.tokenizer),
            sha256(config.tokenizer),
            variants,
            config.seed,
            str(self.device),
        )
        return write_pyramids(config.out, encoding)
