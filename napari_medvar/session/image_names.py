"""Names of images in lists, which say how each was made."""

from __future__ import annotations

from medvar_engine.generate.trace import Encoded, Graft, Replace, Resample
from napari_medvar.session.trace_tree import Node


def label_of(node: Node) -> str:
    """The user's name of an image, or its number and how it was made, e.g. ``3 · resampled from scale 4, mask``."""
    return node.name or f"{node.id + 1} · {made_by(node)}"


def made_by(node: Node) -> str:
    """How an image was made, e.g. ``resampled from scale 4, mask`` or ``CT chest axial · seed 5``."""
    trace = node.trace
    match trace.edit:
        case Resample() as edit:
            other = trace.parent is not None and trace.parent.request.condition != trace.request.condition
            what = f"changed to {trace.request.condition}" if other else "resampled"
            locked = ", ".join(map(str, edit.keep))
            details = [f"{what} from scale {edit.from_scale}"]
            details += ["mask"] if edit.mask is not None else []
            details += [f"scales {locked} locked"] if locked else []
            return ", ".join(details)
        case Replace() as edit:
            return f"tokens of scale {edit.scale} put in by hand"
        case Graft() as edit:
            return f"scales below {edit.scale} taken from another image"
        case Encoded() as edit:
            return "encoded from a real image" if edit.real else "encoded from a synthetic image"
    return f"{trace.request.condition} · seed {trace.request.seed}"
