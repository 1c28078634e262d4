from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches go to a folder of the test session, and nothing set on this machine reaches the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("NS_WEIGHTS", raising=False)
        patch.delenv("NS_PATIENT_KEY", raising=False)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real films: ``$NS_REAL_DATA``, else ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("NS_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real films at {folder}; set NS_REAL_DATA")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The number of threads decides the order of sums, and with it the last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
