"""What must stay the same while a study is continued."""

import json
from collections.abc import Mapping
from typing import Any

from searchspaces.errors import ConfigError

_SHOWN = 5
_WIDTH = 80


def identity(**parts: Any) -> dict[str, Any]:
    """Return `parts` as a storage gives them back.

    Raises:
        ConfigError: If they hold something that JSON cannot.
    """
    try:
        return dict(json.loads(json.dumps(parts)))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"A study's configuration is stored with it as JSON, which it cannot be: {error}. Give plain numbers, "
            "texts, lists and mappings."
        ) from error


def describe_changes(old: Any, new: Any) -> str:
    """List what differs, as text; empty when nothing does. An absent key is the same as a null one."""
    changes = _changes(old, new)
    listed = [f"{path}: was {_shown(before)}, is now {_shown(after)}" for path, (before, after) in changes.items()]
    more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return "; ".join(listed[:_SHOWN]) + more


def _changes(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted(old.keys() | new.keys()):
            found |= _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    same = old == new or json.dumps(old) == json.dumps(new)  # NaN, too, is the same as before
    return {} if same else {path.removeprefix("config."): (old, new)}


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    text = json.dumps(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
