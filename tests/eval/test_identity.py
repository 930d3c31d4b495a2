"""Cosines between embeddings; the empty column while no face network is there."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from eval.crops import aligned_face
from eval.metrics import identity
from eval.metrics.base import MeasureError
from eval.metrics.identity import ARCHITECTURE, MEASURES, REASON, cosines, embedder, evaluate, lower_half
from lipsync.checkpoints import registry as checkpoints
from lipsync.faces.detectors import LANDMARKS
from tests.conftest import portrait_frame
from tests.helpers.faces import ASTRONAUT

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((7, 32)).astype(np.float32), RNG.standard_normal((7, 32)).astype(np.float32)


def test_cosines_are_scipys():
    expected = [1 - cosine(x, y) for x, y in zip(A, B, strict=True)]
    np.testing.assert_allclose(cosines(A, B), expected, atol=1e-6)
    assert evaluate(A, B)["identity_cosine"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_no_network_no_number():
    assert evaluate(None, None) == {m.name: None for m in MEASURES}
    assert REASON.endswith(".")


def test_the_lower_half_is_a_figure_of_its_own():
    both = evaluate(A, A, A, B)
    assert both["identity_cosine"] == pytest.approx(1)
    assert both["identity_lower_cosine"] == pytest.approx(cosines(A, B).mean())
    with pytest.raises(MeasureError, match="both videos"):
        evaluate(A, A, A, None)


@pytest.mark.slow
def test_another_mouth_under_the_same_eyes_shows_in_the_lower_half():
    """The astronaut, drifting a little, and the same with the mouth of a painted stranger."""
    frames = np.stack([portrait_frame(4 * i, 10) for i in range(3)])
    points = [LANDMARKS["mediapipe"]().find(f, ASTRONAUT + [4 * i, 0, 4 * i, 0]) for i, f in enumerate(frames)]
    own = np.stack([aligned_face(f, p) for f, p in zip(frames, points, strict=True)])
    assert own.shape == (3, 150, 150, 3) and np.abs(np.diff(own.astype(int), axis=0)).mean() < 6, "faces lie still"
    other = own.copy()
    other[:, 85:] = other[:, 85:, :, ::-1] // 2
    look = embedder()
    halves = lower_half(own), lower_half(other)
    found = evaluate(look(own), look(other), look(halves[0]), look(halves[1]))
    assert found["identity_lower_cosine"] < found["identity_cosine"] - 0.01 < 1
    same = evaluate(look(own[:2]), look(own[1:]))["identity_cosine"]
    assert same > 0.98 > found["identity_cosine"]


def test_frames_without_a_face_are_left_out():
    holes = A.copy()
    holes[2], holes[4] = np.nan, 0
    found = cosines(holes, B)
    assert np.flatnonzero(np.isnan(found)).tolist() == [2, 4]
    told = [0, 1, 3, 5, 6]
    assert evaluate(holes, B)["identity_cosine"] == pytest.approx(evaluate(A[told], B[told])["identity_cosine"])
    assert evaluate(np.full_like(A, np.nan), B)["identity_cosine"] is None


@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_the_same_face_is_perfect_whatever_the_length(seed, scale):
    some = np.random.default_rng(seed).standard_normal((4, 8))
    assert evaluate(some, scale * some)["identity_cosine"] == pytest.approx(1)
    assert evaluate(some, -scale * some)["identity_cosine"] == pytest.approx(-1)
    other = np.random.default_rng(seed + 1).standard_normal((4, 8))
    assert evaluate(some, other) == evaluate(other, some) and -1 <= evaluate(some, other)["identity_cosine"] <= 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (A, None, "both videos"),
        (None, A, "both videos"),
        (A, B[:3], "differ in shape"),
        (A[0], B[0], r"\(T, D\)"),
        (A[:0], B[:0], r"\(T, D\)"),
    ],
)
def test_what_cannot_be_measured_is_said(before, after, said):
    with pytest.raises(MeasureError, match=said) as caught:
        evaluate(before, after)
    assert str(caught.value).endswith(".")


def test_the_embedder_is_the_registered_network(monkeypatch):
    card = next(iter(checkpoints.cards().values()))
    known = {"other": card}
    monkeypatch.setattr(identity.registry, "cards", lambda: known)
    assert embedder() is None
    known["face"] = replace(card, architecture=ARCHITECTURE, path=None)  # could be fetched, but is not here
    assert embedder() is None
    known["face"] = replace(card, architecture=ARCHITECTURE, path=Path("face.safetensors"))
    monkeypatch.setattr(identity.registry, "load", lambda name: SimpleNamespace(embed=lambda faces: faces.mean((1, 2))))
    look = embedder()
    assert look(np.ones((2, 8, 8, 3), np.uint8)).shape == (2, 3)
