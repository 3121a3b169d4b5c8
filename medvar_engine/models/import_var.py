"""Import of published VAR checkpoints (`FoundationVision/VAR`, MIT licence) as safetensors files of medvar.

The files are pickles and are read with ``weights_only=True``, so no code in them runs. The configuration is derived
from the shapes of the tensors; values that cannot be derived are constants of VAR and are defined below.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from itertools import count, pairwise, takewhile
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from medvar_engine.conditions import LabelSpace
from medvar_engine.errors import MedvarError
from medvar_engine.models.presets import VAR_SCHEDULE
from medvar_engine.models.tokenizer import Tokenizer, TokenizerConfig
from medvar_engine.models.transformer import Transformer, TransformerConfig
from medvar_engine.models.weight_files import save_tokenizer, save_transformer

_GROUPS = 32  # groups of all group normalisations in VAR's tokenizer
_MAX_SCALES = 64  # a file with more scales is not a VAR

# VAR's names → names of medvar; the patterns are applied in this order. The blocks of both networks, and the order of
# the chunks of AdaLN (gates, scales, shifts) and attention (queries, keys, values), agree, so no tensor is split.
_TOKENIZER_NAMES = (
    (r"^quantize\.embedding\.", "quantizer.codebook."),
    (r"^quantize\.ema_vocab_hit_SV$", "quantizer.usage"),
    (r"^quantize\.quant_resi\.qresi_ls\.", "quantizer.phis."),  # partially shared φ, as in the published tokenizer
    (r"^quantize\.quant_resi\.qresi\.", "quantizer.phis.0."),  # one φ for all scales
    (r"^quantize\.quant_resi\.(?=\d)", "quantizer.phis."),  # one φ per scale
    (r"^encoder\.down\.", "encoder.stages."),
    (r"^decoder\.up\.", "decoder.stages."),
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.block\.", ".blocks."),
    (r"\.attn\.", ".attentions."),
    (r"\.(?:down|up)sample\.", ".resample."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".proj."),
)
_TRANSFORMER_NAMES = (
    (r"^class_emb\.", "labels.0."),
    (r"^pos_start$", "start"),
    (r"^pos_1LC$", "positions"),
    (r"^lvl_embed\.", "scales."),
    (r"^word_embed\.", "features."),
    (r"^head_nm\.ada_lin\.1\.", "modulation."),
    (r"^shared_ada_lin\.1\.", "shared_modulation.linear."),
    (r"\.attn\.mat_qkv\.", ".attention.qkv."),
    (r"\.attn\.scale_mul_1H11$", ".attention.log_scale"),
    (r"\.attn\.", ".attention."),
    (r"\.ffn\.fc1\.", ".mlp.0."),
    (r"\.ffn\.fc2\.", ".mlp.2."),
    (r"\.ada_lin\.1\.", ".modulation.linear."),
    (r"\.ada_gss$", ".modulation.offset"),
)
_LEADING_ONES = re.compile(
    r"^(?:start|positions|.*\.log_scale|.*\.modulation\.offset)$"
)  # without VAR's leading dimensions of size 1

_Model = TypeVar("_Model", Tokenizer, Transformer)


def import_var(tokenizer: Path, transformer: Path | None, out: Path) -> list[Path]:
    """Convert VAR's state dicts to ``out/tokenizer.safetensors`` and ``out/transformer.safetensors``.

    ``tokenizer`` is ``vae_ch160v4096z32.pth`` or a similar file, ``transformer`` one of ``var_d16.pth`` …
    ``var_d36.pth``; a checkpoint of VAR's training (``ar-ckpt-*.pth``) can be given for both. The schedule is taken
    from the transformer; without one, a tokenizer with ten scales gets the schedule of 256×256 images. The condition is
    VAR's class index, as names ``imagenet-0000`` … of the factor ``dataset``.

    Returns the paths of the written files. Raises `MedvarError`, and writes nothing, when a file is not a plain state
    dict or the files do not fit together.
    """
    tokenizer_state = _read(tokenizer, "vae_local")
    transformer_state = None if transformer is None else _read(transformer, "var_wo_ddp")

    sides = _default_schedule(tokenizer_state) if transformer_state is None else _schedule(transformer_state)
    tokenizer_model = _tokenizer(tokenizer_state, sides)
    transformer_model = None
    if transformer_state is not None:
        transformer_model = _transformer(transformer_state, sides, tokenizer_model.config)

    # Write only after all checks.
    written = [out / "tokenizer.safetensors"]
    save_tokenizer(written[0], tokenizer_model)
    if transformer_model is not None:
        written.append(out / "transformer.safetensors")
        save_transformer(written[1], transformer_model, _imagenet_labels(transformer_model.config.labels[0]))
    return written


def is_published(labels: LabelSpace) -> bool:
    """Whether these are the labels of a published VAR: the classes of ImageNet and nothing else."""
    return bool(labels.dataset) and labels == _imagenet_labels(len(labels.dataset))


def _imagenet_labels(classes: int) -> LabelSpace:
    """VAR's class indices as names of the factor ``dataset``."""
    return LabelSpace(dataset=tuple(f"imagenet-{i:04d}" for i in range(classes)))


