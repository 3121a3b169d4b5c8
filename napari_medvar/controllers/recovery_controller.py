"""What a crash has left: offered when the widget opens, restored or forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from napari_medvar.controllers.shared_state import Workspace
from napari_medvar.panels.message_panel import Offer
from napari_medvar.session.autosave import Recoverable


class RecoveryController:
    """Asks in the message panel, about one crash at a time."""

    def __init__(self, workspace: Workspace, crashed: Sequence[Recoverable]) -> None:
        self._workspace, self._crashed = workspace, list(crashed)
        self._asks = False

    def begin(self) -> None:
        """Ask, unless that has begun."""
        if not self._asks:
            self._asks = True
            self._ask()

    def _ask(self) -> None:
        """Offer the newest, if there is any."""
        if not self._crashed:
            return
        newest = self._crashed[0]
        pictures = f"{newest.pictures} image{'s' * (newest.pictures != 1)}"
        self._workspace.message.ask(
            Offer(
                f"napari ended without saving {pictures}, last kept on {newest.saved:%d %B, %H:%M} "
                f"(model {newest.bundle}).",
                "Restore them",
                "Bring the images back, with their history. What is unsaved now is offered the next time.",
                "No, thanks",
                "Delete them for good.",
                self.recover,
                self.forget,
            )
        )

    def recover(self) -> None:
        """Its pictures in place of what is there."""
        crashed, session = self._crashed[0], self._workspace.session
        if self._workspace.start("show", lambda stop: session.recover(crashed)):
            self._crashed.clear()  # the others are offered the next time: this session is in use now
        else:
            self._ask()

    def forget(self) -> None:
        """Never ask again for it."""
        self._crashed.pop(0).discard()
        self._ask()
