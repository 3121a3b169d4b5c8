"""The controllers, one per section of the widget. Each connects a panel to the session by a shared `Workspace`."""
