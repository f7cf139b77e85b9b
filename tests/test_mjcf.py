"""Any MJCF as an env: options, slices, actuators by hand numbers, refusals, both backends, fingerprints."""

from __future__ import annotations

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level.macro_env import MacroEnv
from repertoire.scripts import cli
from repertoire.skills.skill import Skill, contract

CRAWLER = """
<mujoco model="crawler">
  <compiler angle="degree"/>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="20 20 1"/>
    <body name="trunk" pos="0 0 0.2">
      <freejoint name="root"/>
      <geom type="box" size="0.15 0.1 0.03" mass="2"/>
      <site name="imu"/>
      <body name="front" pos="0.15 0 0">
        <joint name="hip" axis="0 1 0" range="-60 60" damping="0.2" armature="0.01"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.16" size="0.03" mass="0.3"/>
      </body>
      <body name="back" pos="-0.15 0 0">
        <joint name="tail" axis="0 1 0" range="-60 60" damping="0.2" armature="0.01"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.16" size="0.03" mass="0.3"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="hip" joint="hip" gear="2" ctrlrange="-1.5 1.5"/>
    <position name="tail" joint="tail" kp="4" kv="0.3" ctrlrange="-1 1"/>
  </actuator>
  <sensor><gyro name="gyro" site="imu"/></sensor>
  <keyframe><key name="home" qpos="0 0 0.2 1 0 0 0 0.2 -0.3" ctrl="0 -0.3"/></keyframe>
</mujoco>
"""
ARM = """
<mujoco><worldbody><body name="link"><joint name="elbow" axis="0 1 0"/><geom size="0.1"/></body></worldbody>
<actuator><motor joint="elbow"/></actuator></mujoco>
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = {
        "crawler": CRAWLER,
        "arm": ARM,
        "still": "<mujoco><worldbody><body><joint/><geom size='0.1'/></body></worldbody></mujoco>",
        "broken": "<mujoco><worldbody><bod/></worldbody></mujoco>",
        "meshless": "<mujoco><asset><mesh name='m' file='no.obj'/></asset><worldbody/></mujoco>",
    }
    for name, text in texts.items():
        (folder / f"{name}.xml").write_text(text)
    return {name: str(folder / f"{name}.xml") for name in texts}


def crawler(files, **options):
    return registry.make_task("mjcf", file=files["crawler"], **options)


def test_what_it_takes_from_the_file(files):
    task = crawler(files)
    spec = registry.make_spec("mjcf", file=files["crawler"])
    assert (task.substeps, task.root, spec.dt, spec.physics_dt) == (4, 2, 0.02, 0.005)
    assert spec.action_names == ("hip", "tail")
    assert (spec.action_low, spec.action_high) == ((-1.5, -1.0), (1.5, 1.0))
    np.testing.assert_allclose(task.default_pose(), [0, 0, 0.2, 1, 0, 0, 0, 0.2, -0.3])
    names = {g: [s.name for s in ss] for g, ss in spec.obs.groups.items()}
    assert names["policy"] == ["gravity", "heading", "angular_velocity", "joint_pos", "joint_vel", "last_action"]
    assert names["features"] == ["position", "velocity", "joint_pos"]
    assert task.sources()["joint_pos"] == "qpos[7:9] - default[7:9]"
    assert spec.model == "crawler.xml" and len(spec.model_sha256) == 64


def test_slices_read_what_they_name(files):
    task = crawler(
        files,
        policy=["gravity", "joint:tail", "joint_vel:hip", "sensor:gyro", "linear_velocity", "height"],
        features=["body:front", "body_vel:trunk", "position", "joint:root"],
        coverage={"body:front": 0.1},
        decimation=1,
    )
    env = registry.make("mjcf", "native", **{f: getattr(task, f) for f in
                        ("file", "policy", "features", "coverage", "decimation")})  # fmt: skip
    qpos = jnp.asarray([1.0, 2.0, 0.5, np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5), 0.1, 0.4])  # turned left by 90 degrees
    qvel = jnp.asarray([0.3, 0.0, 0.0, 0.0, 0.0, 0.7, -0.2, 0.0])
    data = jax.jit(env.physics.init)(qpos, qvel)
    seen = env.task.observe(data, env.task.remember(jax.random.key(0), data))
    np.testing.assert_allclose(seen["gravity"], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(seen["joint_tail"], [0.4])
    np.testing.assert_allclose(seen["joint_vel_hip"], [-0.2])
    np.testing.assert_allclose(seen["sensor_gyro"], [0, 0, 0.7], atol=1e-6)
    np.testing.assert_allclose(seen["linear_velocity"], [0, -0.3, 0], atol=1e-6)
    np.testing.assert_allclose(seen["height"], [0.5])
    np.testing.assert_allclose(seen["body_front"], [1.0, 2.15, 0.5], atol=1e-6)
    np.testing.assert_allclose(seen["body_vel_trunk"], [0.3, 0, 0], atol=1e-6)
    np.testing.assert_allclose(seen["joint_root"], qpos[:7])
    assert env.task.coverage_cells == {"position": 1.0, "body_front": 0.1}  # beside what all tasks count
    none = crawler(files, features=["body:front"], coverage={"position": None, "body_front": 0.2})
    assert none.coverage_cells == {"body_front": 0.2}


def test_position_control_of_motors(files):
    task = crawler(files, control_mode="position", kp=10.0, kd=0.5, action_scale=0.4)
    model = task.model
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], [10, 10])
    np.testing.assert_allclose(model.actuator_biasprm[:, 1:3], [[-10, -0.5]] * 2)
    np.testing.assert_allclose(model.actuator_gear[:, 0], [1, 1])
    np.testing.assert_allclose(model.actuator_forcerange[0], [-3, 3])  # gear 2 times ctrlrange 1.5
    low, high = task.action_limits()
    np.testing.assert_allclose((low, high), [[-0.2, -0.7], [0.6, 0.1]], atol=1e-6)
    np.testing.assert_allclose(task.control(jnp.zeros(2), None, None), [0.2, -0.3], atol=1e-6)
    own = crawler(files, control_mode="position", actuators="tail")
    assert own.action_names() == ("tail",) and own.model.actuator_gainprm[0, 0] == 4


def test_servos_that_do_not_act_hold_their_joints(files):
    """A spring and a damper pull as the servo did (Euler takes joint damping implicitly, a servo's not: 2 mrad)."""
    alone = crawler(files, actuators=["hip"]).model
    whole = crawler(files).model
    assert alone.nu == 1 and alone.nkey == 1
    ends = []
    for model in (alone, whole):
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        data.qpos[8] = 0.2  # away from its rest
        mujoco.mj_step(model, data, nstep=40)
        ends.append(data.qpos.copy())
    np.testing.assert_allclose(*ends, atol=5e-3)
    assert abs(ends[0][8] - 0.2) > 0.01


def test_starts_within_limits_around_the_rest_pose(files):
    task = crawler(files, reset_noise=2.0)
    starts = jax.vmap(task.start)(jax.random.split(jax.random.key(0), 64)).qpos
    limit = np.radians(60)
    assert np.abs(starts[:, 7:]).max() <= limit + 1e-6 and np.ptp(starts[:, 7]) > 1.5
    np.testing.assert_allclose(starts[:, :7], np.tile(task.default_pose()[:7], (64, 1)), atol=1e-6)


def test_rewards_and_falls(files):
    weights = {"forward": 1.0, "alive": 0.5, "control": -0.1}
    task = crawler(files, weights=weights, terminate=True, min_height=0.1)
    env = registry.make("mjcf", "native", file=files["crawler"], weights=weights, terminate=True, min_height=0.1)
    state = jax.jit(env.reset)(jax.random.key(0))
    moved = state.data.replace(qpos=state.data.qpos.at[0].add(0.04))
    terms = task.terms(state.data, moved, jnp.asarray([0.5, 0.5]), state.memory)
    assert {k: pytest.approx(float(v), abs=1e-4) for k, v in terms.items()} == {
        "forward": 2.0, "alive": 1.0, "control": 0.5,
    }  # fmt: skip
    low = state.data.replace(qpos=state.data.qpos.at[2].set(0.05))
    over = state.data.replace(qpos=state.data.qpos.at[3:7].set(jnp.asarray([0.0, 1.0, 0.0, 0.0])))
    assert [bool(task.terminated(d, None)) for d in (state.data, low, over)] == [False, True, True]


def test_native_and_mjx_agree(files):
    ends = {}
    for backend in ("native", "mjx"):
        env = registry.make("mjcf", backend, file=files["crawler"], control_mode="position", kp=8.0, kd=0.3,
                            policy=["joint_pos", "body:front", "sensor:gyro"])  # fmt: skip

        def run(key, env=env):
            step = lambda s, a: (env.step(s, a), None)  # noqa: E731
            return jax.lax.scan(step, env.reset(key), 0.5 * jnp.ones((5, 2)))[0]

        state = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(jax.random.key(3))
        ends[backend] = (state.data.qpos, state.obs["policy"])
    np.testing.assert_allclose(ends["native"][0], ends["mjx"][0], atol=2e-3)
    np.testing.assert_allclose(ends["native"][1], ends["mjx"][1], atol=5e-2)  # the gyro lags by one substep on both


def test_the_fingerprint_is_of_the_content(files, tmp_path):
    copy = tmp_path / "other.xml"
    copy.write_text(CRAWLER.replace("<option", "<!-- a comment -->\n  <option"))
    same = registry.make_spec("mjcf", file=str(copy)).model_sha256
    assert same == registry.make_spec("mjcf", file=files["crawler"], decimation=2).model_sha256
    copy.write_text(CRAWLER.replace('mass="0.3"', 'mass="0.4"'))
    heavier = registry.make_spec("mjcf", file=str(copy))
    assert heavier.model_sha256 != same
    with pytest.raises(UserError, match="has changed: its sha256"):
        registry.make_task("mjcf", file=str(copy), sha256=same)
    skill = Skill({"name": "crawl", "contract": contract(registry.make_spec("mjcf", file=files["crawler"]))}, {})
    skill.fits(registry.make_spec("mjcf", file=files["crawler"]))
    with pytest.raises(UserError, match=r"was trained on crawler.xml .* other.xml"):
        skill.fits(heavier)


def test_a_floor_shows_motion_and_changes_no_physics(files, tmp_path):
    (tmp_path / "alone.xml").write_text(CRAWLER.replace('<geom name="floor" type="plane" size="20 20 1"/>', ""))
    alone = registry.make_task("mjcf", file=str(tmp_path / "alone.xml"), floor=True).model
    whole = crawler(files).model
    assert alone.geom_matid[0] >= 0 and alone.mat_texid[alone.geom_matid[0]].max() == 0 and alone.ntex == 1
    assert np.ptp(alone.tex_data) > 50  # a checker, not one grey
    assert alone.nlight == 1 and whole.nlight == 0
    lit = CRAWLER.replace("<worldbody>", '<worldbody><light pos="0 0 3"/>')
    (tmp_path / "lit.xml").write_text(lit)
    assert registry.make_task("mjcf", file=str(tmp_path / "lit.xml"), floor=True).model.nlight == 1
    ends = []
    for model in (alone, whole):
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        mujoco.mj_step(model, data, nstep=100)
        ends.append(data.qpos.copy())
    np.testing.assert_allclose(*ends, atol=1e-9)


def test_a_skill_fits_the_gains_that_it_was_trained_with(files):
    def spec(**options):
        return registry.make_spec("mjcf", file=files["crawler"], control_mode="position", **options)

    trained, softer = spec(kp=8.0, kd=0.3), spec(kp=4.0, kd=0.3)
    assert trained.gains == {"hip": (8.0, 8.0, 0.3), "tail": (8.0, 8.0, 0.3)}
    skill = Skill({"name": "crawl", "contract": json.loads(json.dumps(contract(trained)))}, {})
    skill.fits(trained)
    with pytest.raises(UserError, match=r"with gain 8, kp 8, kd 0.3 of actuator hip, the env has gain 4, kp 4"):
        skill.fits(softer)
    with pytest.raises(UserError, match=r"kd 0\.5"):
        skill.fits(spec(kp=8.0, kd=0.5))
    old = Skill({"name": "old", "contract": {k: v for k, v in contract(trained).items() if k != "gains"}}, {})
    old.fits(softer)  # an entry from before gains were kept

    def notes(kept, env_spec):
        composer = SimpleNamespace(skills=(kept,), notes=())
        return MacroEnv.notes.fget(SimpleNamespace(env=SimpleNamespace(spec=env_spec), composer=composer, hold=1))

    (note,) = notes(old, softer)
    assert "old does not say with which kp and kd" in note
    assert notes(skill, trained) == () and notes(old, registry.make_spec("ant")) == ()  # motors have no kp


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("crawler", {"actuators": ["hp"]}, "did you mean 'hip'"),
        ("crawler", {"actuators": []}, "names none"),
        ("crawler", {"policy": ["sensor:gyr"]}, "did you mean 'gyro'"),
        ("crawler", {"features": ["body:fron"]}, "did you mean 'front'"),
        ("crawler", {"features": ["joint:x"]}, "there is: hip, root, tail"),
        ("crawler", {"features": ["postion"]}, "did you mean 'position'"),
        ("crawler", {"coverage": {"body:front": 0.1}}, "feature slice of env.coverage"),
        ("crawler", {"keyframe": "sit"}, "there is: home"),
        ("crawler", {"control_mode": "pd"}, "control_mode"),
        ("crawler", {"control_mode": "position"}, "hip have no position gains: give env.kp"),
        ("crawler", {"weights": {"forwards": 1.0}}, "did you mean 'forward'"),
        ("crawler", {"polcy": []}, "did you mean 'policy'"),
        ("crawler", {"decimation": 0}, "decimation must be at least 1"),
        ("arm", {}, "actuators without ctrlrange: elbow"),
        ("arm", {"control_mode": "position", "kp": 1.0, "features": ["position"]}, "take body:NAME"),
        ("arm", {"control_mode": "position", "kp": 1.0, "weights": {"forward": 1.0}}, "needs a root that moves"),
        ("still", {}, "has no actuators"),
        ("broken", {}, "MuJoCo cannot read"),
        ("meshless", {}, "no.obj"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(files, name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        registry.make_spec("mjcf", file=files[name], **options)
    assert "\n" not in str(caught.value)


def test_training_where_nothing_is_rewarded_is_one_line(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for weights in ([], ["env.weights.alive=0"]):
        with pytest.raises(SystemExit):
            cli.main(["train", "env=mjcf", f"model={files['crawler']}", *weights])
        error = capsys.readouterr().err
        assert "env mjcf pays nothing yet" in error and "env.weights.forward=1; it knows forward, alive" in error
        assert error.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MENAGERIE", str(tmp_path / "nowhere"))
    for file, message in (
        ("", "model=path/to/robot.xml"),
        (str(tmp_path / "no.xml"), "there is no model file"),
        ("menagerie:unitree_go2/scene.xml", "set MENAGERIE="),
    ):
        with pytest.raises(UserError, match=message):
            registry.make_spec("mjcf", file=file)


def test_robots_of_a_menagerie(tmp_path, monkeypatch):
    folder = tmp_path / "crawling_crawler"
    folder.mkdir()
    (folder / "robot.xml").write_text(CRAWLER)
    (folder / "scene.xml").write_text('<mujoco><include file="robot.xml"/></mujoco>')
    monkeypatch.setenv("MENAGERIE", str(tmp_path))
    spec = registry.make_spec("mjcf", file="menagerie:crawling_crawler/scene.xml")
    assert spec.model == "menagerie:crawling_crawler/scene.xml" and spec.action_size == 2
    for file, message in (
        ("menagerie:crawling_crowler/scene.xml", "did you mean 'crawling_crawler'"),
        ("menagerie:crawling_crawler/scen.xml", "did you mean 'scene.xml'"),
    ):
        with pytest.raises(UserError, match=message):
            registry.make_spec("mjcf", file=file)
