"""``medvar encode``: encodes slices as token pyramids, once for all trainings of a transformer."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medvar_engine.cli.console import needs, print_message, print_result, progress
from medvar_engine.errors import MedvarError

if TYPE_CHECKING:
    from medvar_engine.train.token_pyramids import Encode


def encode(
    slices: Annotated[Path, typer.Argument(help="Folder written by `medvar prepare`.")],
    tokenizer: Annotated[Path, typer.Argument(help="A trained tokenizer (.safetensors), or a bundle.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; finished parts in it are used again.")],
    variants: Annotated[
        int, typer.Option(help="Number of variants: the unchanged slices, and augmented copies.", min=1)
    ] = 4,
    seed: Annotated[int, typer.Option(help="Random seed of the augmentation.", min=0, max=1_000_000)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto uses CUDA if it is available.")] = "auto",
    workers: Annotated[int, typer.Option(help="Number of parallel processes.", min=1)] = 1,
    cluster: Annotated[str | None, typer.Option(help="Address of a dask scheduler, tcp://host:8786.")] = None,
) -> None:
    """Encode every slice once, for `medvar train stage=transformer pyramids=OUT`.

    This is for pyramids of latents; with a pyramid of resolutions, slices are encoded during training.
    The result fits every tokenizer with the same codebook, for example the one that a bundle was exported from.
    After an interruption, the same command continues where it stopped.
    """
    try:
        from medvar_engine.data.dataset import SliceDataset
        from medvar_engine.data.shards import Manifest
        from medvar_engine.models.weight_files import load_tokenizer
        from medvar_engine.storage import sha256, sha256_of
        from medvar_engine.train.batches import check_size
        from medvar_engine.train.device import pick_device
        from medvar_engine.train.token_pyramids import Encoding, codebook_of, tokenizer_encoder, write_pyramids
    except ImportError as error:
        raise needs("train", error) from error
    splits = [split for split in ("train", "test") if split in Manifest.read(slices).split.values()]
    data = {split: SliceDataset(slices, split) for split in splits}
    if tokenizer.suffix != ".safetensors":
        from medvar_engine.bundle.read import ENCODE, open_bundle
        from medvar_engine.tokens.codebook import codebook_digest

        bundle = open_bundle(tokenizer)
        if (codes := bundle.codebook()) is None:
            raise MedvarError(
                f"{bundle.path} has no codebook, which `medvar train` needs for the meaning of its tokens. Export that "
                "model again, or give the tokenizer.safetensors that it was exported from."
            )
        codebook = codebook_digest(codes)
        where, size = "cpu", bundle.image_size
        digest = sha256_of(f"{bundle.sha256[ENCODE]} {codebook}")  # together they determine the tokens
        open_encoder = functools.partial(
            bundle_encoder, bundle.path, digest, device, 1 if workers > 1 or cluster else None
        )
        masks = bool(bundle.structures)
        print_message("note: a bundle rounds differently than its tokenizer in torch, so occasionally a token differs.")
    else:
        loaded = load_tokenizer(tokenizer)
        where, size, digest = str(pick_device(device)), loaded.config.image_size, sha256(tokenizer)
        masks = bool(getattr(loaded.config, "structures", ()))
        codebook = codebook_of(loaded)
        open_encoder = functools.partial(tokenizer_encoder, tokenizer, digest, where)
    with progress() as bar:
        for split, part in data.items():
            check_size(part, size)
            task = bar.add_task(split, total=len(part))

            def advance(what: str, done: int, total: int, task: object = task) -> None:
                bar.update(task, description=what, completed=done, total=total)  # type: ignore[arg-type]

            count = variants if split == "train" else 1
            encoding = Encoding(part, open_encoder, digest, codebook, count, seed, where, masks)
            try:
                pyramids = write_pyramids(out, encoding, workers=workers, cluster=cluster, progress=advance)
            except KeyboardInterrupt:
                print_message(f"{out} is not complete. Run the same command again to continue.")
                raise
            bar.update(task, completed=len(part))
            print_message(f"{split}: {len(part)} slices × {len(pyramids)} variants of {pyramids.shape[2]} tokens")
    print_result(out)


@functools.lru_cache(maxsize=1)
def bundle_encoder(bundle: Path, digest: str, device: str, threads: int | None) -> Encode:
    """The encoder of a bundle with this digest, cached for the next work unit in this process."""
    import numpy as np

    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import read_bundle

    backend = OnnxBackend(read_bundle(bundle), device=device, threads=threads)
    return lambda images: np.concatenate(backend.encode(images), axis=1)
