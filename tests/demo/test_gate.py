"""Gate of the page: hosts, origins, routes, sizes, and every path that a request can carry. No engine is needed."""

import asyncio
import json
import os
import shutil

import pytest

from demo import gate, tasks, uploads
from demo.server import check_gradio
from tests.helpers.page_client import page_client

FILE_KINDS = {"video", "image", "audio", "file", "uploadbutton"}
SECRET = "the signing key of this installation"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The page's work folder, with a secret beside it."""
    work = tmp_path_factory.mktemp("gate") / "work"
    work.mkdir()
    (work.parent / "key.pem").write_text(SECRET)
    return work


@pytest.fixture(scope="module")
def server(place):
    with page_client(place) as client:
        yield client


@pytest.fixture
def upload(server):
    """A file that was really uploaded: its path as the page says it, which is no path of the server."""
    return server.post("/gradio_api/upload", files={"files": ("clip.mp4", b"0" * 100)}).json()[0]


def outside(place):
    """Paths that are no upload, each of its own kind."""
    folder, key = place / "gradio", place.parent / "key.pem"
    link, fifo, tilted = folder / "link.mp4", folder / "fifo.mp4", folder / "sub"
    if not link.is_symlink():
        link.symlink_to(key)
        os.mkfifo(fifo)
        tilted.symlink_to(place.parent)
    return [
        str(key),
        "/etc/hostname",
        "/dev/zero",
        "/proc/self/environ",
        str(folder),
        str(link),
        str(fifo),
        str(tilted / "key.pem"),
        f"{folder}/../../key.pem",
        "key.pem",
        "/files/../../key.pem",
        "/files/link.mp4",
        "/files/fifo.mp4",
        "/files/sub/key.pem",
        "/files",
        "/files/",
        f"/files/{key}",
        "",
        "\0",
        "a" * 5000,
        f"file://{key}",
        "http://127.0.0.1:1/x.mp4",
        "https://example.org/x.mp4",
        "data:text/plain;base64,aGk=",
        7,
        ["x"],
        {"path": "x"},
    ]


@pytest.mark.slow
def test_every_file_input_of_every_endpoint_refuses_what_was_not_uploaded(server, place, upload):
    config = server.get("/config").json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    tried, jobs = 0, server.gate.context.jobs
    before = len(list(jobs.folder_of_all.iterdir()))
    for dependency in config["dependencies"]:
        for place_in_data, component in enumerate(dependency["inputs"]):
            if kinds[component] not in FILE_KINDS:
                continue
            for path in outside(place):
                for file in (
                    {"path": path, "meta": {"_type": "gradio.FileData"}, "url": "http://localhost/x"},
                    {"path": path},
                    [{"path": path, "orig_name": "x.mp4"}],
                    {"video": {"path": path}, "subtitles": None},
                ):
                    data = [None] * len(dependency["inputs"])
                    data[place_in_data] = file
                    body = {"data": data, "fn_index": dependency["id"], "session_hash": "abcdefghij"}
                    answer = server.post("/gradio_api/queue/join", json=body)
                    assert answer.status_code == 403 and "upload it again" in answer.text, (dependency["id"], path)
                    assert "key.pem" not in answer.text and str(place) not in answer.text
                    tried += 1
    assert tried > 500  # the walk really met the page's fields and the API's
    for name in ("sync", "segments", "faces", "verify"):
        for path in outside(place):
            answer = server.post(
                f"/gradio_api/call/{name}", json={"data": [{"path": path}, {"path": path}, True, None]}
            )
            assert answer.status_code == 403
    event = {"data": [], "fn_index": 1, "session_hash": "abcdefghij", "event_data": {"file": {"path": "/etc/hostname"}}}
    assert server.post("/gradio_api/queue/join", json=event).status_code == 403
    assert len(list(jobs.folder_of_all.iterdir())) == before


