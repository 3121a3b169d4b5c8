"""Reads untrusted YAML: plain values of limited size and depth, without aliases, which could expand exponentially."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medvar_engine.storage import check_regular

MAX_BYTES = 2**18
_MAX_DEPTH = 50
# What PyYAML raises for text that is not valid: also for a number of ten thousand digits, and for values with a tag
# that does not suit them, such as ``!!timestamp soon``.
INVALID = (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError)


class PlainLoader(yaml.SafeLoader):
    """A `yaml.SafeLoader` that refuses aliases and deeply nested values."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See `yaml.composer.Composer`."""
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not supported; write the value out", mark
            )
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"values are nested more than {_MAX_DEPTH} deep", mark)
        try:
            return super().compose_node(parent, index)  # type: ignore[no-any-return, no-untyped-call]
        finally:
            self._depth -= 1


def loads(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """The value of a YAML text. Raises `ValueError` for invalid YAML, and for values that `PlainLoader` refuses."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 1024} kB")
    try:
        return loader(text).get_single_data()
    except INVALID as error:
        raise ValueError(str(error)) from error


def read_text(path: Path) -> str:
    """The text of a YAML or TOML file. Raises `OSError`, and `ValueError` when it is not text or too large."""
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 1024} kB")
    return content.decode("utf-8")
