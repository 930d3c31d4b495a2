"""The page in the tests' own process, with a client that talks to it without a network."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from demo import tasks
from demo.server import build
from demo.settings import Settings


@contextlib.contextmanager
def page_client(work: Path, **headers: str) -> Iterator[TestClient]:
    """A client of a page whose files lie in `work`; `client.gate` is the page's gate. No network is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
        patch.setattr(tasks, "warm_up", lambda: None)
        gate = build(Settings(work=work, max_megabytes=1))
        with TestClient(gate, base_url="http://localhost", headers=headers) as client:
            client.gate = gate
            yield client
