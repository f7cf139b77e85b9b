"""Mirror symmetry: of models, of observations, of the physics, of what PPO makes of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.algos import mirroring, ppo, trainer
from repertoire.algos.learner import Learner
from repertoire.envs import registry, symmetry
from repertoire.envs.tasks import velocity
from repertoire.errors import UserError
from repertoire.skills.objectives import registry as objectives

TINY = {"envs": 8, "rollout": 8, "minibatches": 2, "hidden": (16,)}
ROBOTS = ("point", "ant", "humanoid", "go2", "g1", "h1")
TASKS = ("ant_forward", "ant_multi_goals", "humanoid_forward", "go2_velocity", "g1_walking", "h1_walking")
#: Largest difference of a joint after a step, rad, between the image of a step and the step of the image. These
#: robots are not built quite symmetrically, in masses, centres of links and springs; others are exact.
TOLERANCE = {"humanoid": 1e-2, "go2": 1e-3, "g1": 1e-3, "h1": 1e-2}


@pytest.mark.parametrize("name", [*ROBOTS, *TASKS])
def test_mirroring_twice_is_the_identity(name):
    task = registry.make_task(name)
    mirror, spec = task.mirror(), task.obs_spec()
    flips = [mirror.qpos, mirror.qvel, mirror.action, *(mirror.group(spec, g) for g in spec.groups if g != "features")]
    for flip in flips:
        x = np.arange(1.0, 1 + len(flip.sign), dtype=np.float32)
        np.testing.assert_array_equal(flip(flip(x)), x)
        assert (np.sort(flip.source) == np.arange(len(flip.sign))).all()


def test_flips_of_ant_by_hand():
    mirror = registry.make_task("ant").mirror()
    names = registry.make_task("ant").action_names()
    pairs = {names[i]: (names[s], g) for i, (s, g) in enumerate(zip(mirror.action.source, mirror.action.sign))}
    assert pairs["hip_1"] == ("hip_4", -1) and pairs["hip_2"] == ("hip_3", -1)  # front left and front right; back
    assert pairs["ankle_1"] == ("ankle_4", 1) and pairs["ankle_3"] == ("ankle_2", 1)
    assert mirror.qpos.sign[:7].tolist() == [1, -1, 1, 1, -1, 1, -1]


@pytest.mark.parametrize(
    ("name", "sides"), [("go2", ("FL_ FR_", "RL_ RR_")), ("g1", ("left right",)), ("h1", ("left right",))]
)
def test_joints_of_unitree_are_paired_as_their_names_say(name, sides):
    task = registry.make_task(name)
    names, flip = task.action_names(), task.mirror().action
    turns = ("_hip",) if name == "go2" else ("roll", "yaw", "torso")  # these turn about x or z: the other way round
    for i, joint in enumerate(names):
        image = joint
        for left, right in map(str.split, sides):
            image = joint.replace(left, right) if left in joint else joint.replace(right, left)
            if image != joint:
                break
        assert names[flip.source[i]] == image
        assert flip.sign[i] == (-1 if any(t in joint for t in turns) else 1), joint


def states(task, seed):
    """A random state and action, and their mirror images."""
    rng, mirror, model = np.random.default_rng(seed), task.mirror(), task.model
    qpos = np.array(task.default_pose(), np.float32)
    first = 7 if model.jnt_type[0] == 0 else 0
    qpos[first:] += rng.uniform(-0.2, 0.2, model.nq - first)
    qpos[:2] = rng.uniform(-0.3, 0.3, 2)
    if first:
        tilt = np.array([1.0, *rng.uniform(-0.2, 0.2, 3)])
        qpos[3:7] = tilt / np.linalg.norm(tilt)
    qvel = rng.uniform(-0.5, 0.5, model.nv).astype(np.float32)
    action = rng.uniform(-1, 1, model.nu).astype(np.float32)
    return (qpos, qvel, action), (mirror.qpos(qpos), mirror.qvel(qvel), mirror.action(action))


@pytest.mark.parametrize("name", ROBOTS)
def test_a_mirrored_step_is_the_mirror_image_of_the_step(name):
    task = registry.make_task(name)
    mirror, model = task.mirror(), task.model

    def step(qpos, qvel, action):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos, qvel
        data.ctrl[:] = task.control(jnp.asarray(action), None, None)
        mujoco.mj_step(model, data, task.substeps)
        return data.qpos.copy(), data.qvel.copy()

    for seed in range(3):
        real, image = (step(*s) for s in states(task, seed))
        tolerance = TOLERANCE.get(name, 1e-6)
        np.testing.assert_allclose(image[0], mirror.qpos(real[0]), atol=tolerance)
        np.testing.assert_allclose(image[1], mirror.qvel(real[1]), atol=20 * tolerance)
        assert np.abs(image[1] - real[1]).max() > 0.1  # the mirror does something


@pytest.mark.parametrize("name", ROBOTS)
def test_observations_of_a_mirrored_state_are_the_mirrored_observations(name):
    env = registry.make(name, "native", **({"disc": True} if name == "point" else {}))
    task, mirror = env.task, env.task.mirror()

    @jax.jit
    def observe(qpos, qvel):
        data = env.physics.init(qpos, qvel)
        return env.spec.obs.build(task.observe(data, task.remember(jax.random.key(0), data)))

    for seed in range(3):
        real, image = (observe(*s[:2]) for s in states(task, seed))
        for group in real:
            np.testing.assert_allclose(image[group], mirror.group(env.spec.obs, group)(real[group]), atol=1e-5)


def test_rewards_of_a_mirrored_walk_are_those_of_the_walk():
    env = registry.make("ant_forward", "native")
    mirror = env.task.mirror()
    step = jax.jit(env.step)
    state = jax.jit(env.reset)(jax.random.key(0))
    start = env.physics.init(mirror.qpos(state.data.qpos), mirror.qvel(state.data.qvel))
    image = state.replace(data=start)
    for key in jax.random.split(jax.random.key(1), 5):
        action = jax.random.uniform(key, (8,), minval=-1, maxval=1)
        state, image = step(state, action), step(image, mirror.action(action))
        np.testing.assert_allclose(image.reward, state.reward, atol=1e-3)


def image_of(memory, mirror, period):
    """What a walking robot remembers, in the mirror; a gait's clock is half a period on."""
    feet = mirror.slices["feet"]
    clocks = {name: feet(getattr(memory, name)) for name in velocity.CLOCKS}
    clocks |= {"clock": memory.clock + period / 2} if period else {}
    return memory.replace(
        actions=jax.vmap(mirror.action)(memory.actions), command=mirror.slices["command"](memory.command), **clocks
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["go2_velocity", "g1_walking", "h1_walking"])
def test_every_term_of_a_mirrored_gait_is_that_of_the_gait(name):
    env = registry.make(name, "native", weights={} if name == "go2_velocity" else {"joint_limits": -1.0})
    task, mirror = env.task, env.task.mirror()
    step = jax.jit(env.step)
    state = step(jax.jit(env.reset)(jax.random.key(3)), jnp.zeros(env.spec.action_size))  # between two steps of a gait
    for key in jax.random.split(jax.random.key(1), 8):
        action = 0.5 * jax.random.uniform(key, (env.spec.action_size,), minval=-1, maxval=1)
        start = env.physics.init(mirror.qpos(state.data.qpos), mirror.qvel(state.data.qvel))
        image = state.replace(data=start, memory=image_of(state.memory, mirror, getattr(task, "period", 0)))
        start = env.physics.init(state.data.qpos, state.data.qvel)  # contacts of neither are warm
        state, image = step(state.replace(data=start), action), step(image, mirror.action(action))
        for term in task.weights:
            ours, other = (float(s.metrics[f"reward/{term}"]) for s in (state, image))
            assert other == pytest.approx(ours, rel=0.05, abs=2e-3), term
    assert float(state.reward) != 0.0


