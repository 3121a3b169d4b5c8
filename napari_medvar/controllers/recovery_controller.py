"""`RecoveryController`: offers to restore sessions left by a crash when the widget opens."""

from __future__ import annotations

from collections.abc import Sequence

from napari_medvar.controllers.shared_state import Workspace
from napari_medvar.panels.message_panel import Question
from napari_medvar.session.autosave import Recoverable


class RecoveryController:
    """Asks in the message panel about one session at a time."""

    def __init__(self, workspace: Workspace, crashed: Sequence[Recoverable]) -> None:
        self._workspace, self._crashed = workspace, list(crashed)
        self._asks = False

    def begin(self) -> None:
        """Begin to ask, unless that has been done."""
        if not self._asks:
            self._asks = True
            self._ask()

    def _ask(self) -> None:
        """Offer the newest session, if there is one."""
        if not self._crashed:
            return
        newest = self._crashed[0]
        images = f"{newest.images} image{'s' * (newest.images != 1)}"
        self._workspace.message.ask(
            Question(
                f"An earlier session ended without saving {images}, last saved automatically on "
                f"{newest.saved:%d %B, %H:%M} (model {newest.bundle}).",
                "Restore them",
                "Restore the images with their history. Present unsaved images are offered at the next start.",
                "No, thanks",
                "Delete these images permanently.",
                self.recover,
                self.forget,
            )
        )

    def recover(self) -> None:
        """Replace the present images by those of the session."""
        crashed, session = self._crashed[0], self._workspace.session
        if self._workspace.start("show", lambda stop: session.recover(crashed)):
            self._crashed.clear()  # others are offered at the next start, because this session is now in use
        else:
            self._ask()

    def forget(self) -> None:
        """Delete the session, and do not ask for it again."""
        self._crashed.pop(0).discard()
        self._ask()
