"""Several tasks in one env: what is drawn, seen, rewarded and measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import mirroring
from repertoire.envs import registry, symmetry
from repertoire.envs.task import TASK
from repertoire.errors import UserError
from repertoire.scripts import task_eval
from repertoire.skills.skill import Skill, contract

TASKS = {"reach": {"reach": 1.0, "safety": 0.0}, "flee": {"reach": -2.0}, "idle": {"reach": 0.0}}
KEYS = jax.random.split(jax.random.key(0), 64)


def index(state):
    return np.asarray(state.drawn[TASK]).argmax(-1)


@pytest.fixture(scope="module", params=["native", pytest.param("mjx", marks=pytest.mark.slow)])
def worlds(request):
    """(spec, first states, what the step to the right makes of states, before and after new episodes begin)."""
    env = registry.make("point_disc", request.param, tasks=TASKS, episode_length=3)

    def step(state):
        after = env.step(state, jnp.array([1.0, 0.0]))
        return after, env.reset_where(after.truncated, after)

    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    reset, step = (jax.jit(jax.vmap(f), compiler_options=quick) for f in (env.reset, step))
    return env.spec, reset, step


def test_an_episode_is_about_one_task_and_the_next_may_be_about_another(worlds):
    spec, reset, step = worlds
    start = reset(KEYS)
    np.testing.assert_array_equal(start.obs["policy"][:, spec.obs.index("policy", (TASK,))], start.drawn[TASK])
    assert (np.asarray(start.drawn[TASK]).sum(1) == 1).all()
    assert (np.bincount(index(start), minlength=3) > 10).all()  # of 64; 10 are 3.1 standard deviations below

    state = start
    for _ in range(3):
        last, state = step(state)
        np.testing.assert_array_equal(index(last), index(start))
    assert last.truncated.all() and (index(state) != index(start)).mean() > 0.4  # a third stays by chance
    np.testing.assert_array_equal(state.obs["policy"][:, -3:], state.drawn[TASK])
    np.testing.assert_array_equal(reset(KEYS).drawn[TASK], start.drawn[TASK])


def test_its_weights_count(worlds):
    """Minus the gap to the disc's rim, m, minus twice that, and not at all."""
    spec, reset, step = worlds
    start = reset(KEYS)
    after, _ = step(start)
    offset = np.asarray(after.obs["policy"][:, spec.obs.index("policy", ("disc_offset",))])
    gap = np.linalg.norm(offset, axis=1) - 0.3
    wanted = np.array([-1.0, 2.0, 0.0])[index(start)] * gap
    np.testing.assert_allclose(after.metrics["reward/reach"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.reward, after.metrics["reward/reach"], rtol=1e-6)  # nothing is rough so far away


def test_slices_are_declared_last():
    spec = registry.make_spec("point_disc", tasks=TASKS, smooth={"velocity": 0.5})
    policy, critic, features = (spec.obs.groups[g] for g in ("policy", "critic", "features"))
    assert (policy[-1].name, policy[-1].size, policy[-1].unit) == (TASK, 3, "one-hot: reach, flee, idle")
    assert critic[-1] == policy[-1] and critic[-2].name == "smooth_velocity"
    assert TASK not in [s.name for s in features]
    assert policy[:-1] == registry.make_spec("point_disc").obs.groups["policy"]  # skills without it fit


def test_skills_fit_tasks_of_the_same_names_in_the_same_order():
    spec = registry.make_spec("point_disc", tasks=TASKS)
    skill = Skill({"name": "told", "contract": contract(spec, ())}, {})
    skill.fits(registry.make_spec("point_disc", tasks={**TASKS, "flee": {"reach": -7.0}}))  # weights may be others
    for tasks in (dict(reversed(TASKS.items())), {"a": {}, "b": {}, "c": {}}):
        with pytest.raises(UserError, match=r"is one-hot: reach, flee, idle, the env's one-hot: .* in the same order"):
            skill.fits(registry.make_spec("point_disc", tasks=tasks))
    blind = Skill({"name": "blind", "contract": contract(registry.make_spec("point_disc"), ())}, {})
    blind.fits(spec)


def test_weights_of_tasks_replace_those_of_the_env():
    task = registry.make_task("point_disc", weights={"safety": -3.0}, tasks={"a": {"reach": 0.0}, "b": {}})
    assert task.tasks == {"a": {"reach": 0.0, "safety": -3.0}, "b": {"reach": 1.0, "safety": -3.0}}


def test_terms_that_only_a_task_weighs_are_computed(tmp_path):
    """Some envs leave out terms without a weight."""
    (tmp_path / "car.xml").write_text(
        '<mujoco><worldbody><body><joint name="x" type="slide" axis="1 0 0"/><geom size=".1"/></body></worldbody>'
        '<actuator><motor joint="x" ctrlrange="-1 1"/></actuator></mujoco>'
    )
    tasks = {"lazy": {"control": -0.5}, "busy": {"control": 1.0}}
    env = registry.make("mjcf", "native", file=str(tmp_path / "car.xml"), tasks=tasks)
    after = jax.jit(jax.vmap(lambda key: env.step(env.reset(key), jnp.ones(1))))(KEYS)
    np.testing.assert_allclose(after.reward, np.array([-0.5, 1.0])[index(after)], rtol=1e-6)


def test_a_task_looks_the_same_in_the_mirror():
    env = registry.make("point_disc", "native", tasks=TASKS)
    flips = mirroring.of(env, None)
    x = np.arange(7.0)
    np.testing.assert_array_equal(flips.policy(x), [0, -1, 2, -3, 4, 5, 6])
    assert TASK not in symmetry.of(registry.make("point_disc", "native")).slices


def test_returns_of_every_task():
    """The point stays where it is, so the return is the weight of the gap, and the gap is much alike."""
    env = registry.make("point_disc", "native", tasks=TASKS, reset_noise=0.0, episode_length=10)
    found = task_eval.episodes(env, lambda key, state: jnp.zeros(2), jax.random.key(1), 32)
    row = task_eval.summary(found)
    assert task_eval.per_task(row) == ["return_reach", "return_flee", "return_idle"]
    np.testing.assert_allclose([row[k] for k in task_eval.per_task(row)], [-7.0, 14.0, 0.0], rtol=1e-4, atol=1e-4)
    shares = [float(its.mean()) for its in found.tasks.values()]
    assert sum(shares) == 1 and row["return"] == pytest.approx(np.dot(shares, [-7.0, 14.0, 0.0]), rel=1e-4)


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ({"reach": {"reach": 1.0}}, "reach is one task alone: give its weights as env.weights"),
        ({"a": {"reach": 1.0}, "b": {"raech": 1.0}}, "unknown reward term of env point_disc 'raech': did you mean"),
        ({"a": 1.0, "b": {}}, "env.tasks.a must be settings by name, got 1.0"),
        ({"a": {"reach": "much"}, "b": {}}, "env.tasks.a.reach must be a number, got 'much'"),
        (["a", "b"], "env.tasks must be settings by name, got "),
        ({"a b": {}, "b": {}}, "a task cannot be called 'a b'"),
        ({"low": {}, "b": {}}, "a task cannot be called 'low': return_low is the end of an interval"),
    ],
)
def test_wrong_tasks_are_one_line(tasks, says):
    with pytest.raises(UserError, match=says) as error:
        registry.make_task("point_disc", tasks=tasks)
    assert "\n" not in str(error.value)


def test_envs_without_terms_or_of_others_have_no_tasks():
    with pytest.raises(UserError, match="env point has no reward terms"):
        registry.make_task("point", tasks={"a": {"x": 1.0}, "b": {}})
    with pytest.raises(UserError, match="unknown option of env brax 'tasks'"):
        registry.make_spec("brax", id="ant", tasks=TASKS)