def test_the_gradient_of_a_symmetric_batch_is_unchanged():
    """A batch that holds the mirror image of each of its samples gains nothing by mirroring."""
    env = registry.make("ant_forward", "native")
    config = ppo.PPOConfig(**TINY)
    nets = ppo.actor_critic(env.spec, 0, 1, config)
    flips = mirroring.of(env, None)
    params = nets.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 6)
    one = ppo.Batch(
        policy_in=jax.random.normal(keys[0], (16, env.spec.obs.size("policy"))),
        value_in=jax.random.normal(keys[1], (16, env.spec.obs.size("critic"))),
        action=jax.random.normal(keys[2], (16, 8)),
        log_prob=-8 + jax.random.normal(keys[3], (16,)),
        advantage=jax.random.normal(keys[4], (16,)),
        target=jax.random.normal(keys[5], (16, 1)),
    )

    def mirrored(b):
        return b._replace(
            policy_in=flips.policy(b.policy_in), value_in=flips.critic(b.value_in), action=flips.action(b.action)
        )

    def both(b):
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), b, mirrored(b))

    gradient = jax.jit(jax.grad(lambda p, b: ppo.loss(p, nets, b, config)[0]))
    plain, symmetric, twice = (gradient(params, b) for b in (one, both(one), both(both(one))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), symmetric, twice)
    assert not np.allclose(jax.tree.leaves(plain)[0], jax.tree.leaves(symmetric)[0], atol=1e-4)


