"""Who acts when: shares and latents as pixels, under frames, and as a plot."""

import numpy as np
import pytest
from PIL import Image

from repertoire.experiment import matrices
from repertoire.experiment.strip import HEIGHT, Strip, paint, palette, under

NAMES = ("walk", "reach")
SHARES = np.array([[1.0, 0.0]] * 2 + [[0.25, 0.75]] * 2)


def test_shares_are_stacked_in_time():
    strip = Strip(SHARES, NAMES, 0.1)
    painted, (walk, reach) = paint(strip, 8), np.rint(255 * palette(2)).astype(np.uint8)
    assert strip.shared and painted.shape == (HEIGHT, 8, 3)
    assert (painted[:, :4] == walk).all()
    part = (painted[:, 6] == walk).all(-1).mean()
    assert part == pytest.approx(0.25, abs=1 / HEIGHT)
    assert (painted[-1, 4:] == reach).all()


def test_latents_are_coloured_by_their_direction():
    turn = np.linspace(0, 2 * np.pi, 4, endpoint=False)
    strip = Strip(np.stack([np.cos(turn), np.sin(turn)], 1), ("z0", "z1"), 0.1)
    painted = paint(strip, 8)
    assert not strip.shared and len({tuple(c) for c in painted[0]}) == 4
    assert (painted[0] == painted[-1]).all()


def test_labels_name_who_acts():
    strip = Strip(SHARES, NAMES, 0.1)
    assert strip.label(0) == "walk" and strip.label(3) == "reach 0.75  walk 0.25"
    assert Strip(np.array([[0.5, -0.25]]), ("z0", "z1"), 0.1).label(0) == "latent +0.50 -0.25"


def test_the_strip_goes_under_the_frames_with_a_mark_that_moves():
    frames = [np.full((10, 40, 3), 7, np.uint8)] * 2
    shown = list(under(iter(frames), Strip(SHARES, NAMES, 0.1), stride=2))
    assert [f.shape for f in shown] == [(10 + HEIGHT + 20, 40, 3)] * 2
    assert (shown[0][:10] == 7).all()
    marks = [np.flatnonzero((f[12] == 255).all(-1)).min() for f in shown]
    assert marks == [0, 20]


@pytest.mark.parametrize("values", [SHARES, np.random.default_rng(0).normal(size=(30, 3))])
def test_the_timeline_is_a_picture(tmp_path, values):
    path = matrices.timeline(tmp_path / "acting.png", Strip(values, tuple("abc")[: values.shape[1]], 0.1), title="t")
    with Image.open(path) as picture:
        assert picture.width > 300 and picture.height > 100
