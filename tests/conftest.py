import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of published tables; tests that need it are skipped where it is absent."""
    folder = os.environ.get("NASFLOW_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set NASFLOW_DATA to the folder that holds the published tables")
    return Path(folder)