def test_ppo_learns_from_mirror_images_and_measures_itself_without_them():
    env = registry.make("point", weights={})
    learner = Learner(env, ppo.PPOConfig(**TINY, symmetry=True))
    compiled = trainer.programs(learner)
    (event,) = trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 1)
    assert np.isfinite(event.metrics["policy/kl"]) and event.metrics["policy/kl"] < 0.1
    state = jax.jit(learner.init)(jax.random.key(0))
    _, batch, _ = jax.jit(learner.collect)(state)
    zeros = jnp.zeros(batch.cut.shape)
    real, image = learner._samples(state, batch, zeros, zeros[..., None])
    velocity = np.asarray(batch.obs["policy"]) * [1, -1]
    np.testing.assert_allclose(image.action, batch.action * np.array([1, -1]), rtol=1e-6)
    np.testing.assert_allclose(
        image.policy_in, learner._inputs(state, "policy", {"policy": jnp.asarray(velocity)}, batch.z), atol=1e-6
    )
    np.testing.assert_array_equal(real.log_prob, batch.log_prob)
    policy = state.params["policy"]
    logits = learner.nets.policy.apply(policy["net"], image.policy_in)
    np.testing.assert_allclose(
        image.log_prob, learner.nets.head.log_prob(image.action, logits, policy["head"]), rtol=1e-4
    )
    assert np.abs(image.log_prob - real.log_prob).max() > 1e-3  # the policy is not symmetric yet


@pytest.mark.parametrize(
    ("name", "objective", "message"),
    [
        ("half_cheetah_forward", None, "has no mirror symmetry"),
        ("point_maze", None, "has no mirror symmetry"),
        ("g1_reaching", None, "no mirror image is declared for the observation"),
        ("ant", "metra", "latents have no mirror image"),
    ],
)
def test_where_there_is_no_mirror_image_the_learner_says_so(name, objective, message):
    made = objectives.make(objective) if objective else None
    with pytest.raises(UserError, match=message):
        Learner(registry.make(name, "native"), ppo.PPOConfig(**TINY, symmetry=True), made)


def test_models_without_symmetry_are_refused():
    model = registry.make_task("ant").model
    lopsided = model.__copy__()
    lopsided.body_pos[model.body("front_left_leg").id + 1] += 0.1
    with pytest.raises(UserError, match="has no mirror image in its model"):
        symmetry.model_flips(lopsided, lopsided.qpos0)
