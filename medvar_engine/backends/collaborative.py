"""Two transformers for one image: a large one draws the coarse scales, a small one the fine ones.

That is collaborative decoding (CoDe, arXiv 2411.17787). Fine scales have most of the tokens, and hold what follows from
the coarse ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medvar_engine.arrays import FloatArray, IntArray
from medvar_engine.backends.base import Backend, BackendInfo, PrefixState, one_state
from medvar_engine.backends.onnx import OnnxBackend
from medvar_engine.bundle import FINE, Bundle, collaborative_digest
from medvar_engine.errors import MedvarError


class CollaborativeBackend:
    """A `Backend` of two for the same tokenizer: ``coarse`` draws scales ``0…from_scale-1``, ``fine`` the others.

    The fine transformer reads every scale while the coarse one draws it, so that each scale's keys and values follow
    from it and those before alone: drawing again from a scale on costs that scale and those after it, in both.
    The coarse transformer never runs on fine scales. All but the transformers is that of ``coarse``.
    """

    def __init__(self, coarse: Backend, fine: Backend, from_scale: int) -> None:
        """Raises `MedvarError` as `check_together`."""
        check_together(coarse.info, fine.info, from_scale)
        self._coarse, self._fine, self._from_scale = coarse, fine, from_scale
        model = collaborative_digest(coarse.info.model, fine.info.model, from_scale)
        partial = coarse.info.partial_scales and fine.info.partial_scales
        self.info = replace(coarse.info, model=model, weights="", partial_scales=partial)

    @property
    def codebook(self) -> FloatArray | None:
        """See `Backend`."""
        return self._coarse.codebook

    def start(self, labels: IntArray) -> PrefixState:
        """See `Backend`."""
        return PrefixState(labels)

    def step(
        self, state: PrefixState, maps: FloatArray | None, positions: IntArray | None = None
    ) -> tuple[FloatArray, PrefixState]:
        """See `Backend`."""
        logits, fine = self._fine.step(_of_fine(state), maps, positions)
        coarse = None
        if state.depth < self._from_scale:
            logits, longer = self._coarse.step(_of_coarse(state), maps, positions)
            coarse = longer.chunks[-1]
        return logits, state.longer(_Scale(coarse, fine.chunks[-1]))

    def gather(self, rows: Sequence[tuple[PrefixState, int]]) -> PrefixState:
        """See `Backend`."""
        if whole := one_state(rows):
            return whole
        states = {id(state): state for state, _ in rows}
        fine = {name: _of_fine(state) for name, state in states.items()}
        gathered = self._fine.gather([(fine[id(state)], row) for state, row in rows])
        chunks: Sequence[Any] = [None] * rows[0][0].depth
        if len(chunks) <= self._from_scale:  # of longer ones nobody asks the coarse transformer any more
            coarse = {name: _of_coarse(state) for name, state in states.items()}
            chunks = self._coarse.gather([(coarse[id(state)], row) for state, row in rows]).chunks
        return PrefixState(gathered.labels, tuple(map(_Scale, chunks, gathered.chunks)))

    def summary(self, state: PrefixState) -> FloatArray:
        """See `Backend`. Those of the fine transformer, which has read all scales."""
        return self._fine.summary(_of_fine(state))

    def accumulate(self, latent: FloatArray | None, tokens: IntArray, k: int) -> tuple[FloatArray, FloatArray | None]:
        """See `Backend`."""
        return self._coarse.accumulate(latent, tokens, k)

    def encode(self, images: FloatArray) -> tuple[IntArray, ...]:
        """See `Backend`."""
        return self._coarse.encode(images)

    def decode(self, latent: FloatArray, *, preview: bool = False) -> FloatArray:
        """See `Backend`."""
        return self._coarse.decode(latent, preview=preview)


def check_together(coarse: BackendInfo, fine: BackendInfo, from_scale: int) -> None:
    """Raises `MedvarError` when two models have not the same tokens and conditions, or one has no scale to draw."""
    for name in ("schedule", "vocabulary", "latent_channels", "labels"):
        if (wanted := getattr(coarse, name)) != (found := getattr(fine, name)):
            raise MedvarError(
                f"Two transformers draw one image only with the same tokens and conditions, but {name} is {found} and "
                f"not {wanted}. Train both for one tokenizer, on the same slices, with the same factors."
            )
    if not 0 < from_scale < len(coarse.schedule):
        raise MedvarError(
            f"Fine scales begin at one of 1…{len(coarse.schedule) - 1}, not at {from_scale}: others draw those before."
        )


@dataclass(frozen=True, eq=False, slots=True)
class _Scale:
    """What each backend keeps of one scale."""

    coarse: Any | None  # None for a fine scale, and where it was left behind
    fine: Any

    @property
    def nbytes(self) -> int:
        return int(self.fine.nbytes) + (0 if self.coarse is None else int(self.coarse.nbytes))


def _of_coarse(state: PrefixState) -> PrefixState:
    return PrefixState(state.labels, tuple(scale.coarse for scale in state.chunks))


def _of_fine(state: PrefixState) -> PrefixState:
    return PrefixState(state.labels, tuple(scale.fine for scale in state.chunks))


def collaborative_model(bundle: Bundle) -> str:
    """The name of both transformers of a bundle together. Raises `MedvarError` for a bundle of one."""
    if (model := bundle.collaborative_digest) is None:
        raise MedvarError(
            f"The bundle {bundle.path} has no transformer for the fine scales. Train a small one for its tokenizer and "
            "put it in by `medvar fine`."
        )
    return model


def open_model(bundle: Bundle, model: str, *, device: str = "auto", threads: int | None = None) -> Backend:
    """What draws as ``model``, a name in traces, does: both transformers of a bundle, or else its own one."""
    own = OnnxBackend(bundle, device=device, threads=threads)
    if bundle.fine is None or model != bundle.collaborative_digest:
        return own
    fine = OnnxBackend(bundle, device=device, threads=threads, graph=FINE)
    return CollaborativeBackend(own, fine, bundle.fine.from_scale)
