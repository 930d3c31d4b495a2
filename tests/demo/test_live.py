"""The page's API on the real engine, through gradio_client: docs/api.md is run as it stands."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from lipsync.media.reader import probe
from tests.helpers.live_server import ROOT, serve

from .test_callbacks import SECRET, Listener, true_signature

pytestmark = pytest.mark.slow
ASSETS = ROOT / "tests" / "data" / "page"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("live") / "work"


@pytest.fixture(scope="module")
def listener():
    made = Listener(200)
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(folder, listener):
    with serve(folder, MAX_SECONDS="8", CALLBACK_HOSTS=listener.host, CALLBACK_SECRET=SECRET) as address:
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
        ((face, face, True, None), "moving.mp4 has no sound track"),
        ((voice, voice, True, None), "voice-two.mp3 holds no picture"),
        ((face, voice, True, {"detector": "s3fd"}), "no option 'detector'"),
        ((face, voice, True, {"model": "../x"}), "no model '../x'"),
        ((face, voice, True, {"face": "7"}), "no face number 7"),
    ):
        with pytest.raises(AppError, match=re.escape(said)):
            client.predict(*call, api_name="/sync")
    for segments, said in (
        (3, "Segments are a list"),
        ([], "Segments are a list"),
        ([{"voice": 1}], "Segment 1 names a voice by its number: 0 to 0"),
        ([{"voice": True}], "Segment 1 names a voice"),
        ([{"voice": 0, "crf": 3}], "Segment 1: A segment has no option 'crf'"),
        ([{"voice": 0}] * 13, "A video takes 12 segments here at most"),
        ([{"voice": 0}, {"voice": 0}], "move one face at the same time"),
        ([{"voice": 0, "face": "0"}, {"voice": 0, "start": 9}], "The part to sync, from 9 s, lies outside"),
    ):
        with pytest.raises(AppError, match=re.escape(said)):
            client.predict(face, [voice], True, segments, api_name="/segments")
    picture = handle_file(str(ASSETS / "portrait.jpg"))
    for start, said in ((1e5, "a picture can be shown for 8 s"), (6, "a picture can be shown for 8 s")):
        with pytest.raises(AppError, match=said):
            client.predict(picture, [voice], True, [{"voice": 0, "start": start}], api_name="/segments")
    with pytest.raises(AppError, match="No voices were given"):
        client.predict(face, [], True, [{"voice": 0}], api_name="/segments")
    with pytest.raises(AppError, match="has no sound track"):  # options may be left out
        client.predict(face, face, True, api_name="/sync")
    for name, nothing in (("/sync", (None, voice, True, None)), ("/faces", (None, 0)), ("/verify", (None,))):
        with pytest.raises(AppError, match="No (video|file) was given"):
            client.predict(*nothing, api_name=name)


def test_the_same_call_is_made_once_and_a_callback_is_told(client, folder, listener, address):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    face, voice = handle_file(str(ASSETS / "portrait.jpg")), handle_file(str(ASSETS / "voice-two.mp3"))
    options = {"end": 0.8}
    first, report = client.predict(face, voice, True, options, api_name="/sync")
    again, same = client.predict(face, voice, True, options, api_name="/sync")
    assert (report["made_before"], same["made_before"]) == (False, True)
    assert Path(first).read_bytes() == Path(again).read_bytes()
    other, changed = client.predict(face, voice, True, {"end": 0.6}, api_name="/sync")
    assert not changed["made_before"] and changed["frames"] < report["frames"]
    calling = options | {"callback": f"http://{listener.host}/made"}
    nothing, waiting = client.predict(face, voice, True, calling, api_name="/sync")
    assert nothing is None and waiting["state"] == "waiting"
    ends = time.monotonic() + 60
    while not listener.heard and time.monotonic() < ends:
        time.sleep(0.1)
    (path, headers, body), told = listener.heard[0], json.loads(listener.heard[0][2])
    assert path == "/made" and headers["webhook-signature"] == true_signature(headers, body)
    assert told["job"] == waiting["job"] and told["state"] == "done" and told["report"]["made_before"]
    assert httpx.get(address + told["video"]).content == Path(first).read_bytes()
    with pytest.raises(AppError, match="localhost is none"):
        client.predict(face, voice, True, {"callback": "http://localhost/"}, api_name="/sync")
    assert not list((folder / "jobs").iterdir())


def test_the_documented_routes_work_without_a_client(address):
    """The OpenAPI text of docs/api.md: its paths are these, and they do what it says."""
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)[1]
    paths = yaml.safe_load(text)["paths"]
    upload, call, answer, file = paths
    assert [list(paths[p]) for p in paths] == [["post"], ["post"], ["get"], ["get"]]
    given = [("files", (name, (ASSETS / name).read_bytes())) for name in ("portrait.jpg", "voice-two.mp3")]
    names = httpx.post(address + upload, files=given).json()
    pattern = paths[upload]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["items"]["pattern"]
    assert all(re.match(pattern, name) for name in names)
    files = [{"path": name, "meta": {"_type": "gradio.FileData"}} for name in names]
    data = [*files, True, {"end": 0.8}]
    begun = httpx.post(address + call.format(endpoint="sync"), json={"data": data}).json()
    said = httpx.get(address + answer.format(endpoint="sync", event_id=begun["event_id"]), timeout=60).text
    event, result = re.findall(r"event: (\w+)\ndata: (.*)\n", said)[-1]
    assert event == "complete"
    made, report = json.loads(result)
    assert report["frames_synced"] == 20
    assert httpx.get(address + file.format(name=made["path"])).content[4:8] == b"ftyp"


def test_two_callers_at_once(address, tmp_path):
    from gradio_client import Client, handle_file

    face, voice = handle_file(str(ASSETS / "portrait.jpg")), handle_file(str(ASSETS / "voice-two.mp3"))
    clients = [Client(address, verbose=False, download_files=tmp_path / str(n)) for n in range(2)]
    calls = [c.submit(face, voice, True, {"crf": 20 + 10 * n}, api_name="/sync") for n, c in enumerate(clients)]
    (one, first), (two, second) = (call.result(timeout=120) for call in calls)
    assert first["frames_synced"] == second["frames_synced"] > 100
    assert Path(one).stat().st_size > Path(two).stat().st_size  # each got its own
