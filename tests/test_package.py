"""Package: what `pip install .` gives works away from the checkout, weights and page included."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import make_voice
from tests.helpers.live_server import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    return next(folder.glob("*.whl"))


def test_a_video_is_made_from_the_wheel_alone(wheel, tmp_path):
    """Unpacked into an empty folder, with the libraries of this environment and nothing of the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not [n for n in names if n.startswith(("tests", "bench", "scripts", "runs", "work"))]
    scripts = (tmp_path / "site" / next(n for n in names if n.endswith("entry_points.txt"))).read_text()
    assert "lipsync = lipsync.__main__:main" in scripts and "lipsync-lab = demo.server:main" in scripts
    make_voice(tmp_path / "voice.wav", seconds=1.0)
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def run(code, *given):
        command = [sys.executable, "-P", "-c", code, *map(str, given)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280, check=False)

    face = tmp_path / "site" / "demo" / "assets" / "talking.mp4"
    main = (
        "import lipsync, sys; from lipsync.__main__ import main; print(lipsync.__file__); sys.exit(main(sys.argv[1:]))"
    )
    ran = run(main, "sync", face, tmp_path / "voice.wav", "--out", tmp_path / "out.mp4")
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path / "site") in ran.stdout and (tmp_path / "out.mp4").stat().st_size > 1000
    imports = "from demo.settings import Settings; from demo.server import build"
    ran = run(f"{imports}; build(Settings()); print('built')")
    assert ran.stdout.strip() == "built", ran.stderr
