"""Import of VAR's state dicts, written here in VAR's naming from our own modules."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medvar_engine.conditions import Condition
from medvar_engine.errors import MedvarError
from medvar_engine.models.import_var import import_var
from medvar_engine.models.presets import VAR_SCHEDULE
from medvar_engine.models.tokenizer import Tokenizer
from medvar_engine.models.transformer import Transformer
from medvar_engine.models.weight_files import load_tokenizer, load_transformer

CLASSES = 10
MakeTokenizer = Callable[..., Tokenizer]
MakeTransformer = Callable[..., Transformer]
State = dict[str, Tensor]


def var_tokenizer(model: Tokenizer) -> State:
    """What `state_dict()` of VAR's VQVAE would hold."""
    state: State = {}

    def put(prefix: str, module: nn.Module, **names: str) -> None:
        for name, tensor in module.state_dict().items():
            first, _, rest = name.partition(".")
            state[f"{prefix}.{names.get(first, first)}" + (f".{rest}" if rest else "")] = tensor

    stage: Any  # mypy knows no parts of modules in lists
    fine_to_coarse = list(model.encoder.stages), list(reversed(model.decoder.stages))
    for side, part, stages in zip(("encoder", "decoder"), ("down", "up"), fine_to_coarse, strict=True):
        coder = model.get_submodule(side)
        for name in ("conv_in", "norm_out", "conv_out"):
            put(f"{side}.{name}", coder.get_submodule(name))
        for i, name in enumerate(("block_1", "attn_1", "block_2")):
            put(f"{side}.mid.{name}", coder.get_submodule(f"middle.{i}"), proj="proj_out")
        for i, stage in enumerate(stages):
            for j, block in enumerate(stage.blocks):
                put(f"{side}.{part}.{i}.block.{j}", block, shortcut="nin_shortcut")
            for j, attention in enumerate(stage.attentions):
                put(f"{side}.{part}.{i}.attn.{j}", attention, proj="proj_out")
            put(f"{side}.{part}.{i}.{part}sample", stage.resample)
    put("quantize.embedding", model.quantizer.codebook)
    put("quantize.quant_resi.qresi_ls", model.quantizer.phis)
    put("quant_conv", model.quant_conv)
    put("post_quant_conv", model.post_quant_conv)
    state["quantize.ema_vocab_hit_SV"] = torch.rand(len(model.schedule), model.config.vocabulary)
    return {name: tensor.clone() for name, tensor in state.items()}


def var_transformer(model: Transformer) -> State:
    """What `state_dict()` of VAR's transformer would hold."""
    config, scale_of = model.config, model.get_buffer("scale_of")
    parts: Any = model
    state: State = {
        "class_emb.weight": parts.labels[0].weight,
        "pos_start": model.start[None],
        "pos_1LC": model.positions[None],
        "lvl_embed.weight": model.scales.weight,
        "word_embed.weight": model.features.weight,
        "word_embed.bias": model.features.bias,
        "head_nm.ada_lin.1.weight": model.modulation.weight,
        "head_nm.ada_lin.1.bias": model.modulation.bias,
        "head.weight": model.head.weight,
        "head.bias": model.head.bias,
        "lvl_1L": scale_of[None],
        "attn_bias_for_masking": torch.where(scale_of[:, None] >= scale_of, 0.0, -torch.inf)[None, None],
    }
    if config.shared_modulation:
        state["shared_ada_lin.1.weight"] = parts.shared_modulation.linear.weight
        state["shared_ada_lin.1.bias"] = parts.shared_modulation.linear.bias
    for i, block in enumerate(parts.blocks):
        attention = block.attention
        state |= {
            f"blocks.{i}.attn.scale_mul_1H11": attention.log_scale[None],
            f"blocks.{i}.attn.mat_qkv.weight": attention.qkv.weight,
            f"blocks.{i}.attn.q_bias": attention.q_bias,
            f"blocks.{i}.attn.v_bias": attention.v_bias,
            f"blocks.{i}.attn.zero_k_bias": torch.zeros(config.width),
            f"blocks.{i}.attn.proj.weight": attention.proj.weight,
            f"blocks.{i}.attn.proj.bias": attention.proj.bias,
            f"blocks.{i}.ffn.fc1.weight": block.mlp[0].weight,
            f"blocks.{i}.ffn.fc1.bias": block.mlp[0].bias,
            f"blocks.{i}.ffn.fc2.weight": block.mlp[2].weight,
            f"blocks.{i}.ffn.fc2.bias": block.mlp[2].bias,
        }
        if config.shared_modulation:
            state[f"blocks.{i}.ada_gss"] = block.modulation.offset.view(1, 1, 6, config.width)
        else:
            state[f"blocks.{i}.ada_lin.1.weight"] = block.modulation.linear.weight
            state[f"blocks.{i}.ada_lin.1.bias"] = block.modulation.linear.bias
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.fixture
def vae(make_tokenizer: MakeTokenizer) -> Tokenizer:
    """The original of a published tokenizer: three image channels."""
    return make_tokenizer(image_channels=3)


