"""Published encoders: their preprocessing, and instructions to get them. None is part of medvar."""

from __future__ import annotations

from dataclasses import dataclass

from medvar_engine.encoders.preprocessing import Preprocessing

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A published encoder.

    ``export`` is Python code that defines the network ``model``: ``(N, 3, S, S)`` → ``(N, D)``.
    """

    name: str
    about: str
    source: str
    licence: str
    dimension: int
    preprocessing: Preprocessing
    needs: str  # packages to install for the export
    export: str

    @property
    def file(self) -> str:
        """The name of the file that the instructions write."""
        return f"{self.name}.onnx"

    def instructions(self) -> str:
        """Instructions to get the file and to use it."""
        side = self.preprocessing.size
        return (
            f"The encoder {self.name} ({self.about}; {self.licence}) is not part of medvar. Get it once from "
            f"{self.source}: `pip install torch onnx onnxscript {self.needs}`, then run in Python\n\n"
            f"{self.export}\n"
            f'torch.onnx.export(model.eval(), torch.zeros(2, 3, {side}, {side}), "{self.file}", dynamo=True, '
            'external_data=False, dynamic_shapes=({0: "batch"},))\n\n'
            f"and give the file as {self.name}={self.file}. Its input must be (N, 3, {side}, {side}) and its output "
            f"(N, {self.dimension})."
        )


_VIT_WRAPPER = """import torch, transformers
class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = transformers.{model}.from_pretrained("{repository}")
    def forward(self, images):
        return {result}
model = Encoder()"""


def _transformers(model: str, repository: str, result: str) -> str:
    return _VIT_WRAPPER.format(model=model, repository=repository, result=result)


KNOWN_ENCODERS = {
    known.name: known
    for known in (
        KnownEncoder(
            "inception",
            "InceptionV3 as used by the Fréchet Inception Distance, Heusel et al., NeurIPS 2017",
            "https://github.com/mseitzer/pytorch-fid",
            "Apache-2.0",
            2048,
            Preprocessing(299, "bilinear", -1.0, 1.0),
            "pytorch-fid",
            """import torch
from pytorch_fid.inception import InceptionV3
class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = InceptionV3([3], resize_input=False, normalize_input=False)
    def forward(self, images):
        return self.net(images)[0].flatten(1)
model = Encoder()""",
        ),
        KnownEncoder(
            "radimagenet",
            "ResNet50 of RadImageNet, Mei et al., Radiology: AI 2022; with it the Fréchet distance is RadFID",
            "https://github.com/Warvito/radimagenet-models",
            "see https://github.com/BMEII-AI/RadImageNet for the terms of the weights",
            2048,
            # Channels in the order blue, green, red, with only the mean subtracted, as in the original training.
            Preprocessing(224, "bilinear", mean=(0.406, 0.456, 0.485)),
            "gdown",
            """import torch
net = torch.hub.load("Warvito/radimagenet-models", "radimagenet_resnet50", trust_repo=True)
class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net
    def forward(self, images):
        return self.net(images).mean((2, 3))
model = Encoder()""",
        ),
        KnownEncoder(
            "dinov2",
            "DINOv2 ViT-B/14, Oquab et al., TMLR 2024: the class token",
            "https://huggingface.co/facebook/dinov2-base",
            "Apache-2.0",
            768,
            Preprocessing(224, "bicubic", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
            "transformers",
            _transformers("AutoModel", "facebook/dinov2-base", "self.net(pixel_values=images).pooler_output"),
        ),
        KnownEncoder(
            "rad-dino",
            "RAD-DINO, a DINOv2 of chest radiographs, Pérez-García et al., Nature Machine Intelligence 2025",
            "https://huggingface.co/microsoft/rad-dino",
            "see there for the terms of the weights",
            768,
            Preprocessing(518, "bicubic", mean=(0.5307,) * 3, std=(0.2583,) * 3),
            "transformers",
            _transformers("AutoModel", "microsoft/rad-dino", "self.net(pixel_values=images).pooler_output"),
        ),
        KnownEncoder(
            "clip",
            "CLIP ViT-L/14 at 336 pixels, of length 1, as used by CMMD, Jayasumana et al., CVPR 2024",
            "https://huggingface.co/openai/clip-vit-large-patch14-336",
            "MIT",
            768,
            Preprocessing(
                336, "bicubic", mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
            ),
            "transformers",
            _transformers(
                "CLIPVisionModelWithProjection",
                "openai/clip-vit-large-patch14-336",
                "torch.nn.functional.normalize(self.net(pixel_values=images).image_embeds, dim=1)",
            ),
        ),
        KnownEncoder(
            "mobilenet",
            "MobileNetV2 trained on ImageNet, Sandler et al., CVPR 2018: small, for quick looks",
            "https://docs.pytorch.org/vision/stable/models/mobilenetv2.html",
            "BSD-3-Clause",
            1280,
            Preprocessing(224, "bilinear", mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
            "torchvision",
            """import torch, torchvision
net = torchvision.models.mobilenet_v2(weights="IMAGENET1K_V2")
net.classifier = torch.nn.Identity()
model = net""",
        ),
    )
}
"""Published encoders by the name for `open_encoder`."""
