"""The two kinds of tokenizer: with a pyramid of latents, as in VAR, or a pyramid of image resolutions."""

from __future__ import annotations

from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer

AnyTokenizer = Tokenizer | ResolutionTokenizer
Quantizer = MultiScaleQuantizer | ResolutionQuantizer
