"""Imitation in stages: a hand-made expert on a point is learned; who leads; what is frozen; the verb, end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import guided, trainer
from repertoire.algos.dagger import DAggerConfig
from repertoire.algos.imitation import Imitator
from repertoire.algos.normalize import apply
from repertoire.envs import registry
from repertoire.envs.expert import Expert
from repertoire.envs.tasks.point import PointDisc
from repertoire.errors import UserError
from repertoire.experiment.files import read_json
from repertoire.high_level import frozen
from repertoire.scripts import cli, stage_eval
from repertoire.skills.adapters import freeze_policy
from repertoire.skills.library import Library

KEY = jax.random.key(0)
CONFIG = DAggerConfig(
    envs=16, rollout=25, steps=32, batch=64, capacity=2048, lr=3e-3, patience=30, linger=5, noise=0.05, hidden=(32,)
)
UPDATES = 40
#: Where the disc should lie from the point at the end of each stage, m.
PLACES = jnp.array([[1.0, -0.4], [1.4, 0.3]])


def act(state, stage):
    """One stage after the other, each until the point is within 5 cm of where it should be."""
    offset = state.obs["policy"][-2:]
    stage = stage + ((stage < 2) & (jnp.linalg.norm(offset - PLACES[jnp.minimum(stage, 1)]) < 0.05))
    return stage, stage, 3.0 * (offset - PLACES[jnp.minimum(stage, 1)])


EXPERT = Expert(("up", "down"), lambda: jnp.zeros((), jnp.int32), act)


@pytest.fixture(scope="module")
def learner():
    return Imitator(registry.make("point_disc"), EXPERT, CONFIG, UPDATES)


@pytest.fixture(scope="module")
def compiled(learner):
    return trainer.programs(learner)


@pytest.fixture(scope="module")
def trained(compiled):
    """(state, metrics of every update)."""
    events = []
    for event in trainer.train(compiled, compiled.init(trainer.seed_keys(0)), UPDATES):
        state = event.state
        events.append(event.metrics)
    return state, events


# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["env=point"], "env point has no expert to imitate; there is one for: .*panda_reach"),
        (["env=panda_scene", "env.control_mode=joint"], "scripts drive env.control_mode=ee_delta"),
        (["env=panda_reach", "dagger.capacity=100"], "dagger.capacity must be at least"),
        (["env=panda_reach", "dagger.warmup=0.6"], "warmup <= decay"),
        (["env=panda_reach", "dagger.beta=2"], r"dagger.beta must lie in \[0, 1\]"),
        (["env=panda_reach", "dagger.envz=2"], "did you mean 'dagger.envs'"),
        (["env=panda_reach", "channels.a={terms:[reach]}"], "imitate has none"),
    ],
)
def test_what_cannot_be_imitated_is_said_in_one_line(settings, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        cli.main(["imitate", *settings, "logging.quiet=true"])
    text = capsys.readouterr().err
    assert error.value.code == 2 and text.count("\n") == 1
    with pytest.raises(UserError, match=message):
        raise UserError(text)
    assert not (tmp_path / "runs").exists()


# -- learning -------------------------------------------------------------------------------------------------------


def test_the_policies_do_what_the_expert_would(learner, trained):
    state, events = trained
    assert events[0]["loss/value"] > 0.3 and events[-1]["loss/value"] < 0.01
    assert events[0]["learner/led"] == 0.0 and events[-1]["learner/led"] > 0.8
    found = stage_eval.figures(learner, state, KEY, 16)
    assert found["done_up"] == found["done_down"] == 1.0
    assert max(found["loss_up"], found["loss_down"]) < 0.02


def test_the_normaliser_is_of_the_round_of_the_expert(learner, compiled, trained):
    state, warm = trained[0], round(CONFIG.warmup * UPDATES)
    assert float(state.obs_stats["policy"].count) == pytest.approx(warm * 16 * 25, rel=1e-5)
    assert float(learner.stats(state).var.min()) >= 1e-3


def test_the_same_seed_gives_the_same_bits(compiled):
    def run():
        events = trainer.train(compiled, compiled.init(trainer.seed_keys(3)), 3)
        return [jax.tree.map(np.asarray, e.state.params) for e in events][-1]

    jax.tree.map(np.testing.assert_array_equal, run(), run())


def test_the_expert_leads_alone_first_and_then_less_and_less(learner):
    shares = [float(learner.expert_share(jnp.asarray(i))) for i in (0, 3, 4, 12, 20, 40)]
    np.testing.assert_allclose(shares, [1.0, 1.0, 1.0, 0.55, 0.1, 0.1], atol=1e-6)


# -- who leads ------------------------------------------------------------------------------------------------------


def rolled(env, lead, steps, policies=lambda obs: jnp.zeros((2, len(obs), 2))):
    @jax.jit
    def run(key):
        return guided.roll(env, EXPERT, policies, guided.begin(env, EXPERT, key, 4), key, steps, lead)

    carry, (batch, _) = run(KEY)
    return carry, jax.tree.map(np.asarray, batch)


def test_under_the_expert_all_stages_come_and_episodes_begin_anew(learner):
    carry, batch = rolled(learner.env, guided.Lead(1.0, patience=5, linger=3), 50)
    assert not batch.led.any() and float(carry.tried.sum()) == 0.0
    world, stage = batch.cut[:, 0], batch.stage[:, 0]
    assert stage[0] == 0 and (np.diff(stage[: world.argmax()]) >= 0).all() and stage[world.argmax()] == 1
    assert world.any() and stage[world.argmax() + 1] == 0
    offset, goal = batch.row.obs[..., -2:], np.asarray(PLACES)[batch.stage]
    np.testing.assert_allclose(batch.row.action, np.clip(3 * (offset - goal), -1, 1), atol=1e-5)
    np.testing.assert_allclose(
        batch.error, np.square(batch.row.action).sum(-1), rtol=1e-5
    )  # of policies that do nothing


def test_a_learner_that_gets_nowhere_is_relieved(learner):
    carry, batch = rolled(learner.env, guided.Lead(0.0, patience=7, linger=3), 8)
    assert batch.led[:7].all() and not batch.led[7].any() and not batch.stage.any()
    np.testing.assert_array_equal(carry.tried, [4.0, 0.0])
    np.testing.assert_array_equal(carry.done, [0.0, 0.0])


def test_an_attempt_that_the_episode_cuts_off_was_in_vain(learner):
    env = registry.make("point_disc", episode_length=5)
    carry, batch = rolled(env, guided.Lead(0.0, patience=100, linger=3), 12)
    np.testing.assert_array_equal(batch.cut.sum(0), [2, 2, 2, 2])
    np.testing.assert_array_equal(carry.tried, [8.0, 0.0])  # two episodes in four worlds; the third goes on
    np.testing.assert_array_equal(carry.done, [0.0, 0.0])
    assert Imitator(env, EXPERT, CONFIG).patience == 2 and learner.patience == 25  # half an episode


# -- frozen ---------------------------------------------------------------------------------------------------------


def test_a_frozen_stage_acts_as_the_learner_did(learner, trained, tmp_path):
    state = trained[0]
    obs = jax.random.normal(KEY, (5, learner.env.spec.obs.size("policy")))
    wanted = learner.actions(state.params["policy"]["net"], learner.stats(state), obs)
    for i, stage in enumerate(learner.stages):
        reference = Library(tmp_path).add(freeze_policy(stage, learner, learner.stage_state(state, i), {}))
        skill = frozen.load(Library(tmp_path), reference)
        skill.fits(learner.env.spec)
        assert skill.prior.size == 0
        found = [skill.act(o, jnp.zeros(0)) for o in obs]
        np.testing.assert_allclose(np.stack(found), wanted[i], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(apply(learner.stats(state), obs)).max()) <= 10.0


# -- the verb -------------------------------------------------------------------------------------------------------

IMITATE = ["imitate", "env=point_disc", "dagger.envs=4", "dagger.rollout=25", "dagger.steps=4", "dagger.batch=16",
           "dagger.capacity=256", "dagger.hidden=[8]", "dagger.patience=20", "total_steps=400", "video=false",
           "eval_every=0", "logging.quiet=true", "run_dir=run"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of the verb and its skills."""
    folder = tmp_path_factory.mktemp("imitate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(PointDisc, "expert", lambda self: EXPERT)
        cli.main(IMITATE)
        yield folder


@pytest.mark.slow
def test_the_verb_trains_evaluates_and_freezes(place, capsys):
    found = read_json(place / "run" / "evaluation.json")
    assert set(found["rules"]) == {"trained", "expert", "random"} and len(found["seeds"]) == 1
    assert {"done_up", "done_down", "loss_up", "loss_down"} <= set(found["seeds"][0])
    assert read_json(place / "run" / "done.json")["skills"] == ["point_disc-up@1", "point_disc-down@1"]
    manifest = Library(place / "library").load("point_disc-down").manifest
    assert manifest["metrics"] == {k: found["seeds"][0][f"{k}_down"] for k in ("done", "loss")}
    assert manifest["provenance"]["env_steps"] == 400
    before = (place / "run" / "checkpoints").stat().st_mtime_ns
    cli.main(IMITATE)  # resumes a finished run: nothing more to train, the same entries
    assert (place / "run" / "checkpoints").stat().st_mtime_ns == before
    assert "point_disc-up@1" in capsys.readouterr().out


@pytest.mark.slow
def test_the_run_serves_other_verbs(place, capsys):
    found = read_json(place / "run" / "evaluation.json")
    cli.main(["evaluate", "run=run"])
    again = read_json(place / "run" / "evaluation.json")
    assert again["return"] == pytest.approx(found["return"], rel=1e-4, abs=1e-4)
    cli.main(["rollout", "run=run", "policy=expert", "count=1"])
    assert (place / "run" / "plots" / "paths-expert.png").exists()
    cli.main(["report", "runs=[run]", "out=page.html"])
    assert (place / "page.html").exists() and "expert" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        cli.main(["export", "run=run"])
    assert error.value.code == 2 and "train-controller" in capsys.readouterr().err


@pytest.mark.slow
def test_controllers_choose_from_the_stages(place):
    skills = ["task=point_disc", "skills=[point_disc-up,point_disc-down]", "video=false", "logging.quiet=true"]
    cli.main(["train-controller", *skills, "controller.mode=choice", "controller.hold=5", "algo.envs=4",
              "algo.rollout=4", "algo.minibatches=2", "algo.hidden=[8]", "total_steps=80", "eval_every=0",
              "run_dir=choice"])  # fmt: skip
    assert read_json(place / "choice" / "done.json")["skills"] == ["point_disc-sequence@1"]
    stages = "controller.script=[{choice:0,until:{slice:velocity,below:0.01},steps:4},{choice:1}]"
    cli.main(["train-controller", *skills, "controller=script", stages, "controller.hold=5", "controller.episodes=2",
              "run_dir=script"])  # fmt: skip
    assert set(read_json(place / "script" / "evaluation.json")["rules"]) == {"script", "random"}
