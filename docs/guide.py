"""Writes ``docs/how-to/steer-an-image.md`` from the pages that the widget shows: ``python docs/guide.py``."""

from __future__ import annotations

from pathlib import Path

from napari_medvar import guide

PAGE = Path(__file__).parent / "how-to" / "steer-an-image.md"
_HEAD = """# Change an image in the plugin

*For users of the plugin who want another image than the one that was generated.*

In napari, open **Plugins › MedVAR Generate**. A `?` beside each section of the widget shows its part of this page.

![The plugin in napari](../images/plugin.png)

| key | action |
|---|---|
| Ctrl+Enter | generate, or finish unfinished images |
| Ctrl+. | make one more scale |
| Shift+← → | show a coarser or finer scale |
| Ctrl+Shift+R | resample from the scale under *Edit* |
| Ctrl+B | switch between the image before the last edit and after it |
| Esc, in the panel only | stop after the current scale |
| Ctrl+Z, Ctrl+Shift+Z | undo, redo |
| Alt and an underlined letter | press that button |
| ? | help: guide, keys, version, model card |

Buttons show their keys. The first five work in the whole window, and can be changed in *Preferences › Shortcuts*.

"""


def page() -> str:
    """The page."""
    sections = [guide.page(name).replace("](", "](../images/plugin-") for name in guide.PAGES]
    return _HEAD + "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
