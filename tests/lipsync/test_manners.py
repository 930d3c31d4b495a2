"""What the whole program leaves alone: the network, the home folder, and a user who has neither home nor cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync import engines, files
from lipsync.checkpoints import registry
from lipsync.errors import LabelError
from lipsync.label.keys import load_signer, trust
from lipsync.models.wav2lip import Wav2LipModel
from tests.conftest import ROOT

SPEC = engines.NetworkSpec(
    registry.cards()["wav2lip-gan-lab"], tuple(Wav2LipModel.inputs.items()), Wav2LipModel.outputs, dict
)
HOOK = """
import json, os, sys
def note(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto", "urllib.Request"):
        said = [a for a in map(str, args) if "127.0.0.1" in a or "localhost" in a or a.startswith("/")]
        if not said:
            with open(os.environ["LOOKED_UP"], "a") as file:
                file.write(f"{event} {args!r} {sys.argv}\\n")
sys.addaudithook(note)
"""
EVERYTHING = """
import sys
from pathlib import Path
from lipsync.__main__ import main
from eval.__main__ import main as evaluate
clip, voice, folder = sys.argv[1:]
assert main(["sync", clip, voice, "--out", f"{folder}/out.mp4"]) == 0
assert main(["verify", f"{folder}/out.mp4"]) == 0
assert main(["models"]) == 0
assert evaluate(["score", f"{folder}/out.mp4"]) == 0
assert evaluate(["frechet", clip, "--generated", f"{folder}/out.mp4", "--every", "10"]) == 0
from fastapi.testclient import TestClient
from demo import server as app
from demo.settings import Settings
with TestClient(app.build(Settings(work=Path(folder, "work"))), base_url="http://localhost") as page:
    assert page.get("/").status_code == 200
"""


def python(code, *args, **environment):
    """Another Python with an environment of this alone; returns (exit code, what it said on standard error)."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )
    return ran.returncode, ran.stderr


@pytest.mark.slow
def test_no_host_is_looked_up_and_no_file_is_left_outside_the_documented_folders(clip, voice, tmp_path):
    """Sync, verify, score, the distance of sets and the page, from a first run on, in this process and its children."""
    hook, home, work = tmp_path / "hook", tmp_path / "home", tmp_path / "results"
    for folder in (hook, home, work):
        folder.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    environment = {"PYTHONPATH": str(hook), "LOOKED_UP": str(tmp_path / "log"), "HOME": str(home)}
    code, said = python(EVERYTHING, clip, voice, work, **environment)
    assert code == 0, said
    assert not (tmp_path / "log").exists(), (tmp_path / "log").read_text()
    left = [path.relative_to(home).parts for path in home.rglob("*") if path.is_file()]
    assert {parts[:2] for parts in left} <= {(".cache", "lipsync"), (".config", "lipsync"), (".local", "share")}, left
    assert (".cache", "lipsync", "engines.json") in left


def test_the_hook_would_see_a_look_up(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    code = "import socket; socket.getaddrinfo('example.invalid', 80)"
    python(code, PYTHONPATH=str(tmp_path), LOOKED_UP=str(tmp_path / "log"))
    assert "example.invalid" in (tmp_path / "log").read_text()


NOWHERE = os.path.join(os.devnull, "home")  # where not even root can make a folder


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"HOME": NOWHERE}, {"HOME": "/", "LIPSYNC_CACHE": NOWHERE}])
def test_without_a_cache_it_works_and_says_so_once(clip, voice, tmp_path, environment):
    keys, out = {"LIPSYNC_KEYS": str(tmp_path / "keys")}, tmp_path / "out"
    out.mkdir()
    code = "import sys; from lipsync.__main__ import main; sys.exit(main(sys.argv[1:]))"
    report = out / "report.json"
    done, said = python(code, "sync", clip, voice, "--out", out / "out.mp4", "--report", report, **environment, **keys)
    assert done == 0 and "Traceback" not in said and "atplotlib" not in said, said
    warnings = json.loads(report.read_text())["warnings"]
    assert len(warnings) == 1 and "could not be kept" in warnings[0] and "LIPSYNC_CACHE" in warnings[0]
    for command in (["verify", out / "out.mp4"], ["models"]):
        assert python(code, *command, **environment, **keys) == (0, "")


@pytest.fixture
def no_home(monkeypatch):
    """A service's user: no HOME, and no entry in the list of users."""
    monkeypatch.delenv("LIPSYNC_KEYS", raising=False)
    monkeypatch.delenv("LIPSYNC_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


def test_without_a_home_folders_read_as_empty_and_say_so_when_written(no_home):
    assert files.cache_dir() == Path(os.devnull, ".cache", "lipsync")
    assert files.listed(files.cache_dir(), "*") == [] and files.expanded("~/x") == Path(os.devnull, "x")
    assert len(files.cache_warnings()) == 1
    assert trust().authorities == ""
    with pytest.raises(LabelError, match="No signing key can be made in .*: set LIPSYNC_KEYS to a folder of yours"):
        load_signer()


@pytest.mark.parametrize("said", ["[1, 2]", "{", '{"key": []}', "7"])
def test_a_damaged_memory_of_speeds_is_made_anew(said, tmp_path, monkeypatch):
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    monkeypatch.setattr(engines, "compare", lambda *_: {"torch": {"faces_per_s": 1.0, "agrees": True}})
    (tmp_path / "engines.json").write_text(said)
    assert engines._fastest(SPEC, {"torch": None}) == "torch"
    assert "torch" in json.loads((tmp_path / "engines.json").read_text()).values()


@pytest.mark.slow
def test_a_damaged_network_in_the_cache_is_made_anew(tmp_path, monkeypatch):
    import openvino as ov

    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path))
    core = ov.Core()
    assert engines._converted(SPEC, ov, core)
    (weights,) = (tmp_path / "openvino").glob("*.bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert engines._converted(SPEC, ov, core)
    assert weights.read_bytes() == whole
