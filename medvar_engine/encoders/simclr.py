"""A small SimCLR encoder of slices (Chen et al., ICML 2020): the network and its file format."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medvar_engine.encoders.preprocessing import Preprocessing
from medvar_engine.errors import MedvarError
from medvar_engine.models.halving_stages import from_darkest, halving_stages
from medvar_engine.models.weight_files import read_tensors, write_tensors
from medvar_engine.storage import sha256
from medvar_engine.types import FloatArray
from medvar_engine.untrusted import plain_json

_KIND = "simclr encoder"
_BLOCK = 64  # slices that pass through the network together; constant, so that features are reproducible


@dataclass(frozen=True, slots=True)
class SimCLRConfig:
    """The architecture of the network."""

    size: int = 64  # pixels per side to which slices are resized
    channels: tuple[int, ...] = (
        32,
        64,
        96,
        128,
    )  # channels of each stage, multiples of 8; every stage halves the side length
    dimension: int = 128  # D, size of the embedding

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of slices."""
        return Preprocessing(self.size, "area", -1.0, 1.0, mean=(0.0,), std=(1.0,))


class SimCLRNetwork(nn.Module):
    """A small convolutional network that maps slices to embeddings of length 1.

    Group normalisation treats each image separately: an embedding does not depend on the rest of the batch, and depends
    little on gain and offset of intensities. Mean and maximum over all positions follow, so that a shift changes
    little.
    """

    def __init__(self, config: SimCLRConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = halving_stages(config.channels)
        self.head = nn.Linear(config.channels[-1] * 2, config.dimension)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, 1, size, size)`` in [-1, 1] → ``(B, D)``, each row of length 1."""
        maps = self.stages(from_darkest(image))
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        return nn.functional.normalize(self.head(pooled), dim=1)


class SimCLREncoder:
    """A trained network as an `Encoder`."""

    def __init__(self, network: SimCLRNetwork, sha256: str, *, name: str = "simclr") -> None:
        self.network, self.sha256, self.name = network.eval(), sha256, name
        self.dimension = network.config.dimension
        self.preprocessing = network.config.preprocessing

    @classmethod
    def load(cls, path: Path) -> SimCLREncoder:
        """Read a file of `save_simclr`. Raises `MedvarError` for other files."""
        tensors, metadata = read_tensors(path)
        try:
            values = plain_json.loads(metadata["medvar"])
            if values["kind"] != _KIND:
                raise MedvarError(f"{path} contains a {values['kind']}, but a {_KIND} is needed.")
            config = values["config"]
            shape = SimCLRConfig(int(config["size"]), tuple(map(int, config["channels"])), int(config["dimension"]))
            with torch.device("meta"):
                network = SimCLRNetwork(shape)
            network.load_state_dict(tensors, assign=True)
        except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise MedvarError(
                f"{path} is not a SimCLR encoder trained by medvar ({error}). Give other encoders as ONNX."
            ) from error
        return cls(network, sha256(path), name=path.stem)

    @torch.no_grad()
    def encode(self, images: FloatArray) -> FloatArray:
        """See `Encoder`."""
        features = np.empty((len(images), self.dimension), dtype=np.float32)
        for first in range(0, len(images), _BLOCK):
            rows = slice(first, first + _BLOCK)
            features[rows] = self.network(torch.from_numpy(self.preprocessing(images[rows]))).numpy()
        return features

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "dimension": self.dimension,
            "preprocessing": self.preprocessing.to_dict(),
        }


def save_simclr(path: Path, network: SimCLRNetwork, training: dict[str, Any]) -> None:
    """Write a network with its configuration and a record of its training."""
    values = {"kind": _KIND, "config": dataclasses.asdict(network.config), "training": training}
    write_tensors(path, network.state_dict(), {"medvar": json.dumps(values, sort_keys=True)})


def training_of(path: Path) -> dict[str, Any] | None:
    """The record of the training in a file of `save_simclr`; None for a missing or other file."""
    try:
        values = plain_json.loads(read_tensors(path)[1]["medvar"])
        return dict(values["training"]) if values["kind"] == _KIND else None
    except (MedvarError, KeyError, TypeError, ValueError):
        return None
