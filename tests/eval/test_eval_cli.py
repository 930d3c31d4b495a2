"""`python -m eval` as a stranger uses it: what is printed, exit codes, what is on the disk after a break."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from eval import encoders, score
from eval import syncnet as evaluator
from eval.__main__ import main
from eval.metrics import frechet
from eval.offset import fix
from eval.protocols import PROTOCOLS
from eval.results import VERSION, read_csv
from lipsync.errors import Cancelled
from lipsync.media.reader import SoundReader
from lipsync.progress import Monitor
from tests.conftest import ROOT
from tests.helpers.made import FlashEvaluator, flash_clip, flashes, lab_evaluator, talking_clip
from tests.helpers.media_maker import click_times

LRS = ["--protocol", "lrs", "--shifts", "10"]


@pytest.fixture
def flashing(monkeypatch):
    """The evaluator of every command is one for click-and-flash clips."""
    monkeypatch.setattr(evaluator, "Evaluator", FlashEvaluator)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """A folder of three click-and-flash clips, the sound of each later by two frames than that of the one before."""
    folder = tmp_path_factory.mktemp("three")
    for k in range(3):
        flash_clip(folder / f"clip{k}.mp4", 60, late=2 * k, seed=k)
    return folder


def said(capsys) -> str:
    return capsys.readouterr().out


@pytest.mark.slow
def test_json_is_a_list_in_argument_order_and_nothing_else(flashing, three, capsys):
    files = [three / "clip2.mp4", three / "gone.mp4", three / "clip0.mp4"]
    assert main(["score", *map(str, files), *LRS, "--json"]) == 1  # one of them is not there
    rows = json.loads(said(capsys))
    assert [row["file"] for row in rows] == [str(f) for f in files]
    assert [row["offset"] for row in rows] == [-4, None, 0] and "does not exist" in rows[1]["error"]
    wanted = {"lse_d", "lse_c", "evaluator", "evaluator_sha256", "protocol", "protocol_hash", "error", "version"}
    assert wanted <= set(rows[0]) and rows[0]["protocol"] == "lrs" and rows[0]["shifts"] == 10


@pytest.mark.slow
def test_a_csv_is_gone_on_with(flashing, three, tmp_path, capsys, monkeypatch):
    table = tmp_path / "rows.csv"
    command = ["score", str(three), *LRS, "--csv", str(table)]
    assert main(["score", str(three / "clip1.mp4"), *LRS, "--csv", str(table)]) == 0
    assert main(command) == 0
    first, shown = table.read_bytes(), said(capsys)
    assert [Path(r.file).name for r in read_csv(table)] == ["clip1.mp4", "clip0.mp4", "clip2.mp4"]
    assert "3 of 3 clips scored" in shown and "LSE-D (syncnet-flash)" in shown and "fetch syncnet-v2" in shown

    def never(*_: object) -> None:
        raise AssertionError("a clip was scored again")

    monkeypatch.setattr(score, "score_file", never)
    assert main(command) == 0
    assert table.read_bytes() == first and said(capsys).endswith(shown.split("clip2.mp4")[-1])
    with pytest.raises(AssertionError, match="scored again"):  # other settings are other numbers
        main([*command, "--shifts", "9"])


@pytest.mark.slow
def test_what_changed_is_scored_again(flashing, three, tmp_path):
    clip, table = tmp_path / "clip.mp4", tmp_path / "rows.csv"
    command = ["score", str(clip), *LRS, "--csv", str(table)]
    for source in ("clip0.mp4", "clip1.mp4", "clip1.mp4"):
        shutil.copyfile(three / source, clip)
        assert main(command) == 0
    assert [r.offset for r in read_csv(table)] == [0, -2]
    old = table.read_text().replace(
        f",{VERSION},syncnet-flash", ",0,syncnet-flash"
    )  # an earlier version of the measures
    table.write_text(old, newline="")
    assert main(command) == 0
    assert [r.version for r in read_csv(table)] == ["0", "0", VERSION]


@pytest.mark.slow
def test_a_changed_reference_is_compared_again(flashing, three, tmp_path, monkeypatch):
    clip, reference, table = three / "clip0.mp4", tmp_path / "clip0.mp4", tmp_path / "rows.csv"
    asked: list[Path] = []
    monkeypatch.setattr(score, "compared", lambda _, reference, families, *__: asked.append(reference) or ({}, []))
    for source in ("clip1.mp4", "clip1.mp4", "clip2.mp4"):
        shutil.copyfile(three / source, reference)
        command = ["score", str(clip), "--reference", str(reference), "--measures", "image", *LRS, "--csv", str(table)]
        assert main(command) == 0
    assert len(asked) == 2 and len({r.reference_sha256 for r in read_csv(table)}) == 2


@pytest.mark.slow
def test_other_measures_beside_sync(flashing, clip, tmp_path, capsys):
    """The clip beside itself: perfect pictures, no distance of lips, the same person."""
    table = tmp_path / "rows.csv"
    assert main(["score", str(clip), "--reference", str(clip), *LRS, "--csv", str(table)]) == 0
    (row,) = read_csv(table)
    assert row.values["psnr_mouth"] == 100 and row.values["ssim_rest"] == 1 and row.values["lmd"] == 0
    assert row.values["identity_cosine"] == row.values["identity_lower_cosine"] == pytest.approx(1)
    capsys.readouterr()
    assert main(["score", str(clip), "--measures", "motion,image", *LRS, "--json"]) == 0
    (row,) = json.loads(said(capsys))
    assert row["values"]["box_jitter"] is not None and row["values"]["psnr_mouth"] is None
    assert any("--reference" in r for r in row["remarks"])


def test_comparing_can_be_stopped(clip):
    steps: list[int] = []

    def cancelled() -> bool:
        steps.append(1)
        return len(steps) > 2

    with pytest.raises(Cancelled):
        score.compared(clip, None, ["motion"], Monitor(cancelled=cancelled))


@pytest.mark.slow
def test_a_list_names_people_and_systems(flashing, three, tmp_path, capsys):
    path = tmp_path / "list.csv"
    path.write_text(f"file,identity,system,pair\n{three / 'clip0.mp4'},anna,ours,7\n")
    assert main(["score", str(path), *LRS, "--json"]) == 0
    (row,) = json.loads(said(capsys))
    assert (row["identity"], row["system"], row["pair"]) == ("anna", "ours", "7")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["score", "gone.csv"], "gone.csv cannot be read"),
        (["score", "a.mp4", "--measures", "beauty"], "no measure 'beauty': choose from motion, image, identity"),
        (["score", "a.mp4", "--shifts", "0"], "between 1 and 100, not 0"),
        (["score", "a.mp4", "--csv", "none/rows.csv"], "No such file or directory: none/rows.csv"),
        (["score", "a.mp4", "--reference", "gone.mp4"], "no reference gone.mp4"),
        (["retrieval", "gone.mp4", "--shifts", "5"], "gone.mp4 does not exist"),
        (["leakage", "gone.mp4"], "gone.mp4 does not exist"),
        (["validity", "gone.mp4", "--out", "."], "gone.mp4 does not exist"),
    ],
)
def test_an_error_is_one_sentence(flashing, args, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    both = capsys.readouterr()
    assert sentence in both.out + both.err and both.err.strip().splitlines()[-1].startswith("eval: ")
    assert "Traceback" not in both.out + both.err


def test_what_could_not_be_scored_is_1(flashing, capsys):
    assert main(["score", "gone.mp4", "there.mp4"]) == 1
    assert "gone.mp4 does not exist" in said(capsys)
    assert main(["offset", "gone.mp4"]) == 1
    assert "No offset: gone.mp4 does not exist" in said(capsys)


@pytest.mark.parametrize(
    "args",
    [[], ["score"], ["score", "a", "--json", "--csv", "b"], ["score", "a", "--protocol", "long"], ["measure", "a"]],
)
def test_wrong_usage_is_2(args, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("late", [5, -5])
def test_offset_repairs(flashing, tmp_path, capsys, late):
    right, wrong, out = (tmp_path / f"{n}.mp4" for n in ("right", "wrong", "out"))
    fix(flash_clip(right), wrong, late)
    assert main(["offset", str(wrong), *LRS, "--fix", str(out)]) == 0
    text = said(capsys)
    assert f"The sound is {'late' if late > 0 else 'early'} by 5 frames of 40 ms (200 ms" in text
    assert f"{out}: Sound and mouth are together" in text
    with SoundReader(out, 48_000, 1) as reader:
        found = click_times(np.concatenate(list(reader))[:, 0], 48_000)
    np.testing.assert_allclose(found, [(k + 0.5) / 25 for k in np.flatnonzero(flashes(100))], atol=1e-3)
    assert main(["offset", str(right), *LRS, "--fix", str(tmp_path / "none.mp4")]) == 0
    assert "There is nothing to repair" in said(capsys) and not (tmp_path / "none.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "late"), [(60, 11), (26, 2)])
def test_offset_tries_as_many_shifts_as_the_clip_allows(flashing, tmp_path, capsys, monkeypatch, frames, late):
    """`short` tries seven, under which a sound eleven frames late cannot be found."""
    monkeypatch.setitem(PROTOCOLS, "short", replace(PROTOCOLS["short"], faces="whole"))
    assert main(["offset", str(flash_clip(tmp_path / "late.mp4", frames, late=late))]) == 0
    assert f"late by {late} frames" in said(capsys)


@pytest.mark.slow
def test_an_offset_that_cannot_be_told_is_not_repaired(flashing, tmp_path, capsys):
    clip = talking_clip(tmp_path / "talks.mp4", 60)  # it never flashes
    assert main(["offset", str(clip), *LRS, "--fix", str(tmp_path / "out.mp4")]) == 1
    assert "cannot tell the offset" in said(capsys) and not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_retrieval_finds_each_clip_its_sound(flashing, tmp_path, capsys):
    for k in range(3):
        flash_clip(tmp_path / f"{k}.mp4", 60, seed=k)
    (tmp_path / "broken.mp4").write_text("no video")
    assert main(["retrieval", str(tmp_path), *LRS, "--json"]) == 1  # one was left out
    both = capsys.readouterr()
    found = json.loads(both.out)
    assert found["clips"] == 3 and found["evaluator"] == "syncnet-flash" and "left out: " in both.err
    assert (
        found["protocol"] == "lrs"
        and found["recall_at_1"] == 1
        and found["median_rank"] == 1
        and found["chance_at_1"] == pytest.approx(1 / 3)
    )


def test_paired_sets_are_laid_side_by_side_by_name(tmp_path, monkeypatch):
    """And the fit takes the same rows of both."""
    for folder in ("real", "made"):
        (tmp_path / folder).mkdir()
        for name in ("a.mp4", "b.mp4"):
            (tmp_path / folder / name).touch()
    asked: list[list[Path]] = []
    rows = np.random.default_rng(0).standard_normal((50, 4))
    monkeypatch.setattr(encoders, "open_encoder", lambda _: SimpleNamespace(name="lab", sha256="a" * 64, title="F"))
    monkeypatch.setattr(
        encoders, "set_statistics", lambda paths, *_: asked.append(list(paths)) or frechet.Statistics.of(rows)
    )
    pairing: list[bool] = []
    evaluate = frechet.evaluate
    monkeypatch.setattr(frechet, "evaluate", lambda a, b, paired: pairing.append(paired) or evaluate(a, b, paired))
    made = [tmp_path / "made" / "b.mp4", tmp_path / "made" / "a.mp4"]
    args = ["frechet", str(tmp_path / "real"), "--generated", *map(str, made)]
    assert main([*args, "--paired"]) == 0 and main(args) == 0
    assert asked[0] == [tmp_path / "real" / "b.mp4", tmp_path / "real" / "a.mp4"] and asked[1] == made
    assert pairing == [True, False]


@pytest.mark.slow
def test_frechet_of_folders_of_pictures(tmp_path, monkeypatch, capsys):
    """As tools leave them: endings in capitals, sub-folders, grey, transparent and printer's colours, other files."""
    rng = np.random.default_rng(0)
    for folder in ("real", "made"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        names = ("a.JPG", "b.jpeg", "c.png", "d.webp", "deep/e.PNG", "deep/f.jpg", "g.bmp")
        for name, mode in zip(names, ("RGB", "L", "RGBA", "RGB", "1", "CMYK", "RGB"), strict=True):
            size = tuple(int(v) for v in rng.integers(20, 60, 2))
            picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
            picture.convert(mode).save(tmp_path / folder / name)
        for name in (".DS_Store", "Thumbs.db", "notes.txt", "deep/a.json"):
            (tmp_path / folder / name).write_text("nothing to see")
    seen = SimpleNamespace(name="lab", sha256="a" * 64, title="F", features=lambda p: p.mean((1, 2)).astype(np.float32))
    monkeypatch.setattr(encoders, "open_encoder", lambda _: seen)
    args = ["frechet", str(tmp_path / "real"), "--generated", str(tmp_path / "made")]
    assert main(args) == 0 and "with 7 real and 7 generated pictures" in said(capsys)
    assert main([*args, "--paired"]) == 0
    whole = (tmp_path / "made" / "a.JPG").read_bytes()
    (tmp_path / "made" / "a.JPG").write_bytes(whole[: len(whole) // 2])
    assert main(args) == 1 and "a.JPG is cut short" in said(capsys)


def test_a_table_over_what_is_scored_is_refused(flashing, three, tmp_path, capsys):
    clip = shutil.copyfile(three / "clip0.mp4", tmp_path / "a.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "link.csv").symlink_to(clip)
    before = clip.read_bytes()
    for table in (clip, tmp_path / "link.csv", tmp_path / "empty.mp4"):
        files = [str(clip), "--reference", str(tmp_path / "empty.mp4")]
        assert main(["score", *files, *LRS, "--csv", str(table)]) == 1
        assert "would overwrite" in capsys.readouterr().err
    assert clip.read_bytes() == before and not (tmp_path / "empty.mp4").stat().st_size


def test_what_hinders_a_repair_is_said_before_the_scoring(flashing, three, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(score, "score_file", lambda *_: pytest.fail("it was scored first"))
    clip = three / "clip1.mp4"
    (tmp_path / "hard.mp4").hardlink_to(clip)
    for out in (tmp_path / "none" / "x.mp4", tmp_path / "x.avi", clip, tmp_path / "hard.mp4"):
        assert main(["offset", str(clip), *LRS, "--fix", str(out)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_frechet_of_a_set_with_itself(clip, tmp_path, capsys):
    args = [
        "frechet",
        str(clip),
        "--generated",
        str(clip),
        "--encoder",
        "lab",
        "--every",
        "5",
        "--cache",
        str(tmp_path),
    ]
    assert main(args) == 0
    text = said(capsys)
    assert "10 real and 10 generated pictures" in text and "This is no FID" in text
    assert float(text.split("): ")[1].split(" ")[0]) == pytest.approx(0, abs=1e-3)
    assert main([*args, "--paired", "--json"]) == 0
    found = json.loads(said(capsys))
    assert found["paired"] and found["n_a"] == 10 and found["encoder"] == "lab" and found["notes"] == []


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> Path:
    """Three clips of a talking face, 4 s each, so that a run can be stopped in the midst of one; and no clip."""
    folder = tmp_path_factory.mktemp("talking")
    first = talking_clip(folder / "0.mp4", 100)
    talking_clip(folder / "1.mp4", 100, words="And now for something else: a window wide open.")
    (folder / "2.mp4").write_text("no video")
    shutil.copyfile(first, folder / "3.mp4")
    return folder


def started(*args) -> subprocess.Popen:
    command = [sys.executable, "-m", "eval", "score", "--evaluator", "syncnet-lab", *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], object], process: subprocess.Popen) -> None:
    for _ in range(1200):
        if what():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    raise AssertionError("nothing happened for a minute")


@pytest.mark.slow
def test_a_broken_run_leaves_a_whole_csv_and_is_gone_on_with(talking, tmp_path, monkeypatch):
    """Stopped by Ctrl-C after its first clip, killed within the second, then left alone: the rows of one calm run."""
    table, calm = tmp_path / "rows.csv", tmp_path / "calm.csv"
    process = started(talking, "--csv", table)
    wait_for(lambda: table.exists() and b"0.mp4," in table.read_bytes(), process)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130 and text.strip().endswith("Stopped; rows that were done are kept.")
    assert "Traceback" not in text
    assert 1 <= len(read_csv(table)) < 4 and table.read_bytes().endswith(b"\r\n")  # whole: every row can be read

    process = started(talking, "--csv", table)
    wait_for(psutil.Process(process.pid).children, process)  # the decoder of the first clip that is not in the file
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=60)
    with table.open("ab") as file:  # and the worst moment there is: in the midst of a line
        file.write(b'"half a ro')

    monkeypatch.setattr(evaluator, "Evaluator", lambda *_: lab_evaluator())
    assert main(["score", str(talking), "--csv", str(table)]) == 1  # the file that is no video
    assert main(["score", str(talking), "--csv", str(calm)]) == 1
    assert len(read_csv(calm)) == 4 and table.read_bytes() == calm.read_bytes()


@pytest.mark.slow
def test_standard_output_of_json_is_clean(talking):
    """The decoders' and networks' own words go elsewhere."""
    process = started(talking / "2.mp4", talking / "0.mp4", "--json")
    out, _ = process.communicate(timeout=120)
    rows = json.loads(out)
    assert process.returncode == 1 and [Path(r["file"]).name for r in rows] == ["2.mp4", "0.mp4"]
    assert rows[0]["error"] and rows[1]["lse_d"] > 0 and rows[1]["error"] is None
