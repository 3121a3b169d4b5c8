"""Units of MedVAR's layers, which follow those of the other layers in the viewer.

napari draws without units, and warns, when the same axis of two layers has units of different kinds, such as pixels
and millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari


def agreed_units(viewer: napari.Viewer, own: Sequence[str], ours: str) -> tuple[str, ...]:
    """The units ``own`` of a layer's axes, each replaced where the other layers have a unit of another kind.

    Layers with the key ``ours`` in their metadata are ignored. Axes are matched from the last one, as in napari.
    """
    others = [layer.units for layer in viewer.layers if ours not in layer.metadata]
    result = []
    for axis, unit in zip(range(-len(own), 0), own, strict=True):
        given = [units[axis] for units in others if len(units) >= -axis]
        strange = [other for other in given if other.dimensionality != _unit(unit).dimensionality]
        result.append(str(strange[0]) if strange else unit)
    return tuple(result)


def agree(viewer: napari.Viewer, own: Sequence[str], ours: str) -> None:
    """Give every layer with the key ``ours`` its `agreed_units`; ``own`` are the units of the current image's axes."""
    for layer in viewer.layers:
        if ours in layer.metadata:
            wanted = agreed_units(viewer, (("pixel",) * layer.ndim + tuple(own))[-layer.ndim :], ours)
            if any(str(now) != str(_unit(then)) for now, then in zip(layer.units, wanted, strict=True)):
                layer.units = wanted


def _unit(name: str) -> Any:
    import pint

    return pint.get_application_registry().Unit(name)
