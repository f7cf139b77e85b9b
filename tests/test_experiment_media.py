"""Video, viewer, plots, report, cheap imports."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
from PIL import Image

from repertoire.errors import UserError
from repertoire.experiment import gl, plots, video
from repertoire.experiment.report import write_report
from repertoire.experiment.run_dir import RunDir
from repertoire.experiment.scene import robot_size, root_body, staged
from repertoire.experiment.trackers import make_trackers

ANT = Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"
needs_gl = pytest.mark.skipif(gl.pick_gl() is None, reason=gl.why_no_gl())


@pytest.fixture(scope="module")
def ant():
    return mujoco.MjModel.from_xml_path(str(ANT))


@pytest.fixture(scope="module")
def qpos(ant):
    """[20, nq]: an ant that falls, moved 3 m per row so that it leaves its 40 m floor."""
    data, rows = mujoco.MjData(ant), []
    for t in range(20):
        data.ctrl[:] = np.sin(t + np.arange(ant.nu))
        for _ in range(5):
            mujoco.mj_step(ant, data)
        rows.append(data.qpos.copy())
        rows[-1][0] += 3 * t
    return np.array(rows)


def skin(frame):
    """Share of pixels with the ant's brown: red well above blue."""
    return float((frame[..., 0].astype(int) - frame[..., 2] > 40).mean())


@needs_gl
def test_robot_is_seen_in_every_frame_even_beyond_the_floor(ant, qpos):
    before = ant.geom_size.copy()
    frames = list(video.render(ant, qpos[::4], width=160, height=120))
    assert len(frames) == 5 and frames[0].shape == (120, 160, 3) and frames[0].dtype == np.uint8
    assert all(0.02 < skin(f) < 0.5 for f in frames), [skin(f) for f in frames]
    assert all(f.mean() > 60 for f in frames)
    np.testing.assert_array_equal(ant.geom_size, before)


@needs_gl
def test_markers_are_drawn_where_asked(ant, qpos):
    plain = next(video.render(ant, qpos[:1], width=160, height=120))
    green = [((qpos[0, 0], qpos[0, 1], 1.5), 0.3, (0, 1, 0, 1))]
    marked = next(video.render(ant, qpos[:1], width=160, height=120, markers=lambda t: green))
    changed = (marked[..., 1].astype(int) - marked[..., 0] > 60).mean()
    assert changed > 0.01 and (plain[..., 1].astype(int) - plain[..., 0] > 60).mean() == 0


@needs_gl
def test_overview_frames_the_whole_path(ant, qpos):
    frames = list(video.render(ant, qpos[[0, -1]], camera="overview", width=320, height=120))
    xs = [np.nonzero(f[..., 0].astype(int) - f[..., 2] > 40)[1].mean() for f in frames]
    assert xs[0] < 90 and xs[1] > 160


@needs_gl
def test_skill_grid_to_mp4(ant, qpos, tmp_path):
    import imageio_ffmpeg

    notes: list[str] = []
    path = video.try_video(
        tmp_path / "v" / "grid.mp4", ant, np.stack([qpos[:3]] * 3), 0.05, width=81, height=61, note=notes.append
    )
    assert path == tmp_path / "v" / "grid.mp4" and not notes
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert len(done.stdout) == 3 * 124 * 164 * 3 and b"20 fps" in done.stderr
    assert [p.name for p in path.parent.iterdir()] == ["grid.mp4"]


