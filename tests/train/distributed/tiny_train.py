"""``python -m medvar_engine.train`` with the preset of these tests, for processes that `torchrun` starts."""

from __future__ import annotations

import torch

from medvar_engine.models import presets
from medvar_engine.models.tokenizer import TokenizerConfig
from medvar_engine.train.__main__ import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    presets.TOKENIZERS["demo"] = TokenizerConfig(16, (1, 2, 3, 4), 128, 4, (8, 16), res_blocks=1, groups=4, patch=2)
    main()
