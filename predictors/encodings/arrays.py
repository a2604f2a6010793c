"""Files of arrays with facts beside them: what learned encodings and their checkpoints are stored in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from searchspaces.errors import PredictorError
from searchspaces.files import replacing

_META = "nasflow"


def save_arrays(path: Path, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write arrays as safetensors, and facts that JSON can hold; a former file is replaced in one step."""
    with replacing(path) as partial:
        kept = {name: array.detach().contiguous() for name, array in arrays.items()}
        save_file(kept, partial, {_META: json.dumps(facts)})


def load_arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a file whose facts were read."""
    return load_file(path)


def load_facts(path: Path, kind: str, schema: int, keys: Sequence[str], remedy: str) -> dict[str, Any]:
    """Return the facts of a file.

    Args:
        path: The file.
        kind: What it is called in messages.
        schema: The `schema` that its facts must have.
        keys: What else they must hold.
        remedy: What to do about a file that cannot be used, as a sentence.

    Raises:
        PredictorError: If the file is missing or damaged, or of another kind or schema version.
    """
    if not path.is_file():
        raise PredictorError(f"There is no {kind} {path}. Check the path. {remedy}")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[_META])
        found = facts["schema"]
        missing = [key for key in keys if key not in facts]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise PredictorError(f"{path} is damaged, or no {kind} of nasflow ({error}). {remedy}") from error
    if missing:
        raise PredictorError(f"{path} is no {kind} of nasflow: it lacks {', '.join(missing)}. {remedy}")
    if found != schema:
        raise PredictorError(
            f"{path} has {kind} schema {found}, but this version of nasflow reads {schema}. {remedy}"
        )
    return dict(facts)
