"""Skills by hand: keys and sliders -> what is set -> latents and weights; the loop with a window that is none."""

import queue

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level.play import Panel, driver
from repertoire.scripts import play
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def env():
    return registry.make("point", "native")


@pytest.fixture(scope="module")
def panel(env, oracle, make_skill):
    other = make_skill(env.spec, "b", "one_hot", 3)
    contract = {**other.manifest["contract"], "features": []}  # not discovered on positions: no goal rule
    return Panel([oracle, Skill({**other.manifest, "contract": contract}, other.arrays)], env.spec)


def pressed(panel, *keys):
    desk = panel.start()
    for key in keys:
        desk = panel.press(desk, key)
    return desk


def test_values_are_named_and_bounded(panel):
    latents = ("oracle/z0", "oracle/z1", "b/z0", "b/z1", "b/z2")
    assert panel.names == (*latents, "oracle/weight", "b/weight", "goal/x", "goal/y")
    assert panel.bounds[0] == (-1.0, 1.0) and panel.bounds[5] == (0.0, 1.0) and panel.bounds[8] == (-10.0, 10.0)
    assert panel.start().values == (1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def test_keys_pick_skills_and_set_values(panel):
    assert pressed(panel, "2").values[5:7] == (0.0, 1.0) == pressed(panel, "next").values[5:7]
    assert pressed(panel, "next", "next") == panel.start() == pressed(panel, "previous", "next")
    assert pressed(panel, "9") == panel.start()  # no such skill
    desk = pressed(panel, "2", "right", "up", "up", "down")
    assert desk.chosen == 3 and desk.values[3] == pytest.approx(0.1)
    assert pressed(panel, "left", "up").values[8] == pytest.approx(1.0)  # 20 m in steps of a twentieth
    assert pressed(panel, *["up"] * 50).values[0] == 1.0  # bounded
    drawn = pressed(panel, "random")
    assert np.hypot(*drawn.values[:2]) == pytest.approx(1, abs=1e-5) and drawn.values[2:] == panel.start().values[2:]
    assert pressed(panel, "random", "random").values != drawn.values
    assert "oracle: b/z1 = +0.00" in panel.describe(pressed(panel, "right", "right", "right"))
    with pytest.raises(UserError, match="did you mean 'next'"):
        panel.press(desk, "nxt")


def test_what_is_set_becomes_latents_and_weights(env, panel):
    state = jax.jit(env.reset)(KEY)
    command = jax.jit(panel.command)
    values = jnp.array([3.0, 4.0, 0.1, 0.9, 0.2, 0.25, 0.75, 5.0, -2.0])
    (mine, other), weights = command(state, values, jnp.asarray(False))
    np.testing.assert_allclose(mine, [0.6, 0.8], rtol=1e-6)
    assert other.tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(weights, [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(command(state, values * 0, jnp.asarray(False))[1], [0.5, 0.5])
    skill = panel.skills[0]
    (sought, same), _ = command(state, values, jnp.asarray(True))
    here = state.obs["features"]
    want = skill.goal_latent(here, here.at[skill.position].set(jnp.array([5.0, -2.0])))
    np.testing.assert_allclose(sought, want, rtol=1e-5)
    assert same.tolist() == other.tolist()  # without a goal rule


class Closes:
    """A window that is closed after `frames` frames; `moves`: frame -> (slider, value)."""

    def __init__(self, shown, frames, moves):
        self.shown, self.left, self.moves, self.seen = shown, frames, moves, []

    def is_running(self):
        return self.left > 0

    def sync(self):
        self.left -= 1
        self.seen.append(self.shown.data.qpos.copy())
        for slider, value in self.moves.pop(len(self.seen), ()):
            self.shown.sliders[slider] = value


def test_the_loop_listens_to_sliders_and_keys(env, panel, capsys):
    shown = play.display_of(env, panel)
    names = [mujoco.mj_id2name(shown.model, mujoco.mjtObj.mjOBJ_ACTUATOR, i) for i in range(shown.model.nu)]
    assert tuple(names[shown.first :]) == panel.names
    keys = queue.SimpleQueue()
    window = Closes(shown, 6, {3: [(0, 0.0), (1, 1.0)]})  # east for three steps, then north
    desk = play.play(env, panel, window, shown, keys, {"seed": 0, "speed": 1e9})
    moved = np.diff(np.stack(window.seen), axis=0)
    assert (moved[:2, 0] > 0.05).all() and (moved[-1] @ [0, 1]) > 0.05 > abs(moved[-1, 0])
    assert desk.values[:2] == (0.0, 1.0) and "oracle: oracle/z1 = +1.00" in capsys.readouterr().out
    for code in (267, 261, 999):
        keys.put(code)
    after = play.listen(panel, desk, np.array(desk.values), keys)
    assert after.values[5:7] == (0.0, 1.0) and after.restarts == 1


def test_one_skill_alone_acts_as_itself(env, panel, oracle):
    state, values = jax.jit(env.reset)(KEY), jnp.asarray(panel.start().values)
    after, memory = jax.jit(driver(env, panel))(state, panel.bank.start(), values, jnp.asarray(False))
    own = state.obs["policy"][env.spec.obs.index("policy", oracle.slices)]
    alone = jax.jit(env.step)(state, oracle.act(own, jnp.array([1.0, 0.0])))
    np.testing.assert_allclose(after.data.qpos, alone.data.qpos, atol=1e-6)
    assert memory == ()


def test_without_a_display_it_says_so(oracle, tmp_path, monkeypatch):
    play.require_display("linux", {"DISPLAY": ":0"})
    play.require_display("darwin", {})
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    Library(tmp_path).add(oracle)
    cfg = {"env": {"name": "point"}, "skills": ["oracle"], "library": str(tmp_path), "speed": 1.0, "physics": "native"}
    with pytest.raises(UserError, match="play needs a display"):
        play.run(cfg)
    with pytest.raises(UserError, match="speed must be above 0"):
        play.run({**cfg, "speed": 0.0})
    with pytest.raises(UserError, match="nothing to play with"):
        play.run({**cfg, "skills": []})