@pytest.fixture
def var(make_transformer: MakeTransformer) -> Transformer:
    """The original of a published transformer: one factor."""
    return make_transformer(labels=(CLASSES,))


@pytest.fixture
def published(tmp_path: Path, vae: Tokenizer, var: Transformer) -> tuple[Path, Path]:
    """Both files as they are downloaded."""
    torch.save(var_tokenizer(vae), tmp_path / "vae.pth")
    torch.save(var_transformer(var), tmp_path / "var.pth")
    return tmp_path / "vae.pth", tmp_path / "var.pth"


def test_imported_tokenizer_gives_the_same_tokens_and_images(
    published: tuple[Path, Path], vae: Tokenizer, tmp_path: Path
) -> None:
    """A user who fine-tunes from VAR's tokenizer would start from noise if one layer went astray."""
    paths = import_var(*published, tmp_path / "out")
    assert paths == [tmp_path / "out" / "tokenizer.safetensors", tmp_path / "out" / "transformer.safetensors"]
    loaded = load_tokenizer(paths[0])
    assert loaded.config == vae.config
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        tokens = vae.encode(image)
        assert all(torch.equal(a, b) for a, b in zip(loaded.encode(image), tokens, strict=True))
        assert torch.equal(loaded.decode(loaded.quantizer.decode(tokens)), vae.decode(vae.quantizer.decode(tokens)))


@pytest.mark.parametrize("shared", [False, True], ids=["d16-to-d30", "d36"])
def test_imported_transformer_gives_the_same_logits(
    published: tuple[Path, Path], make_transformer: MakeTransformer, tmp_path: Path, shared: bool
) -> None:
    """Gates, scales and shifts in a wrong order still load, and draw rubbish; both kinds of AdaLN are published."""
    original = make_transformer(labels=(CLASSES,), shared_modulation=shared)
    torch.save(var_transformer(original), published[1])
    loaded, labels = load_transformer(import_var(*published, tmp_path / "out")[1])
    assert loaded.config == original.config
    assert labels.encode(Condition(dataset="imagenet-0003")) == (3,)
    assert labels.unconditional == (CLASSES,)
    label, features = torch.tensor([[3], [CLASSES]]), torch.randn(2, 29, 8)
    with torch.no_grad():
        assert torch.equal(loaded(label, features), original(label, features))


def test_a_training_checkpoint_serves_for_both(vae: Tokenizer, var: Transformer, tmp_path: Path) -> None:
    """Whoever trained with VAR's code has one file with both models in it, and should not have to cut it up."""
    state = {"vae_local": var_tokenizer(vae), "var_wo_ddp": var_transformer(var), "config": {"prog_it": 0}}
    path = tmp_path / "ar-ckpt-last.pth"
    torch.save({"epoch": 3, "trainer": state, "args": {"depth": 3}}, path)
    paths = import_var(path, path, tmp_path / "out")
    assert load_tokenizer(paths[0]).config == vae.config
    assert load_transformer(paths[1])[0].config == var.config
    del state["var_wo_ddp"]
    torch.save({"trainer": state}, path)
    with pytest.raises(MedvarError, match="without the part 'var_wo_ddp'"):
        import_var(path, path, tmp_path / "out")


def test_a_tokenizer_alone(make_tokenizer: MakeTokenizer, vae: Tokenizer, tmp_path: Path) -> None:
    """Only the tokenizer is wanted when a new transformer is trained; its ten scales are those of 256x256 images.
    Other schedules cannot be told from a tokenizer, and a guess would decode every image wrongly.
    """
    original = make_tokenizer(image_channels=3, schedule=VAR_SCHEDULE, channels=(32, 32), image_size=32)
    torch.save(var_tokenizer(original), tmp_path / "vae.pth")
    paths = import_var(tmp_path / "vae.pth", None, tmp_path / "out")
    assert [path.name for path in paths] == ["tokenizer.safetensors"]
    assert load_tokenizer(paths[0]).config == original.config
    torch.save(var_tokenizer(vae), tmp_path / "vae.pth")
    with pytest.raises(MedvarError, match="4 scales, but a tokenizer does not store their sides"):
        import_var(tmp_path / "vae.pth", None, tmp_path / "other")


