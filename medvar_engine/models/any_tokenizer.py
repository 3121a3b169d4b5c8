"""The two kinds of tokenizer: a pyramid of latents, as VAR's, or of the image's own resolutions."""

from __future__ import annotations

from medvar_engine.models.quantizer import MultiScaleQuantizer
from medvar_engine.models.resolution_tokenizer import ResolutionQuantizer, ResolutionTokenizer
from medvar_engine.models.tokenizer import Tokenizer

AnyTokenizer = Tokenizer | ResolutionTokenizer
Quantizer = MultiScaleQuantizer | ResolutionQuantizer
