"""The recommender that the README shows is complete, short, and can be built."""

import re
import sys
from pathlib import Path

import pytest

from export.command import main

README = Path(__file__).parents[2] / "README.md"


def test_the_recommender_of_the_readme_builds_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = README.read_text().partition("## A recommender of your own")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    assert found.group(1).count("\n") < 40
    (tmp_path / "my_shop.py").write_text(found.group(1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["build", "my_shop:Shop", "--items", "30", "--out", "bundle"]) == 0
    assert main(["verify", "bundle"]) == 0
    assert "onnx" in capsys.readouterr().out
