"""Stage ``transformer``: trains the prediction of each token map from the coarser ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvar_engine.conditions import Condition, LabelSpace
from medvar_engine.data.dataset import SliceDataset
from medvar_engine.errors import MedvarError
from medvar_engine.metric_log import Metric, Split
from medvar_engine.models.grey import as_grey
from medvar_engine.models.lora import merge
from medvar_engine.models.presets import transformer_preset
from medvar_engine.models.pretrained import check_tokenizer, join_labels, start_transformer
from medvar_engine.models.resolution_tokenizer import ResolutionConfig, ResolutionTokenizer
from medvar_engine.models.sample import sample
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import load_tokenizer, load_transformer, save_transformer
from medvar_engine.request import Sampling
from medvar_engine.storage import sha256
from medvar_engine.tokens.schedule import ScaleSchedule
from medvar_engine.train.batches import batch_draw, check_size, spread
from medvar_engine.train.config import TrainConfig
from medvar_engine.train.distributed.processes import Processes
from medvar_engine.train.image_batches import check_structures
from medvar_engine.train.stage import Batch, Metrics
from medvar_engine.train.stages.held_out_metrics import Scores
from medvar_engine.train.stages.image_grids import scale_previews, write_grid
from medvar_engine.train.stages.teacher_forcing import plain
from medvar_engine.train.stages.token_sources import EncodedBefore, EncodedNow, PyramidBatches, Source
from medvar_engine.train.token_pyramids import Encoding, codebook_of, encoder_of, read_pyramids, write_pyramids

SHOWN = 6  # samples per slice type in a sample grid
SLICE_TYPES = 12  # slice types in a sample grid
SAMPLING = Sampling(guidance=0.0, top_k=100, top_p=1.0)  # of samples in a sample grid
LADDERS = 4  # samples, each of another slice type, that are also shown scale by scale


class TransformerStage:
    """Trains with the cross-entropy of every token, by teacher forcing."""

    critic = None

    def __init__(self, config: TrainConfig, train: SliceDataset, held_out: SliceDataset, processes: Processes) -> None:
        assert config.tokenizer is not None  # checked by TrainConfig
        self.config, self.device = config, processes.device
        self.state: dict[str, nn.Module] = {}
        self.tokenizer = as_grey(load_tokenizer(config.tokenizer)).to(self.device).requires_grad_(False)
        check_size(train, self.tokenizer.config.image_size)
        self.structures: tuple[str, ...] = getattr(self.tokenizer.config, "structures", ())
        check_structures(train, self.structures)
        self.schedule = self.tokenizer.schedule
        torch.manual_seed(config.seed)
        self.label_space, model = self._start(label_space_of(config, train.conditions.distinct))
        self.model: Transformer = model.to(self.device)
        self.model.recompute = config.recompute
        if config.compile:
            for block in self.model.blocks:  # identical blocks are compiled once
                block.compile()
        self.network: nn.Module = self.model
        labels = self._labels(train.conditions.distinct)
        draw = batch_draw(train, config, processes, config.coarse_slices)
        self.source: Source
        with processes.main_first():
            if isinstance(self.tokenizer, ResolutionTokenizer):
                if config.pyramids is not None:
                    raise MedvarError(
                        "With a tokenizer of resolutions, slices are encoded during training. Leave pyramids out."
                    )
                self.source = EncodedNow(self.tokenizer, train, labels.to(self.device), draw, config)
            else:
                pyramids = self._pyramids(train, config.variants if config.augment else 1)  # (variants, N, L)
                batches = PyramidBatches(pyramids, labels[train.conditions.codes].numpy(), draw)
                self.source = EncodedBefore(self.tokenizer.quantizer, batches, config)
            self.held_out = self._pyramids(held_out, 1)[0]
        self.batches = self.source.batches
        self.weights = scale_weights(self.schedule, config.scale_balance).to(self.device)
        self.held_out_conditions = held_out.conditions
        self.held_out_labels = self._labels(held_out.conditions.distinct)[held_out.conditions.codes]
        self.slice_types = sorted({(c.modality, c.region, c.plane) for c in train.conditions.distinct}, key=str)

    def before_step(self, step: int) -> None:
        """Nothing to do."""

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, Metrics]:
        """Weighted cross-entropy of tokens; as metrics the cross-entropy and accuracy of each scale.

        The metrics, and ``z_loss``, are those of the slices from which all scales are learned.
        """
        config = self.config
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            whole, *coarse = self.source(batch)
        logits, losses = self._logits_and_losses(*whole)
        means = losses.mean(0)
        for examples in coarse:
            _, coarse_losses = self._logits_and_losses(*examples)
            length = coarse_losses.shape[1]
            means = torch.cat((torch.cat((losses[:, :length], coarse_losses)).mean(0), means[length:]))
        total = (means * self.weights).sum()
        if config.z_loss:  # as in PaLM (arXiv 2204.02311, section 5)
            total = total + config.z_loss * logits.logsumexp(-1).square().mean()
        return total, self._by_scale("train", losses, logits, whole[2])

    def _logits_and_losses(self, labels: Tensor, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, L, V)`` and their cross-entropy ``(B, L)``, in training."""
        logits = self.network(self.model.drop_condition(labels), features).float()
        return logits, _cross_entropy(logits, targets)

    def critic_losses(self) -> Iterator[Tensor]:
        """Nothing, because there is no discriminator."""
        return iter(())

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module, folder: Path | None) -> dict[Metric, float]:
        """Cross-entropy on held-out patients, overall, by region and by scale; writes samples of slice types as PNG."""
        assert isinstance(model, Transformer)
        index = spread(len(self.held_out), self.config.validate_slices)
        scores, by_scale = Scores(), dict[Metric, float]()
        for part in np.array_split(index, -(-len(index) // self.config.batch_size)):
            tokens = torch.from_numpy(self.held_out[part].astype(np.int64)).to(self.device)
            maps = tokens.split(self.schedule.token_counts, dim=1)
            features, targets = plain(self.tokenizer.quantizer, maps)
            logits = model(self.held_out_labels[part].to(self.device), features).float()
            losses = _cross_entropy(logits, targets)
            scores.add("loss", losses.mean(1), [self.held_out_conditions[int(i)] for i in part])
            for metric, value in self._by_scale("held_out", losses, logits, targets).items():
                by_scale[metric] = by_scale.get(metric, 0.0) + float(value) * len(part) / len(index)
        self._show(model, folder)
        return scores.means() | by_scale

    def held_out_loss(self, metrics: Mapping[Metric, float]) -> float:
        """The metric to minimise."""
        return metrics[Metric("loss", "held_out")]

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the transformer and its label space as one file."""
        assert isinstance(model, Transformer)
        save_transformer(path, merge(model) if self.config.lora_rank else model, self.label_space)

    def _start(self, labels: LabelSpace) -> tuple[LabelSpace, Transformer]:
        """A new transformer for these labels; or the one that the run continues, with the labels of both."""
        config = self.config
        if config.init is not None:
            base, known = load_transformer(config.init)
            check_tokenizer(base, self.tokenizer.config, (str(config.init), str(config.tokenizer)))
            started = start_transformer(base, known, labels, config.lora_rank, dropout=config.dropout)
            return join_labels(known, labels), started
        return labels, Transformer(fresh_shape(config, self.tokenizer.config, labels.sizes))

    def _show(self, model: Transformer, folder: Path | None) -> None:
        """Write a grid with a row of samples per slice type; for a few types, also the first sample scale by scale.

        All processes take part in sampling, because the weights may be distributed over them.
        """
        slice_types = [self.slice_types[i] for i in spread(len(self.slice_types), SLICE_TYPES)]
        labels = self._labels([Condition(m, r, p) for m, r, p in slice_types for _ in range(SHOWN)]).to(self.device)
        seeded = torch.Generator(self.device).manual_seed(self.config.seed)
        tokens = sample(model, self.tokenizer.quantizer, labels, SAMPLING, generator=seeded)
        if folder is not None:
            write_grid(folder / "samples.png", self.tokenizer.decode(self.tokenizer.quantizer.decode(tokens)), SHOWN)
            firsts = spread(len(slice_types), LADDERS) * SHOWN
            rows = scale_previews(self.tokenizer, tuple(token_map[firsts] for token_map in tokens))
            write_grid(folder / "ladders.png", rows.flatten(0, 1), rows.shape[1])

    def _by_scale(self, split: Split, losses: Tensor, logits: Tensor, targets: Tensor) -> Metrics:
        """Mean loss and accuracy of each scale, from losses ``(B, L)``, logits ``(B, L, V)`` and targets ``(B, L)``."""
        right = (logits.detach().argmax(-1) == targets).float()
        metrics: Metrics = {}
        for name, values in (("loss", losses.detach()), ("accuracy", right)):
            for k, (begin, end) in enumerate(pairwise(self.schedule.offsets)):
                if end <= values.shape[1]:
                    metrics[Metric(name, split, k)] = values[:, begin:end].mean()
        return metrics

    def _labels(self, conditions: list[Condition] | tuple[Condition, ...]) -> Tensor:
        """Labels ``(N, F)``; a held-out name that is not in the training data becomes unconditional."""
        known = self.label_space
        rows = [known.encode(known.known(_asked(self.config, condition))) for condition in conditions]
        return torch.tensor(rows, dtype=torch.int64)

    def _pyramids(self, data: SliceDataset, variants: int) -> npt.NDArray[np.uint16]:
        """Pyramids that were encoded in advance; otherwise they are encoded now and kept for the next start."""
        config = self.config
        assert config.tokenizer is not None
        if config.pyramids is not None:
            return read_pyramids(config.pyramids, data, config.tokenizer, variants)
        encoding = Encoding(
            data,
            lambda: encoder_of(self.tokenizer),
            sha256(config.tokenizer),
            codebook_of(self.tokenizer),
            variants,
            config.seed,
            str(self.device),
            bool(self.structures),
        )
        return write_pyramids(config.out, encoding)


def label_space_of(config: TrainConfig, conditions: Iterable[Condition]) -> LabelSpace:
    """The label space of a model that is trained on these slice types."""
    return LabelSpace.of(_asked(config, condition) for condition in conditions)


def _asked(config: TrainConfig, condition: Condition) -> Condition:
    """The condition reduced to the factors of the model."""
    return Condition(**{name: value for name, value in condition.to_dict().items() if name in config.factors})


def fresh_shape(
    config: TrainConfig, tokenizer: TokenizerConfig | ResolutionConfig, labels: tuple[int, ...]
) -> TransformerConfig:
    """The configuration of the preset with changes from the settings.

    Raises `MedvarError` if the width is not a multiple of the number of heads.
    """
    changes = {name: getattr(config, name) for name in ("depth", "width", "heads", "dropout")}
    shape = transformer_preset(config.preset, tokenizer, labels)
    shape = replace(shape, **{name: value for name, value in changes.items() if value is not None})
    if shape.width % shape.heads:
        raise MedvarError(f"width {shape.width} is not a multiple of {shape.heads} heads. Change width or heads.")
    return shape


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy ``(B, L)`` of logits ``(B, L, V)`` and targets ``(B, L)``, in nats."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def scale_weights(schedule: ScaleSchedule, balance: float) -> Tensor:
    """Weights ``(L,)`` of all tokens, of sum 1: ``balance`` is divided among scales, the rest among tokens."""
    counts = torch.tensor(schedule.token_counts)
    of_scale = balance / (len(schedule) * counts) + (1 - balance) / schedule.tokens
    return of_scale.repeat_interleave(counts)
