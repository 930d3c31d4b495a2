"""The page's API on the real engine, through gradio_client: docs/api.md is run as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lipsync.media.reader import probe
from tests.helpers.live_server import ROOT, serve

pytestmark = pytest.mark.slow
ASSETS = ROOT / "tests" / "data" / "page"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("live") / "work"


@pytest.fixture(scope="module")
def address(folder):
    with serve(folder, MAX_SECONDS="8") as address:
        yield address


@pytest.fixture
def client(address, tmp_path):
    from gradio_client import Client

    return Client(address, verbose=False, download_files=tmp_path)


def test_the_documented_snippet_runs(address, folder, tmp_path):
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)[1]
    code = snippet.replace("http://127.0.0.1:7860", address)
    env = {"GRADIO_TEMP_DIR": str(tmp_path), "PATH": "/usr/bin", "HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    faces, sync, parts, verify = [line for line in ran.stdout.splitlines() if line and not line.startswith("Loaded")]
    assert faces.startswith("1 {'0': [")
    assert re.match(r"\S+\.mp4 \d+ \d+ frames at 25 a second", sync)
    assert re.match(r"\d+ \d+$", parts) and 20 < int(parts.split()[1]) < int(parts.split()[0])
    made = probe(Path(sync.split()[0]))
    assert made.has_audio and made.codec == "h264" and made.frames > 70
    assert "'labelled': True" in verify and "intact" in verify
    assert not list((folder / "jobs").iterdir())  # answered jobs leave nothing


def test_errors_are_the_pages_sentences(client):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    face, voice = handle_file(str(ASSETS / "moving.mp4")), handle_file(str(ASSETS / "voice-two.mp3"))
    for call, said in (
        ((face, voice, False, None), "consent=True"),
        ((face, face, True, None), "moving.mp4 holds no sound"),
        ((voice, voice, True, None), "voice-two.mp3 holds no picture"),
        ((face, voice, True, {"detector": "s3fd"}), "no option 'detector'"),
        ((face, voice, True, {"model": "../x"}), "no model '../x'"),
        ((face, voice, True, {"face": "7"}), "no face number 7"),
        ((face, None, True, None, [voice]), "what part each of the voices has"),
        ((face, None, True, {"segments": 3}, [voice]), "Segments are a list"),
        ((face, None, True, {"segments": [{"voice": 1}]}, [voice]), "Segment 0 names a voice by its number: 0 to 0"),
        (
            (face, None, True, {"segments": [{"voice": 0, "crf": 3}]}, [voice]),
            "Segment 0: A segment has no option 'crf'",
        ),
        ((face, None, True, {"segments": [{"voice": 0}, {"voice": 0}]}, [voice]), "move one face at the same time"),
    ):
        with pytest.raises(AppError, match=re.escape(said)):
            client.predict(*call, api_name="/sync")
    with pytest.raises(AppError, match="holds no sound"):  # options may be left out
        client.predict(face, face, True, api_name="/sync")
    for name, nothing in (("/sync", (None, voice, True, None)), ("/faces", (None, 0)), ("/verify", (None,))):
        with pytest.raises(AppError, match="No (video|file) was given"):
            client.predict(*nothing, api_name=name)


def test_two_callers_at_once(address, tmp_path):
    from gradio_client import Client, handle_file

    face, voice = handle_file(str(ASSETS / "portrait.jpg")), handle_file(str(ASSETS / "voice-two.mp3"))
    clients = [Client(address, verbose=False, download_files=tmp_path / str(n)) for n in range(2)]
    calls = [c.submit(face, voice, True, {"crf": 20 + 10 * n}, api_name="/sync") for n, c in enumerate(clients)]
    (one, first), (two, second) = (call.result(timeout=120) for call in calls)
    assert first["frames_synced"] == second["frames_synced"] > 100
    assert Path(one).stat().st_size > Path(two).stat().st_size  # each got its own