@pytest.mark.slow
def test_what_was_uploaded_passes(server, place, upload):
    assert upload.startswith("/files/") and str(place) not in upload
    body = {"data": [{"path": upload, "url": "http://localhost/x"}]}
    assert server.post("/gradio_api/call/verify", json=body).status_code == 200
    assert server.get(f"/gradio_api/file={upload}").content == b"0" * 100


def test_the_job_queue_itself_takes_no_path_from_elsewhere(server, place, upload):
    """The gate is not relied on: what a handler is given is checked again."""
    from lipsync.errors import InputError

    jobs = server.gate.context.jobs
    job = jobs.create()
    for path in outside(place):
        with pytest.raises(InputError, match="upload it again"):
            tasks.store_upload(jobs, job, "source", path)
    assert [p.name for p in jobs.folder(job.id).iterdir()] == ["job.json"]
    jobs.delete(job.id)


def test_served_files_lie_in_the_upload_folder(server, place, upload):
    for path in outside(place):
        answer = server.get(f"/gradio_api/file={path if isinstance(path, str) else 'x'}".replace("\0", "%00"))
        assert answer.status_code == 404 and SECRET not in answer.text, path
    answer = server.get(f"/gradio_api/file={upload}")
    assert "sandbox" in answer.headers["content-security-policy"] and answer.headers["content-type"] == "video/mp4"
    page = server.post("/gradio_api/upload", files={"files": ("page.html", b"<script>")}).json()[0]
    kept = server.get(f"/gradio_api/file={page}").headers
    assert kept["content-type"] == "application/octet-stream" and "attachment" in kept["content-disposition"]


def test_gradio_without_its_own_check_is_not_served(server):
    """A new gradio that changes its rule must not start."""
    page = type("Page", (), {"has_launched": False, "allowed_paths": [], "blocked_paths": []})()
    with pytest.raises(RuntimeError, match="cannot be served"):
        check_gradio(page)
    page.has_launched = True
    check_gradio(page)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:1/"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("POST", "/gradio_api/stream/x"),
        ("GET", "/gradio_api/dev/reload"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("POST", "/gradio_api/run/sync"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/vibe-edit/"),
        ("GET", "/gradio_api/vibe-code/"),
        ("GET", "/gradio_api/runs"),
        ("POST", "/gradio_api/call/v2/sync"),
        ("POST", "/gradio_api/call/remove"),
        ("POST", "/login"),
        ("GET", "/gradio_api/custom_component/a/client/b/c"),
        ("GET", "/gradio_api/queue/status"),
        ("GET", "/pwa_icon"),
        ("PUT", "/"),
        ("DELETE", "/"),
        ("OPTIONS", "/"),
        ("GET", "/assets/../../app.py"),
        ("GET", "/static/..%2f..%2fapp.py"),
        ("GET", "/gradio_api/stream/a/b/c/playlist-file"),
    ],
)
def test_there_are_no_other_routes(server, method, path):
    answer = server.request(method, path)
    assert answer.status_code == 404 and answer.text == "There is nothing here."


def test_every_answer_carries_the_headers(server, upload):
    for path in ("/", "/healthz", "/nothing", f"/gradio_api/file={upload}", "/jobs/x", "/config", "/theme.css"):
        headers = server.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer", path
        assert headers["x-frame-options"] == "DENY" and "default-src" in headers["content-security-policy"], path