def test_grid_keeps_last_frames_and_labels():
    tile = np.full((40, 60, 3), 200, np.uint8)
    out = list(video.grid([[tile] * 2, [tile // 2] * 4, [tile]], ["a very long label indeed", "b", ""]))
    assert len(out) == 4 and out[0].shape == (82, 122, 3)
    assert (out[3][20:40, :60] == 200).all() and (out[0][:12, :12] != 200).any()
    assert (out[0][42:, :60] == 200).all()  # no label, no stamp
    assert list(video.grid([])) == []


def test_bad_input_is_one_line(ant, tmp_path):
    with pytest.raises(UserError, match=r"qpos \[T, 15\]"):
        video.render(ant, np.zeros((4, 3)))
    with pytest.raises(UserError, match="no frames"):
        video.write_mp4(tmp_path / "a.mp4", [], 30)
    with pytest.raises(UserError, match="did you mean 'torso'"):
        root_body(ant, "torsoo")
    notes: list[str] = []
    assert video.try_video(tmp_path / "a.mp4", ant, np.zeros((4, 3)), 0.05, note=notes.append) is None
    assert len(notes) == 1 and "qpos" in notes[0]
    assert video.try_video(tmp_path / "a.mp4", ant, np.full((2, 15), np.nan), 0.0, note=notes.append) is None


def test_root_is_the_robot_not_the_object():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom type='plane' size='9 9 1'/><body name='cube'><freejoint/><geom size='.1'/></body>"
        "<body name='robot'><freejoint/><geom size='.2'/><body><joint/><geom size='.1' pos='1 0 0'/></body></body>"
        "</worldbody></mujoco>"
    )
    assert model.body(root_body(model)).name == "robot"
    assert robot_size(model, root_body(model)) == pytest.approx(1.1)
    assert staged(model, 10, 10).geom_size[0, 0] == 0 and model.geom_size[0, 0] == 9


def test_without_gl_a_page_is_written(ant, qpos, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "pick_gl", lambda: None)
    notes: list[str] = []
    path = video.try_video(tmp_path / "v.mp4", ant, qpos, 0.05, note=notes.append)
    assert path == tmp_path / "v.html" and len(notes) == 1 and "v.html" in notes[0]
    packed = re.search(r'var system = "([^"]+)"', path.read_text())
    system = json.loads(zlib.decompress(base64.b64decode(packed[1])))
    assert len(system["states"]["x"]) == 20 and system["opt"]["timestep"] == 0.05
    assert system["geoms"]["torso"][0]["name"] == "Sphere" and "world" in system["geoms"]
    np.testing.assert_allclose(system["states"]["x"][-1]["pos"][0], qpos[-1, :3], atol=1e-4)


def test_gl_probe_obeys_off_and_time_out(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    assert gl.pick_gl.__wrapped__() is None and "MUJOCO_GL" in gl.why_no_gl()
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert gl._candidates()[:2] == ["osmesa", "egl"]

    def hangs(*args, **kwargs):
        raise subprocess.TimeoutExpired("x", kwargs["timeout"])

    monkeypatch.setattr(subprocess, "run", hangs)
    assert gl.pick_gl.__wrapped__(timeout=1) is None


def ink(path):
    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


def test_plots_are_not_blank(tmp_path):
    xy = np.cumsum(np.random.default_rng(0).normal(size=(6, 50, 2)), 1)
    xy[0, 30:] = np.nan
    z = np.eye(6)
    a = plots.trajectories(tmp_path / "p" / "a.png", xy, latents=z, goals=np.zeros((1, 2)))
    b = plots.trajectories(tmp_path / "b.png", xy, labels=["x", "x", "y", "y", "z", "z"])
    walled = plots.trajectories(tmp_path / "w.png", xy, latents=z, walls=[(0.0, 0.0, 3.0, 3.0)])
    assert ink(walled) > ink(a) + 0.02
    x = np.arange(5)
    series = plots.seed_series("run", x, np.stack([x, x + 2.0], 1))
    np.testing.assert_array_equal(series.y, x + 1)
    c = plots.curves(tmp_path / "c", {"loss": [series], "gap": [plots.Series("run", x, np.full(5, np.nan))]})
    assert all(p.suffix == ".png" and ink(p) > 0.01 for p in (a, b, c))
    with pytest.raises(UserError, match=r"\[K, T, 2\]"):
        plots.trajectories(tmp_path / "d.png", np.zeros((3, 2)))


def test_clusters_are_drawn_per_skill(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 30, 2)) + np.array([0, 0, 5, 5])[:, None, None]
    path = plots.clusters(tmp_path / "c.png", values, ["a", "a", "b", "b"], axes=("vx [m/s]", "vy [m/s]"))
    assert path.stat().st_size > 5000
    with pytest.raises(UserError, match="K labels"):
        plots.clusters(tmp_path / "d.png", values, ["a"], axes=("x", "y"))


def test_colours_differ_by_angle():
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    colours = plots.latent_colours(np.stack([np.cos(angles), np.sin(angles)], 1))
    assert colours.shape == (8, 3) and len({tuple(c.round(3)) for c in colours}) == 8
    assert plots.latent_colours(np.array([[-1.0], [0.0], [1.0]])).shape == (3, 3)


@pytest.fixture
def two_runs(tmp_path):
    runs = []
    for name, lr in (("one", 1e-3), ("two", 3e-4)):
        run = RunDir.create_or_resume(tmp_path / name, kind="train-skills", config={"lr": lr, "note": "<b>&"})
        (tracker,) = make_trackers([], run, after=0)
        for u in range(1, 5):
            tracker.log(u, 100 * u, {"loss": [1 / u, 2 / u], "cells": u})
        tracker.close()
        run.close()
        plots.trajectories(run.plots / "paths.png", np.random.default_rng(0).normal(size=(3, 9, 2)))
        (run.path / "evaluation.json").write_text(
            '{"cells": {"mean": 42.5, "low": 40, "high": 45}, "x": [1, 3], "reach": {"iqm": 3.25, "low": 3, "high": 4}}'
        )
        (run.path / "card.md").write_text("# my skills")
        video.write_mp4(run.videos / "v.mp4", [np.full((32, 32, 3), 9, np.uint8)] * 3, 10)
        runs.append(run)
    return runs


def test_report_stands_alone(two_runs, tmp_path, monkeypatch):
    text = write_report(tmp_path / "out" / "r.html", two_runs, {"Why": "<p>because</p>"}).read_text()
    assert not re.findall(r'(?:src|href)\s*=\s*["\'](?!data:)', text) and "@import" not in text and "url(" not in text
    for words in (
        "Comparison",
        "42.5 (40 .. 45)",
        "3.25 (3 .. 4)",
        "0.0003",
        "my skills",
        "because",
        "not finished",
        "&lt;b&gt;&amp;",
    ):
        assert words in text, words
    assert text.count("data:video/mp4") == 2 and text.count("data:image/png") == 5
    monkeypatch.setattr("repertoire.experiment.embed.MAX_VIDEO", 10)
    text = write_report(tmp_path / "out" / "r.html", two_runs[:1]).read_text()
    assert "data:video" not in text and 'href="../one/videos/v.mp4"' in text and "Comparison" not in text


def test_report_of_an_empty_run(tmp_path):
    run = RunDir.create_or_resume(tmp_path / "run", kind="train", config={})
    run.close()
    assert "run" in write_report(tmp_path / "r.html", [run]).read_text()
    with pytest.raises(UserError, match="at least one run"):
        write_report(tmp_path / "r.html", [])


def test_imports_are_cheap():
    code = (
        "import sys\nfrom repertoire.experiment import checkpoints, console, gl, metrics_log, plots, report, run_dir,"
        " scene, trackers, video, viewer\n"
        "heavy = {'jax', 'mujoco', 'matplotlib', 'orbax', 'rich', 'brax', 'mediapy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
