"""The sound moved into place, to the sample; the picture's packets as they were; sentences for what cannot be."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from eval import offset as repair
from eval.metrics.base import MeasureError
from eval.offset import fix, words
from eval.results import ScoreRow
from eval.score import score_file
from lipsync.errors import InputError
from lipsync.label import manifest as label
from lipsync.media.reader import SoundReader, probe
from tests.helpers.made import FLASHES, FlashEvaluator, flash_clip, flashes
from tests.helpers.media_maker import click_times, clicks, count_up, write_media

ROW = ScoreRow("a.mp4", evaluator="syncnet-lab", offset=0, certainty=0.9, lse_d=7.0, lse_c=3.0)


def heard(path) -> np.ndarray:
    with SoundReader(path, 48_000, 1) as reader:
        return np.concatenate(list(reader))[:, 0]


def packets(path) -> list[tuple[bytes, Fraction, bool]]:
    """Of each picture packet: its data, when it is shown, whether it is a key frame."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return [
            (bytes(p), (p.pts - (stream.start_time or 0)) * stream.time_base, p.is_keyframe)
            for p in file.demux(stream)
            if p.dts is not None
        ]


def pictures(path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray() for frame in file.decode(file.streams.video[0])]


WANTED = [(k + 0.5) / 25 for k in np.flatnonzero(flashes(100))]  # clicks, in the middle of each flash


@pytest.mark.slow
def test_the_sound_is_moved_and_the_picture_kept(tmp_path):
    right, wrong = flash_clip(tmp_path / "right.mp4"), tmp_path / "wrong.mp4"
    assert fix(right, wrong, 5) == []
    np.testing.assert_allclose(click_times(heard(wrong), 48_000), np.array(WANTED) + 0.2, atol=1e-3)
    assert packets(wrong) == packets(right)


@pytest.mark.slow
@pytest.mark.parametrize("late", [5, -5])
def test_a_moved_sound_is_found_and_moved_back(tmp_path, late):
    right, wrong, out = (tmp_path / f"{n}.mp4" for n in ("right", "wrong", "out"))
    flash_clip(right)
    fix(right, wrong, late)
    found = score_file(wrong, FlashEvaluator(), FLASHES)
    assert found.offset == -late and ("late by 5 frames" if late > 0 else "early by 5 frames") in words(found)
    fix(wrong, out, found.offset)
    np.testing.assert_allclose(click_times(heard(out), 48_000), WANTED, atol=1e-3)  # half a frame would be 20e-3
    assert packets(out) == packets(right)
    assert all((a == b).all() for a, b in zip(pictures(out), pictures(right), strict=True))
    info = probe(out)
    assert (info.frames, info.fps, info.codec, info.start_s) == (100, 25, "h264", 0)
    assert score_file(out, FlashEvaluator(), FLASHES).offset == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mkv", "mov", "b-frames", "rotated", "late start", "long sound"])
