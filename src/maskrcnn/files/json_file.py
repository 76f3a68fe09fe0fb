"""Reads JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskrcnn.errors import DataError


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file.

    Args:
        expected: what the file should contain, for messages, such as "a COCO JSON".

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected {expected}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}), expected {expected}; the file may be truncated") from None
