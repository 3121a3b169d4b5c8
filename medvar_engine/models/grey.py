"""Converts a tokenizer of colour images, such as the published one of VAR, to one of grey images such as CT and MR."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from medvar_engine.models.any_tokenizer import AnyTokenizer
from medvar_engine.models.resolution_tokenizer import ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer


def as_grey(tokenizer: AnyTokenizer) -> AnyTokenizer:
    """The same tokenizer with one image channel; ``tokenizer`` itself if it has one channel already.

    A grey image gets the tokens that ``tokenizer`` gives to the image copied to all channels; decoding gives the mean
    of the channels.
    """
    if isinstance(tokenizer, ResolutionTokenizer) or tokenizer.config.image_channels == 1:
        return tokenizer
    channels, patch = tokenizer.config.image_channels, tokenizer.config.patch
    config = dataclasses.replace(tokenizer.config, image_channels=1)
    with torch.device("meta"):
        grey = Tokenizer(config)
    tensors = dict(tokenizer.state_dict())

    def apart(tensor: Tensor, dim: int) -> Tensor:
        """Split a dimension into channels and the pixels of a patch."""
        return tensor.unflatten(dim, (channels, patch**2))

    tensors["encoder.conv_in.weight"] = apart(tensors["encoder.conv_in.weight"], 1).sum(1)
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        tensors[name] = apart(tensors[name], 0).mean(0)
    if tokenizer.linear_in is not None:
        tensors["linear_in.weight"] = tensors["linear_in.weight"].sum(1, keepdim=True)
        tensors["linear_out.weight"] = tensors["linear_out.weight"].mean(1, keepdim=True)
        tensors["linear_out.bias"] = tensors["linear_out.bias"].mean(0, keepdim=True)
    grey.load_state_dict(tensors, assign=True)
    return grey.train(tokenizer.training)