def test_other_files_are_copied_as_well(tmp_path, kind):
    moments = [1.0, 2.0, 2.5]
    source, out = tmp_path / "source.mp4", tmp_path / f"out.{kind if kind in ('mkv', 'mov') else 'mp4'}"
    sound = clicks(6.0 if kind == "long sound" else 3.0, moments)
    write_media(
        source,
        count_up(75),
        sound=sound,
        options={"bf": "3" if kind == "b-frames" else "0"},
        rotation=90 if kind == "rotated" else 0,
        stamps_ms=[500 + 40 * k for k in range(75)] if kind == "late start" else None,
        sound_start_s=0.5 if kind == "late start" else 0.0,
    )
    fix(source, out, 3)
    before, after = probe(source), probe(out)
    assert (after.width, after.height, after.frames, after.rotation) == (
        before.width,
        before.height,
        75,
        before.rotation,
    )
    np.testing.assert_allclose(click_times(heard(out), 48_000), np.array(moments) + 0.12, atol=1e-3)
    assert [p[0] for p in packets(out)] == [p[0] for p in packets(source)]
    assert all((a == b).all() for a, b in zip(pictures(out), pictures(source), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_matroska_with_pictures_out_of_order(tmp_path, ending):
    """FFmpeg tells no time of decoding of its first packets, the key frame among them."""
    order = {"bf": "3", "x264-params": "b-adapt=0"}
    source = write_media(tmp_path / "source.mkv", count_up(75), sound=clicks(3.0, [1.0]), options=order)
    with av.open(str(source)) as file:
        assert any(p.size and p.dts is None for p in file.demux(file.streams.video[0]))
    out = tmp_path / f"out.{ending}"
    fix(source, out, 3)
    assert (probe(out).frames, probe(out).start_s) == (75, 0)
    assert all((a == b).all() for a, b in zip(pictures(out), pictures(source), strict=True))
    np.testing.assert_allclose(click_times(heard(out), 48_000), [1.12], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "source, tag, target, kept",
    [
        ("mov", "hvc1", "mov", "hvc1"),
        ("mp4", "hvc1", "mp4", "hvc1"),
        ("mov", "hvc1", "mp4", "hvc1"),
        ("mp4", "hev1", "mp4", "hev1"),
        ("mkv", None, "mp4", "hvc1"),
        ("mkv", None, "mov", "hvc1"),
    ],
)
def test_hevc_keeps_the_name_that_apple_plays(tmp_path, source, tag, target, kept):
    path, out = tmp_path / f"s.{source}", tmp_path / f"o.{target}"
    context = {"codec_tag": tag} if tag else None
    write_media(path, count_up(25), codec="libx265", sound=clicks(1, [0.5]), context=context)
    fix(path, out, 2)
    with av.open(str(out)) as made:
        assert made.streams.video[0].codec_context.codec_tag == kept
    assert all((a == b).all() for a, b in zip(pictures(out), pictures(path), strict=True))


@pytest.mark.slow
def test_a_linked_target_is_written_through(tmp_path):
    source = write_media(tmp_path / "source.mp4", count_up(5), sound=clicks(0.2, [0.1]))
    (tmp_path / "real").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real" / "t.mp4")
    fix(source, tmp_path / "link.mp4", 1)
    assert (tmp_path / "link.mp4").is_symlink() and probe(tmp_path / "real" / "t.mp4").frames == 5


@pytest.mark.slow
def test_a_sound_can_be_cut_away_whole(tmp_path):
    """Moved earlier than it is long: the file has its picture, and sound that is empty or not there."""
    source = write_media(tmp_path / "source.mp4", count_up(25), sound=clicks(1.0, [0.5]))
    fix(source, tmp_path / "out.mp4", -30)
    assert probe(tmp_path / "out.mp4").frames == 25


@pytest.mark.slow
def test_pictures_without_times_are_copied_in_order_or_not_at_all(tmp_path):
    sound = clicks(1.0, [0.5])
    plain = write_media(tmp_path / "plain.avi", count_up(25), sound=sound, options={"bf": "0"}, sound_codec="mp2")
    fix(plain, tmp_path / "out.mp4", 2)
    assert all((a == b).all() for a, b in zip(pictures(tmp_path / "out.mp4"), pictures(plain), strict=True))
    order = {"bf": "3", "x264-params": "b-adapt=0"}  # B-frames, whatever the pictures are
    ahead = write_media(tmp_path / "ahead.avi", count_up(25), sound=sound, options=order, sound_codec="mp2")
    with pytest.raises(MeasureError, match="pictures carry no time"):
        fix(ahead, tmp_path / "out2.mp4", 2)


@pytest.mark.slow
def test_a_file_that_was_there_is_kept_when_the_repair_fails(tmp_path):
    odd = write_media(tmp_path / "odd.avi", count_up(5), codec="wmv2", sound=clicks(0.2, [0.1]))
    out = tmp_path / "out.mp4"
    out.write_text("years of work")
    with pytest.raises(MeasureError):
        fix(odd, out, 1)
    assert out.read_text() == "years of work"


@pytest.mark.slow
def test_what_is_not_copied_is_said(tmp_path):
    sound = np.repeat(clicks(1.0, [0.5])[:, None], 6, 1)
    source, two = write_media(tmp_path / "source.mp4", count_up(25), sound=sound), tmp_path / "two.mp4"
    with av.open(str(source)) as read, av.open(str(two), "w") as write:  # its sound twice
        streams = {
            s: [write.add_stream_from_template(s, opaque=True) for _ in range(1 + (s.type == "audio"))]
            for s in read.streams
        }
        for packet in read.demux():
            for stream in streams[packet.stream] if packet.dts is not None else ():
                twin = av.Packet(bytes(packet))
                twin.pts, twin.dts, twin.time_base = packet.pts, packet.dts, packet.time_base
                twin.is_keyframe, twin.stream = packet.is_keyframe, stream
                write.mux(twin)
    said = fix(two, tmp_path / "out.mp4", 1)
    assert said == [
        "The sound had 6 channels and was mixed to two.",
        "Only the picture and its sound were copied; left out: audio.",
    ]


@pytest.mark.slow
def test_what_cannot_be_repaired_leaves_nothing(tmp_path, monkeypatch):
    source = write_media(tmp_path / "source.mp4", count_up(5), sound=clicks(0.2, [0.1]))
    mute = write_media(tmp_path / "mute.mp4", count_up(5))
    for path, out, said in (
        (source, tmp_path / "out.avi", "is .mp4, .mov or .mkv, not .avi"),
        (source, tmp_path / "out", "without an ending"),
        (source, source, "give another name"),
        (source, tmp_path / "none" / "out.mp4", "There is no folder"),
        (mute, tmp_path / "out.mp4", "mute.mp4 has no sound"),
        (tmp_path / "gone.mp4", tmp_path / "out.mp4", "gone.mp4 does not exist"),
    ):
        with pytest.raises(InputError, match=said):
            fix(path, out, 1)
    odd = write_media(tmp_path / "odd.avi", count_up(5), codec="wmv2", sound=clicks(0.2, [0.1]))
    with pytest.raises(MeasureError, match="odd.avi could not be repaired"):
        fix(odd, tmp_path / "out.mp4", 1)  # mp4 cannot hold this picture
    monkeypatch.setattr(repair, "PATIENCE_S", 0.0)
    with pytest.raises(MeasureError, match="needs more time"):
        fix(source, tmp_path / "out.mp4", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mute.mp4", "odd.avi", "source.mp4"]


@pytest.mark.slow
def test_a_label_is_not_carried_over(tmp_path, monkeypatch):
    source = write_media(tmp_path / "source.mp4", count_up(5), sound=clicks(0.2, [0.1]))
    verified = replace(label.verify(source), status=label.Status.INTACT)
    monkeypatch.setattr(label, "verify", lambda _: verified)
    (said,) = fix(source, tmp_path / "out.mp4", 1)
    assert "Content Credentials" in said


def test_words_for_people():
    assert words(replace(ROW, error="There is no sound.")) == "No offset: There is no sound."
    assert "together (within a frame" in words(ROW)
    early = words(replace(ROW, offset=1, evaluator_sha256="a" * 64, protocol="short", shifts=7))
    assert early.startswith("The sound is early by 1 frame of 40 ms (40 ms; certainty 90%). [short ")
    assert "syncnet-lab aaaaaaaa" in early
    assert "late by 12 frames of 40 ms (480 ms" in words(replace(ROW, offset=-12))
    said = words(replace(ROW, offset=None, certainty=0.4))
    assert "syncnet-lab cannot tell" in said and "40% of resamples" in said
    assert "last one tried, 7 frames" in words(replace(ROW, offset=None, certainty=0.95, shifts=7))