def test_only_known_hosts_and_our_own_origin(server):
    assert server.get("/", headers={"host": "127.0.0.1:7860"}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.nip.example:80", "[::2]:7860"):
        answer = server.get("/", headers={"host": host})
        assert answer.status_code == 400 and "LIPSYNC_HOSTS" in answer.text, host
    body = {"data": [], "fn_index": 0, "session_hash": "abcdefghij"}
    for origin in ("https://evil.example", "http://localhost:1", "null"):
        refused = server.post("/gradio_api/queue/join", json=body, headers={"origin": origin})
        assert refused.status_code == 403 and "another site" in refused.text, origin
        assert server.post("/gradio_api/upload", files={"files": b"x"}, headers={"origin": origin}).status_code == 403
    assert server.post("/gradio_api/reset", json={"event_id": "x"}, headers={"origin": "http://localhost"}).is_success
    assert gate._name("[::1]:7860") == "[::1]" and gate._name("Localhost") == "localhost"


def test_bodies_are_bounded_and_json(server):
    long = b'{"data": ["' + b"a" * gate.BODY_BYTES + b'"]}'
    assert server.post("/gradio_api/queue/join", content=long).status_code == 413
    assert server.post("/gradio_api/queue/join", content=iter([long[:600_000], long[600_000:]])).status_code == 413
    for wrong in (b"no json", b"\xff\xfe", b"[" * 100_000, b'{"data": ' + b"[" * 50 + b"]" * 50 + b"}"):
        assert server.post("/gradio_api/queue/join", content=wrong).status_code == 400


def left(place):
    return sorted(p.name for p in [*(place / "incoming").rglob("*"), *(place / "gradio").glob("tmp*")])


def test_an_upload_that_does_not_fit_leaves_nothing(server, place, monkeypatch):
    before = sorted((place / "gradio").rglob("*"))
    big = {"files": ("big.mp4", b"0" * 1_050_000)}
    refused = server.post("/gradio_api/upload", files=big)
    assert refused.status_code == 413 and "1 MB" in refused.text
    two = [("files", (f"{n}.mp4", bytes([n]) * 700_000)) for n in range(2)]
    assert server.post("/gradio_api/upload", files=two).status_code == 413  # each fits, both do not
    many = [("files", (f"{n}.mp4", b"%d" % n)) for n in range(21)]
    assert server.post("/gradio_api/upload", files=many).status_code == 413
    assert server.post("/gradio_api/upload", content=b"no form").status_code == 400
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300_000_000))
    full = server.post("/gradio_api/upload", files={"files": ("a.mp4", b"0" * 10)})
    assert full.status_code == 507 and "no room" in full.text
    assert not left(place) and sorted((place / "gradio").rglob("*")) == before


def test_an_upload_that_is_broken_off_leaves_nothing(server, place):
    """The visitor goes in the middle of a file, or sends nothing more."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + b"0" * 5000
    scope = {
        "type": "http", "method": "POST", "path": "/gradio_api/upload", "query_string": b"", "root_path": "",
        "raw_path": b"/gradio_api/upload", "scheme": "http", "http_version": "1.1", "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=x")],
    }  # fmt: skip

    def visit(messages):
        sent = []

        async def receive():
            if messages:
                return messages.pop(0)
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        asyncio.run(server.gate(dict(scope, state={}), receive, send))
        return sent

    start = {"type": "http.request", "body": head, "more_body": True}
    visit([start, {"type": "http.disconnect"}])
    assert not left(place)
    patch = pytest.MonkeyPatch()
    patch.setattr(gate, "BODY_S", 0.1)
    visit([start])
    patch.undo()
    assert not left(place)


def test_an_upload_is_followed_by_its_progress(server):
    name = {"upload_id": "abc123"}
    assert server.post("/gradio_api/upload", params=name, files={"files": ("a.mp4", b"1" * 5000)}).status_code == 200
    said = [
        json.loads(line[6:])
        for line in server.get("/gradio_api/upload_progress", params=name).text.split("\n\n")
        if line
    ]
    assert said[-1] == {"msg": "done"}
    unknown = server.get("/gradio_api/upload_progress", params={"upload_id": ""})
    assert unknown.text == 'data: {"msg": "done"}\n\n'


def test_the_quota_counts_a_file_with_two_names_once(tmp_path):
    from lipsync.errors import InputError

    (tmp_path / "a").write_bytes(b"0" * 1000)
    uploads.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert uploads.folder_bytes(tmp_path) == 1000
    uploads.check_room(tmp_path, 500, most=2000, keep_free=0)
    with pytest.raises(InputError, match="no room"):
        uploads.check_room(tmp_path, 1500, most=2000, keep_free=0)
