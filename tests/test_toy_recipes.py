"""What each objective must do to the smallest worlds (research 8.2), learned here in seconds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import normalize, trainer
from repertoire.scripts import build, config, skill_eval

REACH = 5.0  # m: 50 steps of 0.1 m along an axis; sqrt(2) times as much along a diagonal

pytestmark = pytest.mark.slow


@functools.cache
def trained(*settings):
    """(learner, state, metrics of the last update) of a short run on the point."""
    cfg = config.compose("train_skills", ["env=point", *settings])
    build.prepare(cfg)
    learner = build.learner_of("train-skills", cfg)
    programs = trainer.programs(learner)
    state = programs.init(trainer.seed_keys(cfg["seed"]))
    for event in trainer.train(programs, state, learner.total_updates):
        state, metrics = event.state, event.metrics
    return learner, state, metrics


def endpoints(learner, state, z):
    """[K, 2] displacement over an episode of each latent."""
    rolled = skill_eval.roller(learner)(state, z, jax.random.key(0))
    return rolled.positions[:, -1] - rolled.positions[:, 0]


METRA = ("objective=metra", "objective.features=[position]", "total_steps=320000")
LSD = ("objective=lsd", "objective.features=[position]", "objective.prior=sphere", "total_steps=480000")
DIAYN = ("objective=diayn", "objective.features=[position]", "objective.skills=4", "objective.mask=5", "env.smooth={}",
         "total_steps=320000")  # fmt: skip


def directions(ends):
    return np.arctan2(ends[:, 1], ends[:, 0])


def test_metra_runs_along_rays_in_evenly_spread_directions_to_the_maximum_reach():
    learner, state, _ = trained(*METRA)
    ends = endpoints(learner, state, learner.prior.spread(16))
    assert np.linalg.norm(ends, axis=1).mean() > 0.9 * REACH
    angles = np.sort(directions(ends))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    assert gaps.max() < 3 * 2 * np.pi / 16, np.degrees(gaps)


def test_lsd_prefers_the_corners_of_the_action_box():
    """Predicted: METRA's rays. But LSD pays for Euclidean distance, and full action on both axes is sqrt(2) faster."""
    learner, state, _ = trained(*LSD)
    ends = endpoints(learner, state, learner.prior.spread(16))
    assert np.linalg.norm(ends, axis=1).mean() > 1.1 * REACH
    off_diagonal = np.abs(directions(ends) % (np.pi / 2) - np.pi / 4)
    assert np.median(off_diagonal) < np.radians(15), np.degrees(off_diagonal)  # 22.5 if spread evenly


def test_metra_return_is_near_its_ceiling():
    """The mean form bounds the encoder's step by sqrt(D) and so the reward of a unit latent.

    The policy as it is deployed, without noise, from when it is at speed. Predicted: 0.9 of the ceiling.
    """
    learner, state, metrics = trained(*METRA)
    z = learner.prior.spread(16)
    rolled = skill_eval.roller(learner)(state, z, jax.random.key(0))
    seen = normalize.apply(state.feature_stats, rolled.features[..., learner.feature_index], clip=None)
    steps = np.diff(learner.objective.encode(state.objective, seen), axis=1)[:, 5:]
    along = (steps * z[:, None]).sum(-1)
    assert 0.9 < along.mean() / np.sqrt(2) < 1.05, along.mean() / np.sqrt(2)
    assert float(jnp.linalg.norm(steps, axis=-1).max()) < 1.15 * np.sqrt(2)  # the bound is kept on the whole way
    assert metrics["reward/metra"] > 0.75 * np.sqrt(2)


def test_diayn_tells_its_skills_apart_and_earns_log_k():
    learner, state, metrics = trained(*DIAYN)
    assert metrics["diayn/accuracy"] > 0.95
    assert metrics["reward/diayn"] > 0.85 * np.log(4)
    ends = endpoints(learner, state, learner.prior.spread(4))
    apart = np.linalg.norm(ends[:, None] - ends[None], axis=-1)[~np.eye(4, dtype=bool)]
    assert apart.min() > 0.5


def test_a_switched_skill_shows_within_a_few_steps():
    """The latent turns round every quarter of an episode (D3's lock-in test): the old direction must not stick."""
    learner, state, _ = trained(*METRA)
    env, nets = learner.env, learner.nets
    params, stats = state.params["policy"], state.obs_stats["policy"]
    z = jnp.asarray(learner.prior.spread(8))

    @jax.jit
    def velocities(z):
        def step(world, t):
            latent = jnp.where(t // 12 % 2 == 0, z, -z)
            x = jnp.concatenate([normalize.apply(stats, world.obs["policy"]), latent], axis=-1)
            world = jax.vmap(env.step)(world, nets.head.mode(nets.policy.apply(params["net"], x)))
            return world, world.data.qvel

        return jax.lax.scan(step, jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 8)), jnp.arange(48))[1]

    v = velocities(z).reshape(4, 12, 8, 2)[:, 3:9].mean(1)  # of each quarter, from its third step on
    unit = v / jnp.linalg.norm(v, axis=-1, keepdims=True)
    cosine = jnp.sum(unit[1:] * unit[:-1], -1)
    assert float(cosine.max()) < -0.8, cosine


def figures(*settings):
    learner, state, _ = trained(*settings)
    z = learner.prior.spread(48)
    rolled = skill_eval.roller(learner)(state, z, jax.random.key(0))
    return skill_eval.skill_figures(learner, rolled, state)


def test_csd_moves_the_disc_and_metra_goes_around_it():
    """What is rare is far under CSD's distance; to METRA a disc in the way is time lost (comparison=disc: 5 seeds)."""
    disc = ("env.disc=true", "objective.features=[position,disc]", "algo.init_log_std=0.0", "total_steps=600000")
    csd, metra = (figures(f"objective={name}", *disc)["coverage_disc_cells"] for name in ("csd", "metra"))
    assert csd > 3 * metra, (csd, metra)


def test_a_fast_coordinate_that_means_nothing_draws_csd_as_well_as_lsd():
    """Predicted: LSD alone spends its skills there. It has an action of its own and costs nothing, so both do."""
    fast = ("env.nuisance=true", "objective.features=[position,nuisance]", "objective.standardise=false",
            "total_steps=400000")  # fmt: skip
    lsd, csd = (figures(f"objective={name}", *fast) for name in ("lsd", "csd"))
    assert min(lsd["coverage_nuisance_cells"], csd["coverage_nuisance_cells"]) > 90  # of 102
    assert min(lsd["coverage_cells"], csd["coverage_cells"]) > 2 * 8  # random actions: 8
