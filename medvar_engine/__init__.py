"""MedVAR: synthetic CT and MR slices by next-scale prediction (arXiv 2602.14512).

>>> import medvar_engine as medvar
>>> bundle = medvar.open_bundle("demo")
>>> chest = medvar.Condition(modality="CT", region="chest", plane="axial")
>>> image = medvar.make_image(bundle, chest, seed=6)  # doctest: +SKIP
>>> medvar.save_image(image, "chest.png")  # doctest: +SKIP

The names in `__all__` are the public interface. A public name is removed, or changes its meaning, only after one minor
release in which it still works and warns (`FutureWarning`); CONTRIBUTING.md has the rule. Everything else may change in
any release.

Importing this package loads neither torch, onnxruntime nor Qt: every name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvar_engine.backends.onnx import OnnxBackend
    from medvar_engine.bundle.read import Bundle, open_bundle
    from medvar_engine.conditions import Condition
    from medvar_engine.errors import MedvarError
    from medvar_engine.generate.generator import Generator
    from medvar_engine.generate.trace import Trace
    from medvar_engine.request import Request, Sampling
    from medvar_engine.sets.make_image import make_image
    from medvar_engine.tokens.pyramid import TokenPyramid
    from medvar_engine.write.formats import save_image

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Condition",
    "Generator",
    "MedvarError",
    "OnnxBackend",
    "Request",
    "Sampling",
    "TokenPyramid",
    "Trace",
    "__version__",
    "make_image",
    "open_bundle",
    "save_image",
]
_MODULES = {
    "Bundle": "bundle.read",
    "Condition": "conditions",
    "Generator": "generate.generator",
    "MedvarError": "errors",
    "OnnxBackend": "backends.onnx",
    "Request": "request",
    "Sampling": "request",
    "TokenPyramid": "tokens.pyramid",
    "Trace": "generate.trace",
    "make_image": "sets.make_image",
    "open_bundle": "bundle.read",
    "save_image": "write.formats",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
