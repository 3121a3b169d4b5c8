"""What the controllers share: the `Workspace` they act on, and the `State` that says what is enabled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from medvar_engine.generate.trace import Request
from napari_medvar.layers.image_view import PictureView
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

Doing = Literal["load", "make", "show", "restore", "compute"]  # what the worker does; Stop is for "make"


@dataclass(frozen=True, slots=True)
class State:
    """What there is now."""

    idle: bool  # a model is loaded, and the worker has nothing to do
    picture: bool
    complete: bool


class Workspace(Protocol):
    """The widget, as its controllers see it."""

    viewer: napari.Viewer
    session: GenerationSession
    picture: PictureView
    sampling: SamplingPanel
    message: MessagePanel
    views: ViewPanel
    icons: Icons
    work: WorkReport

    @property
    def scale(self) -> int:
        """The scale looked at."""

    @property
    def image_space(self) -> ImageSpace:
        """Where the current picture lies."""

    def request(self) -> Request:
        """What the panels ask for."""

    def start(self, doing: Doing, work: Work, text: str = "") -> bool:
        """Hand work to the worker, which makes `take` calls of its results. Whether the worker was free."""

    def tell(self, text: str) -> None:
        """A plain word on what went wrong."""

    def reopen(self) -> None:
        """Open the chosen model where models run now."""

    @property
    def busy(self) -> bool:
        """Whether anything goes on."""

    def show_current(self) -> None:
        """The current picture has changed: show it and its settings."""

    def refresh(self) -> None:
        """Enable what can be done now."""
