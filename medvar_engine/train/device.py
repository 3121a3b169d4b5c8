"""The device and the precision of a run."""

from __future__ import annotations

from typing import Literal

import torch

from medvar_engine.errors import MedvarError


def pick_device(name: str) -> torch.device:
    """The torch device ``name``; ``auto`` is CUDA if available. Raises `MedvarError` for an unavailable device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MedvarError(f"There is no device {name!r} here: {error}. Use device=cpu or device=auto.") from error
    return device


def autocast(device: torch.device, precision: Literal["auto", "float32", "bfloat16"]) -> torch.autocast:
    """The autocast context in which losses are computed; ``auto`` is bfloat16 if the hardware supports it."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    else:
        fast = precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; emulation is slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    return bool(torch.cpu._is_avx512_bf16_supported()) if "AVX512" in capabilities else False
