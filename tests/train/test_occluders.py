"""What is drawn before faces is where it is said to be."""

import numpy as np

from train.data.occluders import covered_face, occluder, recorded

FACE = np.random.default_rng(5).integers(60, 200, (96, 96, 3)).astype(np.uint8)
OTHER = np.random.default_rng(6).integers(0, 256, (160, 160, 3)).astype(np.uint8)


def test_beside_a_thing_there_is_nothing_but_its_shadow():
    for seed in range(60):
        made, where = covered_face(np.random.default_rng(seed), FACE, OTHER)
        assert made.shape == FACE.shape and where.min() >= 0 and where.max() <= 1
        beside = where == 0
        assert (made[beside] <= FACE[beside]).all(), seed


def test_things_are_of_every_size_and_mostly_low():
    covers = [occluder(np.random.default_rng(seed), 96) for seed in range(300)]
    share = np.array([cover.mean() for cover in covers])
    assert np.quantile(share, 0.1) < 0.05 and np.quantile(share, 0.9) > 0.2 and share.max() < 0.8
    assert sum(cover[48:].mean() for cover in covers) > 2 * sum(cover[:48].mean() for cover in covers)


def test_a_recording_keeps_the_picture():
    for seed in range(20):
        smooth = np.full((96, 96, 3), 120, np.uint8)
        again = recorded(np.random.default_rng(seed), smooth)
        assert again.shape == smooth.shape and again.dtype == np.uint8 and abs(float(again.mean()) - 120) < 2
