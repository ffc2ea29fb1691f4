"""What the tests of all commands share."""

from pathlib import Path

import pytest

from tests.faults.world import make


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command lines of world.COMMANDS read, made once for all tests, which write elsewhere."""
    return make(tmp_path_factory.mktemp("world"))
