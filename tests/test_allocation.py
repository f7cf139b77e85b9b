"""Task x skill allocation: hand numbers, what the policy reads, plain skills of rows, and a matrix that is learned."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import networks, normalize
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import registry
from repertoire.envs.task import TASK
from repertoire.errors import UserError
from repertoire.experiment.files import read_json
from repertoire.high_level import allocation, frozen
from repertoire.high_level.compose import Compose, ComposeConfig, shares
from repertoire.high_level.macro_env import MacroEnv
from repertoire.scripts import cli, config, inventory, task_eval
from repertoire.skills.adapters import merge
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
TASKS = {"reach": {"reach": 1.0}, "flee": {"reach": -1.0}}
SHARE = ComposeConfig(squash="share")
CONFIG = PPOConfig(envs=4, rollout=4, minibatches=2, hidden=(8,))


@pytest.fixture(scope="module")
def env():
    return registry.make("point_disc", "native", tasks=TASKS)


@pytest.fixture(scope="module")
def skills(make_skill, make_adapter):
    """Adapters of a base that stays where it is: one moves at 0.6 /s times its distance to the disc, one away."""
    drawn, both = make_skill(registry.make_spec("point"), "still", hidden=4), np.concatenate([np.eye(2), -np.eye(2)])
    arrays = {k: np.zeros_like(v) for k, v in drawn.arrays.items()} | {"obs/var": np.ones(2, np.float32)}
    arrays["policy/kernel1"] = both.astype(np.float32)  # of relu: the first hidden units minus the others
    base = Skill({**drawn.manifest, "network": {"hidden": [4], "activation": "relu"}}, arrays)
    still = {"a": jnp.zeros((4, 2)), "b": jnp.zeros((2, 2))}
    sees = jnp.zeros((4, 2)).at[2:].set(jnp.eye(2))  # the disc's offset, after the velocity
    spec = registry.make_spec("point_disc")
    nets = {
        name: {"Dense_0": {"a": sees, "b": 0.3 * sign * jnp.asarray(both.T)}, "Dense_1": still}
        for name, sign in (("to", 1), ("away", -1))
    }
    return tuple(make_adapter(base, spec, name, net=net, rank=2, scale=2.0) for name, net in nets.items())


@pytest.fixture(scope="module")
def learner(env, skills):
    return Learner(MacroEnv(env, Compose(skills, env.spec, SHARE), 5, reads=(TASK,)), CONFIG)


@pytest.fixture(scope="module")
def state(env, learner):
    """As much of a state as is read, with a policy that tells tasks apart."""
    params = jax.tree.map(lambda x: x + jax.random.normal(KEY, x.shape), learner.nets.init(KEY))
    return SimpleNamespace(params=params, obs_stats={"policy": normalize.init(env.spec.obs.size("policy"))})


def test_shares_are_means_over_the_skills_of_a_task():
    rows = shares(jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.2, 0.1, 0.1], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[1, 0, 0], [0.5, 0, 0.5], [0.5, 0.25, 0.25], [0, 0, 0]], rtol=1e-6)


def test_what_is_emitted_are_the_logits_of_skills_that_are_there_or_not(env, skills):
    composer = Compose(skills, env.spec, SHARE)
    logits = jnp.log(jnp.array([0.9 / 0.1, 0.3 / 0.7]))
    row = composer.resolve(logits)
    np.testing.assert_allclose(row, [0.75, 0.25], rtol=1e-5)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(composer.metrics(row)["share_entropy"], entropy, rtol=1e-5)
    obs = jnp.array([0.1, 0.2, 0.5, -0.4, 1.0, 0.0])  # velocity, offset, task
    np.testing.assert_allclose(composer.act(obs, row)[0], 0.6 * 0.5 * obs[2:4], rtol=1e-5, atol=1e-6)


def test_a_policy_reads_what_it_is_told_to(env, learner, state):
    net, size = state.params["policy"]["net"], env.spec.obs.size("policy")
    (kernel, bias), *rest = learner.nets.policy.layers(net)
    assert kernel.shape == (size, 8) and not kernel[:4].any() and kernel[4:].all()
    obs = jax.random.normal(KEY, (5, size))
    want = learner.nets.policy.apply(net, obs)
    np.testing.assert_allclose(networks.apply_layers([(kernel, bias), *rest], obs, "swish"), want, rtol=1e-5, atol=1e-5)
    same = learner.nets.policy.apply(net, obs.at[:, :4].set(0.0))
    np.testing.assert_array_equal(same, want)
    assert learner.nets.value.init(KEY)["Dense_0"]["kernel"].shape[0] == size  # the critic reads all


def test_the_matrix_and_plain_skills_of_its_rows_act_as_the_controller(env, skills, learner, state):
    found = allocation.learned(learner.env, task_eval.trained(learner, state))
    assert list(found) == ["reach", "flee"] and found["reach"] != found["flee"]
    made = frozen.freeze("both", learner, state, {})
    again = frozen.opened(Skill(made.manifest, made.arrays))
    for place, (task, row) in enumerate(found.items()):
        assert list(row) == ["to", "away"] and sum(row.values()) == pytest.approx(1.0)
        plain = merge(skills, list(row.values()), task)
        for obs in jax.random.normal(KEY, (5, 6)).at[:, 4:].set(jnp.eye(2)[place]):
            np.testing.assert_allclose(
                plain.act(obs[:4], jnp.zeros(0)), again.act(obs, jnp.zeros(0)), rtol=1e-4, atol=1e-5
            )
    means = inventory.mean([found, {task: {"to": 0.0, "away": 1.0} for task in found}])
    assert means["flee"]["to"] == pytest.approx(found["flee"]["to"] / 2)


def test_what_reads_more_than_the_task_is_no_matrix(env, skills):
    for reads in ((), (TASK, "velocity")):
        macro = MacroEnv(env, Compose(skills, env.spec, SHARE), 5, reads=reads)
        assert allocation.learned(macro, lambda key, state: jnp.zeros(2)) == {}
    assert allocation.learned(env, lambda key, state: jnp.zeros(2)) == {}


def test_what_cannot_be_read_says_so(env, skills):
    alone = registry.make("point_disc", "native")
    with pytest.raises(UserError, match=r"env point_disc has one task: give it several, env\.tasks="):
        MacroEnv(alone, Compose(skills, alone.spec, SHARE), 5, reads=(TASK,))
    with pytest.raises(
        UserError, match=r"policy slice of env point_disc in controller\.reads 'taks': did you mean 'task'"
    ):
        MacroEnv(env, Compose(skills, env.spec, SHARE), 5, reads=("taks",))


def test_tasks_are_written_in_one_piece_or_term_by_term():
    said = (
        ["env.tasks={reach:{reach:1.0},flee:{reach:-1.0}}"],
        [f"env.tasks.{n}.reach={TASKS[n]['reach']}" for n in TASKS],
    )
    assert [config.compose("train", ["env=point_disc", *s])["env"]["tasks"] for s in said] == [TASKS, TASKS]


def test_the_preset_is_a_setting_of_compose():
    chosen, plain = (
        config.compose("train_controller", [f"controller={kind}"])["controller"] for kind in ("allocate", "compose")
    )
    assert (chosen["squash"], chosen["reads"]) == ("share", [TASK]) and plain["reads"] is None


@pytest.mark.slow
def test_each_task_is_given_its_skill(tmp_path, monkeypatch, skills):
    """From the command line: the matrix of tasks whose skills are known, its picture, its entries, its export."""
    monkeypatch.chdir(tmp_path)
    library = Library("library")
    before = {library.add(skill): skill.digest() for skill in skills}
    tasks = ["task=point_disc", "env.tasks={reach:{reach:1.0},flee:{reach:-1.0}}", "skills=[to,away]"]
    small = ["total_steps=80000", "eval_every=0", "video=false", "logging.quiet=true", "run_dir=run"]
    cli.main(["train-controller", *tasks, "controller=allocate", *small])
    found = read_json(Path("run/evaluation.json"))
    rows = found["allocation"]
    assert rows["reach"]["to"] > 0.6 and rows["flee"]["away"] > 0.6, rows  # about 0.7 and 0.8; it begins at a half
    rules = found["rules"]
    assert all(rules["trained"][k] > rules["random"][k] for k in ("return_reach", "return_flee"))
    assert Path("run/plots/allocation.png").exists()
    assert {reference: library.load(reference).digest() for reference in before} == before
    done = read_json(Path("run/done.json"))
    assert done["tasks"] == ["point_disc-allocate-reach@1", "point_disc-allocate-flee@1"]
    plain = library.load("point_disc-allocate-reach")
    towards = plain.act(jnp.array([0.0, 0.0, 0.5, 0.0]), jnp.zeros(0))
    assert float(towards[0]) > 0.05 and plain.manifest["metrics"]["return"] == rules["trained"]["return_reach"]
    cli.main(["export", "run=run", "--check"])
    parity = read_json(Path("run/export/parity.json"))
    assert parity["passed"]
