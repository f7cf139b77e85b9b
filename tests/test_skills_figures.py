"""From rollouts to evaluation.json: batching, descriptors, goals, one compilation, and a page that names every key."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from repertoire.algos import trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import registry
from repertoire.scripts import skill_eval, train_skills
from repertoire.skills import evaluate as ev
from repertoire.skills import feasibility, figures, goal_reaching, metrics
from repertoire.skills.freezing import freeze
from repertoire.skills.latent import OneHot, Sphere
from repertoire.skills.objectives import registry as objectives

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evaluation.md"


def make(objective, features=None, **options):
    env = registry.make("point", disc=True, episode_length=10)
    config = PPOConfig(envs=4, rollout=4, minibatches=2, hidden=(8,))
    learner = Learner(env, config, objectives.make(objective, hidden=(8,), **options), features)
    return learner, trainer.programs(learner).init(trainer.seed_keys(0))


@pytest.fixture(scope="module")
def metra():
    return make("metra")


@pytest.fixture(scope="module")
def traced(metra):
    """How often `roll` was traced, from before the first rollout of the module on."""
    calls, roll = [], ev.roll
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ev, "roll", lambda *args: calls.append(1) or roll(*args))
        yield calls


@pytest.fixture(scope="module")
def found(metra, traced):
    learner, state = metra
    return train_skills.measure(learner, state, freeze("x", learner, state, {}), rollouts=48)


def test_one_program_serves_figures_plots_and_videos(metra, found, traced):
    learner, state = metra
    assert skill_eval.roller(learner) is skill_eval.roller(learner)
    before = len(traced)
    skill_eval.evaluator(learner, 1)(1, state)
    for count in (8, 32, 100):
        skill_eval.roller(learner)(state, learner.prior.spread(count), jax.random.key(0))
    assert len(traced) == before


def test_rollouts_do_not_depend_on_how_many_follow(metra, traced):
    learner, state = metra
    z = learner.prior.spread(60)
    many, few = (skill_eval.roller(learner)(state, z[:n], jax.random.key(3)) for n in (60, 5))
    assert many.qpos.shape == (60, 11, 4) and many.action.shape == (60, 10, 2) and few.z.shape == (5, 2)
    np.testing.assert_array_equal(many.qpos[:5], few.qpos)
    np.testing.assert_array_equal(many.positions, many.qpos[..., :2])
    assert not np.array_equal(many.qpos[0, 0], many.qpos[48, 0])  # another batch, other starts


def test_a_world_that_finished_stays_where_it_was():
    env = registry.make("point", episode_length=5, reset_noise=0.0)
    keys, z = jax.random.split(jax.random.key(0), 2), np.zeros((2, 0), np.float32)
    rolled = jax.jit(lambda keys: ev.roll(env, lambda key, obs, z: np.array([2.0, 0.0]), z, keys, 8))(keys)
    np.testing.assert_array_equal(rolled.alive, np.arange(8)[None].repeat(2, 0) < 5)
    np.testing.assert_allclose(rolled.positions[:, -1], [[0.5, 0.0]] * 2, atol=1e-5)
    assert np.max(rolled.action) == 1.0  # what the env makes of an action of 2
    np.testing.assert_allclose(rolled.ctrl, rolled.action)


def test_descriptor():
    spec = registry.make_spec("point", disc=True)  # position, velocity, disc: two numbers each
    index = spec.obs.index
    assert figures.descriptor(spec, index("features", None)) == ("position",)
    assert figures.descriptor(spec, index("features", ("velocity",))) == ("velocity",)
    assert figures.descriptor(spec, index("features", ("velocity", "disc"))) == ()


def test_labels_of_latents():
    np.testing.assert_array_equal(figures.labels_of(np.eye(3)[[2, 0]], OneHot(3)), [2, 0])
    z = np.array([[1.0, 0.1], [-1.0, 0.1], [0.1, 2.0], [0.3, -2.0]])
    np.testing.assert_array_equal(figures.labels_of(z, Sphere(2)), [0, 1, 2, 3])


def test_slices_come_in_their_own_units():
    spec = registry.make_spec("point_maze")
    features = np.arange(spec.obs.size("features"), dtype=np.float32)[None]
    np.testing.assert_array_equal(ev.values_of(spec, features, "velocity"), [[2.0, 3.0]])
    assert ev.values_of(spec, features).shape == (1, 0)


def test_latent_goal_reaching_by_hand():
    others = np.stack([np.full((6, 1), -1.0), np.full((6, 1), 1.0)])
    goals = np.array([[1.0], [-1.0]])
    perfect = goal_reaching.latent_goal_reaching(others[::-1], others, goals)
    assert perfect == {"lgr_distance": 0.0, "lgr_distance_random": 1.0, "lgr_distance_best": 0.0, "lgr_range": 1.0}
    assert goal_reaching.latent_goal_reaching(others, others, goals)["lgr_distance"] == 2.0
    drawn = goal_reaching.goals_in(others * [[[3.0]]], 200, seed=0)
    assert -3 <= drawn.min() < -2.8 and 2.8 < drawn.max() <= 3


def rolled_by_hand(position, z):
    """Rollouts of a point whose `position` [K, T + 1, 2] is given; its velocity is zero."""
    features = np.concatenate([position, np.zeros_like(position)], axis=-1).astype(np.float32)
    none = np.zeros((len(z), position.shape[1] - 1, 2))
    alive = np.ones(none.shape[:2], bool)
    still, over = np.zeros(none.shape[:2]), np.zeros(len(z))
    return ev.Rollouts(z, position, features, position, 0 * position, none, none, still, alive, over, {}, {})


def test_figures_of_four_straight_skills(monkeypatch):
    env = registry.make("point")
    z = np.repeat(np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32), 12, axis=0)
    ray = 4.5 * np.linspace(0, 1, 51)[None, :, None] * z[:, None]
    rolled, seen = rolled_by_hand(ray, z), env.spec.obs.index("features", ("position",))
    monkeypatch.setattr(type(env.task), "ceiling_m", {50: 4.5})
    out = figures.figures(env, rolled, rolled_by_hand(0 * ray, z), Sphere(2), seen)
    assert out["coverage_cells"] == 5 + 4 + 5 + 5  # the two positive rays share the cell at the origin
    assert out["reach_m"] == pytest.approx(4.5) and out["path_m"] == pytest.approx(4.5)
    assert out["coverage_fraction"] == pytest.approx(19 / metrics.straight_ray_cells(4.5, 48, steps=50))
    assert out["vendi_position_bandwidth"] == 1.0  # random actions that go nowhere: the cell
    assert out["vendi_position"] == pytest.approx(4, abs=0.1)
    assert out["held_out_cosine"] > 0.95
    assert out["binned_mi"] == pytest.approx(np.log(4), abs=0.01) == out["binned_mi_ceiling"]
    assert out["action_rate"] == 0 and "coverage_disc_cells" not in out


def test_disentangled_factors():
    z = np.random.default_rng(0).uniform(-1, 1, (300, 2)).astype(np.float32)
    position = z[:, None] * np.linspace(0, 1, 11)[None, :, None]
    factors = {"x": (np.array([0]), np.array([0])), "y": (np.array([1]), np.array([1]))}
    found = figures.factored(rolled_by_hand(position, z), np.arange(2), factors)
    assert min(found.values()) > 0.9


def test_summary_over_seeds(metra):
    rows = [{"seed": i, "reach_m": float(i), "coverage_fraction": 0.5, **({"extra": 1} if i else {})} for i in range(3)]
    out = skill_eval.summary(metra[0], rows)
    assert out["descriptor"] == "position" and out["reach_m"] == 1.0 and "extra" not in out and "seed" not in out
    assert out["intervals"]["reach_m"] == {"iqm": 1.0, "low": 0.0, "high": 2.0}
    assert out["intervals"]["coverage_fraction_gap"] == {"gap": 0.5, "low": 0.5, "high": 0.5}
    assert "intervals" not in skill_eval.summary(metra[0], rows[:1])


def test_a_ceiling_holds_for_the_length_of_episode_that_it_was_measured_in():
    env = registry.make("point", episode_length=30)
    z = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    rolled = rolled_by_hand(3 * np.linspace(0, 1, 31)[None, :, None] * z[:, None], z)
    assert registry.make_task("point").ceiling_m == {50: 5.0}
    assert "coverage_fraction" not in figures.ground(env, rolled, rolled)
    assert "coverage_fraction" in figures.ground(registry.make("point"), rolled, rolled)


def documented():
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    names = [n for cell in cells for n in re.findall(r"`([^`]+)`", cell)]
    return [re.compile(re.escape(n).replace("<slice>", r"\w+?")) for n in names]


@pytest.mark.slow
def test_every_figure_is_documented_and_every_documented_figure_exists(metra, found, monkeypatch):
    task = metra[0].env.task
    monkeypatch.setattr(type(task), "ceiling_m", {task.episode_length: 1.0})
    learner, state = make("diayn", ("velocity",))
    keys = set(found) | set(train_skills.measure(learner, state, freeze("x", learner, state, {}), rollouts=4))
    model = registry.make_task("ant").model
    rest = feasibility.traces(model, model.qpos0[None], np.zeros((1, model.nv)), np.zeros((1, model.nu)))
    keys |= set(feasibility.effort(model, rest, 0.05, 1.0))
    keys |= set(feasibility.falls(model, rest, np.ones((1, 1), bool), 90.0, None))
    keys |= {"dci_disentanglement", "dci_completeness", "dci_informativeness", "term_safety", "mean_grasped"}
    patterns = documented()
    assert [k for k in keys if not any(p.fullmatch(k) for p in patterns)] == []
    assert [p.pattern for p in patterns if not any(p.fullmatch(k) for k in keys)] == []
