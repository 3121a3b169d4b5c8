"""One file a fold of the widget: it wires a panel to the session, through the `Workspace` that all of them share."""
