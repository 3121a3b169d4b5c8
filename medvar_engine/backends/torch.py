"""The torch backend: runs checkpoints of training without export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from medvar_engine.backends.base import BackendInfo, PrefixState, average_tokens, gather_rows
from medvar_engine.conditions import LabelSpace
from medvar_engine.masks.structures import structures_of
from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.pretrained import load_guide
from medvar_engine.models.preview_decoder import PreviewDecoder
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_preview_of, load_tokenizer, load_transformer
from medvar_engine.types import FloatArray, IntArray


class TorchBackend:
    """Runs tokenizer and transformer in torch, in float32, on one device."""

    def __init__(
        self,
        tokenizer: AnyTokenizer,
        transformer: Transformer,
        labels: LabelSpace,
        *,
        device: str = "cpu",
        bundle_id: str | None = None,
        preview: PreviewDecoder | None = None,
        guide: Transformer | None = None,
    ) -> None:
        """``bundle_id`` is the id that traces store, by default `weights_digest`.

        Pass the id of a bundle to continue traces of that bundle. A bundle also accepts traces with the digest of the
        weights that it was exported from. ``preview`` decodes previews instead of the full decoder. ``guide`` is a
        weaker transformer for guidance.
        """
        weights = weights_digest(tokenizer, transformer, guide)
        self._device = torch.device(device)
        self._tokenizer = tokenizer.to(self._device).eval()
        self._transformer = transformer.to(self._device).eval()
        self._guide = None if guide is None else guide.to(self._device).eval()
        self._preview: Callable[[Tensor], Tensor] | None = None
        if isinstance(tokenizer, ResolutionTokenizer):
            self._preview = tokenizer.preview
        elif preview is not None:
            self._preview = preview.to(self._device).eval().decode
        config = tokenizer.config
        names: tuple[str, ...] = getattr(config, "structures", ())
        colours: tuple[str, ...] = getattr(config, "colours", ())
        self.info = BackendInfo(
            provider=f"torch {torch.__version__}, {self._device}",
            precision="float32",
            schedule=tokenizer.schedule,
            labels=labels,
            vocabulary=config.vocabulary,
            latent_channels=config.latent_channels,
            feature_channels=config.feature_channels,
            image_size=config.image_size,
            image_channels=config.image_channels,
            bundle_id=weights if bundle_id is None else bundle_id,
            weights=weights,
            light_previews=self._preview is not None,
            structures=structures_of(names, dict(zip(names, colours, strict=True))),
            mask_scales=getattr(config, "mask_scales", ()),
            has_guide=guide is not None,
        )

    @classmethod
    def load(
        cls,
        tokenizer: Path,
        transformer: Path,
        *,
        device: str = "cpu",
        bundle_id: str | None = None,
        preview: Path | None = None,
        guide: Path | None = None,
    ) -> TorchBackend:
        """Read the files that training writes.

        Raises `MedvarError` if ``preview`` belongs to another tokenizer, or ``guide`` to other tokens or labels.
        """
        network, labels = load_transformer(transformer)
        coder = load_tokenizer(tokenizer)
        light = None if preview is None else load_preview_of(preview, coder, str(tokenizer))
        weaker = None if guide is None else load_guide(guide, coder.config, str(tokenizer), labels)
        return cls(coder, network, labels, device=device, bundle_id=bundle_id, preview=light, guide=weaker)

    @cached_property
    def codebook(self) -> FloatArray:
        """The code of every token, ``(V, C)``, or ``(K, V, C)`` with one codebook per scale."""
        return self._tokenizer.quantizer.codes

    def start(self, labels: IntArray, *, guide: bool = False) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels, guide=guide)

    @torch.inference_mode()
    def step(self, state: PrefixState, scale_features: FloatArray | None) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        past = torch.cat(state.chunks, dim=4) if state.chunks else None
        inputs = None if scale_features is None else self._tensor(scale_features)
        network = self._guide if state.guide else self._transformer
        assert network is not None, "this model has no guide"
        logits, chunk = network.step(self._tensor(state.labels), inputs, past, state.depth)
        return _array(logits), state.longer(chunk)

    @torch.inference_mode()
    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        return gather_rows(rows, lambda kept: torch.cat([chunk[:, :, row : row + 1] for chunk, row in kept], dim=2))

    @torch.inference_mode()
    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`."""
        return average_tokens(state, lambda chunk: _array(chunk.mean(4)))

    @torch.inference_mode()
    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        quantizer = self._tokenizer.quantizer
        total = quantizer.lift(self._tensor(tokens), k)
        if latent is not None:
            total = self._tensor(latent) + total
        last = k + 1 == len(self.info.schedule)
        return _array(total), None if last else _array(quantizer.pool(total, k + 1))

    @torch.inference_mode()
    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        return tuple(tokens.cpu().numpy() for tokens in self._tokenizer.encode(self._tensor(images)))

    @torch.inference_mode()
    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`. Previews use the light decoder if there is one, or the canvas of a resolution pyramid."""
        show = self._preview if preview and self._preview else self._tokenizer.decode
        return _array(show(self._tensor(latent)))

    def _tensor(self, array: FloatArray | IntArray) -> Tensor:
        # A copy: torch warns of read-only arrays, and shares memory with an array that the caller may change later.
        return torch.tensor(array, device=self._device)


def weights_digest(tokenizer: AnyTokenizer, transformer: Transformer, guide: Transformer | None = None) -> str:
    """The digest of the weights of all networks: sha256 over their names, types, shapes and values."""
    digest = hashlib.sha256()
    for network in (tokenizer, transformer, *([] if guide is None else [guide])):
        for name, tensor in sorted(network.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.float().cpu().numpy()
    return array