class _State(dict[str, Tensor]):
    """A state dict with the path of its file, for messages."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        super().__init__(tensors)
        self.path = path

    def refuse(self, reason: str) -> MedvarError:
        return MedvarError(f"{self.path} cannot be imported: {reason}")

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a required tensor. Raises `MedvarError` if it is missing or has another number of dimensions."""
        if name not in self:
            raise self.refuse(f"it lacks the tensor {name}. Check that the right file was given for this argument.")
        shape = tuple(self[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise self.refuse(
                f"{name} has shape {shape}, but {dimensions} dimensions, none of them empty, are expected."
            )
        return shape

    def run(self, pattern: str) -> int:
        """The number of consecutive names ``pattern.format(0)``, ``pattern.format(1)``, … that exist."""
        return sum(1 for _ in takewhile(lambda i: pattern.format(i) in self, count()))


def _read(path: Path, part: str) -> _State:
    """Read a plain state dict, or the ``part`` of a training checkpoint; no code in the file is run."""
    if not path.is_file():
        raise MedvarError(f"There is no file {path}.")
    try:
        # Memory-mapping, which only the zip format allows, avoids a copy of billions of parameters.
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a malicious or damaged pickle can raise any exception
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise MedvarError(
            f"{path} is not a plain PyTorch state dict; no code in it was run ({reason}). "
            "Get the file from its source again, or save only the model's state_dict()."
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("trainer"), Mapping):
        loaded = loaded["trainer"].get(part)
        if loaded is None:
            raise MedvarError(f"{path} is a training checkpoint without the part {part!r}.")
    if not isinstance(loaded, Mapping) or not loaded:
        raise MedvarError(f"{path} holds a {type(loaded).__name__}, but a state dict (name → tensor) is expected.")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            kind = value.layout if isinstance(value, Tensor) else type(value).__name__
            raise MedvarError(f"{path} is not a plain state dict: {name!r} is {kind}, not a dense tensor.")
    if sum(tensor.nbytes for tensor in loaded.values()) > path.stat().st_size:
        raise MedvarError(f"{path} declares more data than it contains; it is damaged, or built to exhaust memory.")
    return _State(loaded, path)


def _default_schedule(state: _State) -> tuple[int, ...]:
    scales, _ = state.shape("quantize.ema_vocab_hit_SV", 2)
    if scales != len(VAR_SCHEDULE):
        raise state.refuse(
            f"it has {scales} scales, but a tokenizer does not store their sides. Give its transformer too."
        )
    return VAR_SCHEDULE


def _schedule(state: _State) -> tuple[int, ...]:
    """The sides of the scales, from the scale index of every token."""
    _, length, _ = state.shape("pos_1LC", 3)
    scale_of = state["lvl_1L"].flatten() if state.shape("lvl_1L", 2) == (1, length) else None
    if scale_of is None or scale_of.is_floating_point():
        raise state.refuse(f"lvl_1L does not hold the scale of each of the {length} tokens of pos_1LC.")
    scales = int(scale_of.max()) + 1
    if int(scale_of.min()) < 0 or scales > _MAX_SCALES or bool((scale_of[1:] < scale_of[:-1]).any()):
        raise state.refuse("the scales in lvl_1L are not in order from coarse to fine.")
    counts = scale_of.bincount(minlength=scales).tolist()
    sides = tuple(math.isqrt(tokens) for tokens in counts)
    if [side * side for side in sides] != counts or sides[0] < 1 or any(b <= a for a, b in pairwise(sides)):
        raise state.refuse(f"the token counts {counts} of the scales are not squares of increasing sides.")
    return sides


def _tokenizer(state: _State, sides: tuple[int, ...]) -> Tokenizer:
    levels = state.run("encoder.down.{}.block.0.conv1.weight")
    vocabulary, latent_channels = state.shape("quantize.embedding.weight", 2)
    phis = (
        state.run("quantize.quant_resi.qresi_ls.{}.weight")
        or state.run("quantize.quant_resi.{}.weight")
        or int("quantize.quant_resi.qresi.weight" in state)
    )
    if not levels or not phis:
        raise state.refuse("it has no encoder.down.* or no quantize.quant_resi.*, so it is not a VAR tokenizer.")
    config = _configure(
        state,
        TokenizerConfig,
        image_size=sides[-1] * 2 ** (levels - 1),
        schedule=sides,
        vocabulary=vocabulary,
        latent_channels=latent_channels,
        channels=tuple(state.shape(f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)),
        res_blocks=state.run("encoder.down.0.block.{}.conv1.weight"),
        groups=_GROUPS,
        attention="encoder.mid.attn_1.qkv.weight" in state,
        image_channels=state.shape("encoder.conv_in.weight", 4)[1],
        phis=phis,
    )
    tensors = _rename(state, _TOKENIZER_NAMES)
    # VAR numbers the decoder's resolutions from fine to coarse, medvar in the order in which they run.
    tensors = {_reverse_stage(name, levels): tensor for name, tensor in tensors.items()}
    tensors["quantizer.usage"] = _usage(state, sides, vocabulary)
    return _fill(Tokenizer, config, tensors, state)


def _reverse_stage(name: str, levels: int) -> str:
    return re.sub(r"^(decoder\.stages\.)(\d+)", lambda match: f"{match[1]}{levels - 1 - int(match[2])}", name)


def _usage(state: _State, sides: tuple[int, ...], vocabulary: int) -> Tensor:
    """Code usage per image; VAR stores hits per batch of unknown size, so it is rescaled to ``side_k²`` for scale k."""
    scales, entries = state.shape("quantize.ema_vocab_hit_SV", 2)
    if entries != vocabulary:
        raise state.refuse(f"ema_vocab_hit_SV counts {entries} codes, but the codebook has {vocabulary}.")
    if scales != len(sides):  # the tokenizer was trained with another schedule: usage unknown, as in VAR
        return torch.zeros(len(sides), vocabulary)
    hits = state["quantize.ema_vocab_hit_SV"].float()
    tokens = torch.tensor([side * side for side in sides], dtype=hits.dtype)[:, None]
    return hits / hits.sum(1, keepdim=True).clamp(min=torch.finfo(hits.dtype).tiny) * tokens


def _transformer(state: _State, sides: tuple[int, ...], tokenizer: TokenizerConfig) -> Transformer:
    classes, width = state.shape("class_emb.weight", 2)
    vocabulary, _ = state.shape("head.weight", 2)
    _, latent_channels = state.shape("word_embed.weight", 2)
    depth = state.run("blocks.{}.attn.mat_qkv.weight")
    if not depth:
        raise state.refuse("it has no blocks.0.attn.mat_qkv.weight, so it is not a VAR transformer.")
    if "blocks.0.attn.scale_mul_1H11" not in state:
        raise state.refuse(
            "its attention is not l2-normalised (scale_mul_1H11 is missing). Only models with attn_l2_norm=True can be "
            "imported, such as all published ones."
        )
    if classes < 2:
        raise state.refuse("class_emb has no class besides the unconditional one.")
    if (vocabulary, latent_channels) != (tokenizer.vocabulary, tokenizer.latent_channels):
        raise state.refuse(
            f"it has {vocabulary} tokens and {latent_channels} latent channels, but the tokenizer has "
            f"{tokenizer.vocabulary} and {tokenizer.latent_channels}. Give the tokenizer that it was trained with."
        )
    _, heads, _, _ = state.shape("blocks.0.attn.scale_mul_1H11", 4)
    if width % heads:
        raise state.refuse(f"its width {width} is not a multiple of its {heads} heads.")
    config = _configure(
        state,
        TransformerConfig,
        schedule=sides,
        vocabulary=vocabulary,
        latent_channels=latent_channels,
        labels=(classes - 1,),  # the last row is the unconditional class
        depth=depth,
        width=width,
        heads=heads,
        mlp_ratio=state.shape("blocks.0.ffn.fc1.weight", 2)[0] / width,
        drop_path=0.1 * depth / 24,  # VAR's value, for further training
        shared_modulation="shared_ada_lin.1.weight" in state,
    )
    constants = _constants(state, sides, depth, width)
    weights = _State({name: tensor for name, tensor in state.items() if name not in constants}, state.path)
    tensors = _rename(weights, _TRANSFORMER_NAMES)
    for name, tensor in tensors.items():
        if _LEADING_ONES.match(name) and tensor.shape[:1] == (1,):
            tensors[name] = tensor.flatten() if name.endswith(".offset") else tensor[0]
    return _fill(Transformer, config, tensors, state)


def _constants(state: _State, sides: tuple[int, ...], depth: int, width: int) -> set[str]:
    """Names of buffers that are no weights, after a check that they equal the constants that medvar computes."""
    scale_of = torch.repeat_interleave(torch.arange(len(sides)), torch.tensor([side * side for side in sides]))
    length = len(scale_of)
    if state.shape("attn_bias_for_masking", 4) != (1, 1, length, length):  # the file stores the full matrix
        raise state.refuse(f"attn_bias_for_masking is not {length} x {length}.")
    mask = torch.where(scale_of[:, None] >= scale_of, 0.0, -torch.inf)
    expected = {"lvl_1L": scale_of[None], "attn_bias_for_masking": mask[None, None]}
    expected |= {f"blocks.{i}.attn.zero_k_bias": torch.zeros(width) for i in range(depth)}
    for name, value in expected.items():
        if state.shape(name, value.ndim) != tuple(value.shape) or not torch.equal(state[name].to(value.dtype), value):
            raise state.refuse(f"{name} is not VAR's constant, so the imported model would differ from it.")
    return set(expected)


def _rename(state: _State, rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = name
        for pattern, replacement in rules:
            ours = re.sub(pattern, replacement, ours)
        if ours in renamed:
            raise state.refuse(f"two of its tensors would both become {ours}; one of them is {name}.")
        renamed[ours] = tensor.float()
    return renamed


def _configure(state: _State, config: Callable[..., Any], **values: Any) -> Any:
    try:
        return config(**values)
    except ValueError as error:
        raise state.refuse(f"{error}") from error


def _fill(kind: Callable[[Any], _Model], config: Any, tensors: dict[str, Tensor], state: _State) -> _Model:
    """A model with these tensors as its weights. Raises `MedvarError` if names or shapes do not match exactly."""
    try:
        with torch.device("meta"):  # shapes only, because the weights are loaded already
            model = kind(config)
    except (ValueError, RuntimeError) as error:
        raise state.refuse(f"no model has these shapes ({error}).") from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is unexpected" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {found[name]} instead of {expected[name]}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise state.refuse(f"after renaming, {'; '.join(sorted(problems)[:5])}{more}.")
    model.load_state_dict(tensors, assign=True)
    return model.eval()
