"""What the controllers share: the `Workspace` that they act on, and the `State` that decides what is enabled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from medvar_engine.generate.trace import Request
from napari_medvar.layers.image_view import ImageView
from napari_medvar.panels.icons import Icons
from napari_medvar.panels.message_panel import MessagePanel
from napari_medvar.panels.sampling_panel import SamplingPanel
from napari_medvar.panels.view_panel import ViewPanel
from napari_medvar.session.generation_session import GenerationSession
from napari_medvar.session.image_space import ImageSpace
from napari_medvar.work_report import WorkReport
from napari_medvar.worker import Work

if TYPE_CHECKING:
    import napari

Doing = Literal["load", "make", "show", "restore", "compute"]  # kinds of work; Stop applies to "make"


@dataclass(frozen=True, slots=True)
class State:
    """The present state of the widget."""

    idle: bool  # a model is loaded and the worker is idle
    has_image: bool
    complete: bool


class Workspace(Protocol):
    """The widget, as its controllers see it."""

    viewer: napari.Viewer
    session: GenerationSession
    image_view: ImageView
    sampling: SamplingPanel
    message: MessagePanel
    views: ViewPanel
    icons: Icons
    work: WorkReport

    @property
    def scale(self) -> int:
        """The scale that is shown."""

    @property
    def image_space(self) -> ImageSpace:
        """The image space of the current image."""

    def request(self) -> Request:
        """The request that the panels describe."""

    def start(self, doing: Doing, work: Work, text: str = "") -> bool:
        """Start work in the worker; its results are passed to `take`. Returns False when the worker is busy."""

    def when_idle(self, action: Callable[[], None]) -> None:
        """Do something, once the worker is free."""

    def show_error(self, text: str) -> None:
        """Show an error message."""

    def reopen(self) -> None:
        """Open the chosen model on the device or server of the settings."""

    @property
    def busy(self) -> bool:
        """Whether work is in progress."""

    def show_current(self) -> None:
        """Show the current image and its settings after a change."""

    def refresh(self) -> None:
        """Update which controls are enabled."""