@pytest.mark.parametrize(("phis", "prefix"), [(1, "qresi."), (4, "")], ids=["one-phi", "one-phi-a-scale"])
def test_other_numbers_of_phi_are_imported(
    make_tokenizer: MakeTokenizer, published: tuple[Path, Path], tmp_path: Path, phis: int, prefix: str
) -> None:
    """VAR's own options for sharing its convolutions have other names in the file, and should load as well."""
    original = make_tokenizer(image_channels=3, phis=phis)
    old = "quantize.quant_resi.qresi_ls." + ("0." if phis == 1 else "")
    new = f"quantize.quant_resi.{prefix}"
    torch.save({name.replace(old, new): t for name, t in var_tokenizer(original).items()}, published[0])
    loaded = load_tokenizer(import_var(*published, tmp_path / "out")[0])
    assert loaded.config == original.config
    for ours, theirs in zip(loaded.quantizer.phis.parameters(), original.quantizer.phis.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_code_usage_is_per_image(published: tuple[Path, Path], tmp_path: Path) -> None:
    """VAR counts hits a batch: taken as they are, no code would ever look dead when its tokenizer is trained on."""
    state = torch.load(published[0], weights_only=True)
    hits = state["quantize.ema_vocab_hit_SV"] * 500
    hits[1] = 0  # a scale never counted
    torch.save(state | {"quantize.ema_vocab_hit_SV": hits}, published[0])
    usage = load_tokenizer(import_var(*published, tmp_path / "out")[0]).quantizer.get_buffer("usage")
    torch.testing.assert_close(usage.sum(1), torch.tensor([1.0, 0.0, 9.0, 16.0]))
    torch.testing.assert_close(usage[3] / usage[3].sum(), hits[3] / hits[3].sum())
    torch.save(state | {"quantize.ema_vocab_hit_SV": hits[:3]}, published[0])  # trained on another schedule
    usage = load_tokenizer(import_var(*published, tmp_path / "out")[0]).quantizer.get_buffer("usage")
    assert torch.equal(usage, torch.zeros(4, 64))


def without(name: str) -> Callable[[State], Any]:
    """The state without a tensor."""
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def having(name: str, change: Callable[[Tensor], Any]) -> Callable[[State], Any]:
    """The state with one tensor changed."""
    return lambda state: state | {name: change(state[name])}


def without_l2_norm(state: State) -> State:
    """What a model built with ``attn_l2_norm=False`` has."""
    return {name: tensor for name, tensor in state.items() if "scale_mul" not in name}


def missing_block(state: State) -> State:
    """A gap in the numbering."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.")}


REFUSED_TOKENIZERS = {
    "missing": (without("decoder.mid.attn_1.qkv.bias"), r"decoder\.middle\.1\.qkv\.bias is missing"),
    "missing-codebook": (without("quantize.embedding.weight"), r"lacks the tensor quantize\.embedding\.weight"),
    "unexpected": (lambda state: state | {"loss.weight": torch.zeros(1)}, r"loss\.weight is unexpected"),
    "extra-level": (
        lambda state: state | {"decoder.up.7.block.0.conv1.bias": torch.zeros(1)},
        r"decoder\.stages\.-\d\S* is unexpected",
    ),
    "shape": (
        having("encoder.down.1.block.0.conv2.weight", lambda t: t[:, :, :2]),
        r"shape \(32, 32, 2, 3\) instead of \(32, 32, 3, 3\)",
    ),
    "groups": (having("encoder.down.2.block.0.conv1.weight", lambda t: t[:63]), "no model has these shapes"),
    "flat-codebook": (having("quantize.embedding.weight", lambda t: t.flatten()), "2 dimensions, none of them empty"),
    "usage": (having("quantize.ema_vocab_hit_SV", lambda t: t[:, :9]), "counts 9 codes, but the codebook has 64"),
    "twice": (lambda state: state | {"quantizer.codebook.weight": torch.zeros(64, 8)}, "two of its tensors"),
    "not-a-tensor": (lambda state: state | {"epoch": 3}, "'epoch' is int, not a dense tensor"),
    "sparse": (having("quant_conv.bias", lambda t: t.to_sparse()), "sparse_coo, not a dense tensor"),
    "list": (lambda state: list(state.values()), "holds a list, but a state dict"),
    "empty": (lambda state: {}, "holds a dict, but a state dict"),
    "expanded": (having("quant_conv.bias", lambda t: t[:1].expand(10**7)), "declares more data than it contains"),
}
REFUSED_TRANSFORMERS = {
    "missing": (without("blocks.2.ffn.fc1.bias"), r"blocks\.2\.mlp\.0\.bias is missing"),
    "missing-mask": (without("attn_bias_for_masking"), "lacks the tensor attn_bias_for_masking"),
    "missing-block": (missing_block, r"blocks\.2\S* is unexpected"),
    "no-l2-norm": (without_l2_norm, r"not l2-normalised .* attn_l2_norm=True"),
    "one-block-without-l2-norm": (without("blocks.1.attn.scale_mul_1H11"), r"log_scale is missing"),
    "shape": (having("pos_start", lambda t: t[:, :, :16]), r"start has shape \(1, 16\) instead of \(1, 32\)"),
    "other-tokenizer": (having("head.weight", lambda t: t[:60]), "has 60 tokens and 8 latent channels, but the token"),
    "no-classes": (having("class_emb.weight", lambda t: t[:1]), "no class besides the unconditional"),
    "heads": (having("blocks.0.attn.scale_mul_1H11", lambda t: t[:, :3]), "width 32 is not a multiple of its 3 heads"),
    "key-bias": (having("blocks.0.attn.zero_k_bias", lambda t: t + 1), "zero_k_bias is not VAR.s constant"),
    "other-mask": (having("attn_bias_for_masking", torch.zeros_like), "attn_bias_for_masking is not VAR.s constant"),
    "no-squares": (having("lvl_1L", lambda t: t.clamp(min=1) - 1), "are not squares of increasing sides"),
    "fine-to-coarse": (having("lvl_1L", lambda t: t.flip(1)), "are not in order from coarse to fine"),
    "scales-of-other-length": (having("lvl_1L", lambda t: t[:, 1:]), "does not hold the scale of each of the 30"),
    "a-tokenizer": (lambda state: {"quantize.embedding.weight": torch.zeros(64, 8)}, "lacks the tensor pos_1LC"),
}


@pytest.mark.parametrize("case", REFUSED_TOKENIZERS)
def test_tokenizers_that_do_not_fit_are_refused(published: tuple[Path, Path], tmp_path: Path, case: str) -> None:
    """Other forks' files come near VAR's: half of one loaded would give images that are subtly wrong."""
    change, message = REFUSED_TOKENIZERS[case]
    torch.save(change(torch.load(published[0], weights_only=True)), published[0])
    with pytest.raises(MedvarError, match=message):
        import_var(*published, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", REFUSED_TRANSFORMERS)
def test_transformers_that_do_not_fit_are_refused(published: tuple[Path, Path], tmp_path: Path, case: str) -> None:
    """As above; and the good tokenizer beside a bad transformer must not be left as half an import."""
    change, message = REFUSED_TRANSFORMERS[case]
    torch.save(change(torch.load(published[1], weights_only=True)), published[1])
    with pytest.raises(MedvarError, match=message):
        import_var(*published, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Code:
    """Unpickling this makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_does_not_run(published: tuple[Path, Path], tmp_path: Path, zipped: bool) -> None:
    """Weights come from strangers: a file with code in it must be refused before it has done anything."""
    state = torch.load(published[1], weights_only=True) | {"extra": Code(tmp_path / "canary")}
    torch.save(state, published[1], _use_new_zipfile_serialization=zipped)
    with pytest.raises(MedvarError, match="no code in it was run"):
        import_var(*published, tmp_path / "out")
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut"], ids=["empty", "web-page", "zip"])
def test_other_files_are_refused(published: tuple[Path, Path], tmp_path: Path, content: bytes) -> None:
    """A broken download, or the web page that came in its place, is the commonest wrong file."""
    published[1].write_bytes(content)
    with pytest.raises(MedvarError, match="not a plain PyTorch state dict"):
        import_var(*published, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_truncated_and_missing_files_are_reported(published: tuple[Path, Path], tmp_path: Path) -> None:
    """As above."""
    published[0].write_bytes(published[0].read_bytes()[:-1000])
    with pytest.raises(MedvarError, match="not a plain PyTorch state dict"):
        import_var(*published, tmp_path / "out")
    with pytest.raises(MedvarError, match=r"There is no file .*nowhere\.pth"):
        import_var(tmp_path / "nowhere.pth", None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_legacy_format_and_half_precision_load(published: tuple[Path, Path], tmp_path: Path) -> None:
    """Old torch versions, and people who halve their files before sharing them, write these."""
    for path in published:
        state = torch.load(path, weights_only=True)
        halved = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
        torch.save(halved, path, _use_new_zipfile_serialization=False)
    paths = import_var(*published, tmp_path / "out")
    assert {p.dtype for p in load_tokenizer(paths[0]).parameters()} == {torch.float32}
    assert {p.dtype for p in load_transformer(paths[1])[0].parameters()} == {torch.float32}
