from pathlib import Path

import pytest

from device_sims.simulation.workshop import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("simulations"))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("device,from_s,to_s,update_s\na,0,1800,4\nb,900,1200,\nb,2000,3600,20\n")
    return path
