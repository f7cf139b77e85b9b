"""An inventory of adapters trained with its task x adapter matrix: known answers, entries, resume, export, learning."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repertoire.algos import networks, normalize, ppo, trainer
from repertoire.algos.adapter import Adapter
from repertoire.algos.inventory import Inventory
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.deploy.graph import inventory_graph
from repertoire.envs import registry
from repertoire.envs.task import TASK
from repertoire.errors import UserError
from repertoire.experiment import checkpoints
from repertoire.experiment.files import read_json
from repertoire.high_level.blend import Blend
from repertoire.high_level.compose import Compose, ComposeConfig
from repertoire.scripts import build, cli, config, inventory, pinning, task_eval
from repertoire.skills.adapters import adapt, factors, freeze_one, merge, several
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
TASKS = {"reach": {"reach": 1.0, "safety": 0.0}, "flee": {"reach": -1.0, "safety": 0.0}}
SAID = [f"env.tasks.{name}.{term}={weight}" for name, row in TASKS.items() for term, weight in row.items()]
LATENT, COUNT = (0.6, 0.8), 3
CONFIG = PPOConfig(envs=8, rollout=4, minibatches=2, epochs=1)


@pytest.fixture(scope="module")
def env():
    return registry.make("point_disc", "native", tasks=TASKS)


@pytest.fixture(scope="module")
def base(make_skill):
    return make_skill(registry.make_spec("point"), "base", seed=1)


@pytest.fixture(scope="module")
def adapter(env, base):
    return several(adapt(base, env.spec, LATENT, rank=2, scale=3.0), env.spec, COUNT, 30.0)


@pytest.fixture(scope="module")
def learner(env, adapter):
    return Learner(env, CONFIG, adapter=adapter)


@pytest.fixture(scope="module")
def net(learner):
    """Parameters of a policy that has learned something, whatever it is."""
    fresh = learner.nets.init(KEY)["policy"]["net"]
    return jax.tree.map(lambda x: x + 0.5 * jax.random.normal(KEY, x.shape), fresh)


@pytest.fixture(scope="module")
def state(env, learner, net):
    """As much of a state as freezing and acting read."""
    stats = learner.adapter.statistics(normalize.init(env.spec.obs.size("policy")))
    return SimpleNamespace(params={"policy": {"net": net, "head": {}}}, obs_stats={"policy": stats})


@pytest.fixture(scope="module")
def entries(learner, state):
    return [freeze_one(f"joint-{i}", learner, state, i, {"run": "r"}) for i in range(COUNT)]


def observations(count, task):
    """Drawn observations [count, 6] of velocity and offset, of one of the two tasks."""
    return jax.random.normal(KEY, (count, 6)).at[:, 4:].set(jnp.eye(2)[task])


def close(got, want, size=1.0):
    np.testing.assert_allclose(got, want, rtol=1e-4 * size, atol=1e-5 * size)


def test_a_row_of_one_adapter_is_that_adapter(learner, adapter, net):
    sure = {**net, "logits": 50.0 * (2 * jnp.eye(COUNT)[jnp.array([2, 0])] - 1)}
    np.testing.assert_allclose(adapter.rows(sure), [[0, 0, 1], [1, 0, 0]], atol=1e-6)
    for task, index in ((0, 2), (1, 0)):
        obs = observations(5, task)
        close(learner.nets.policy.apply(sure, obs), adapter.alone.network().apply(adapter.one(net, index), obs[:, :4]))


def test_a_row_is_the_mean_of_adapters_that_are_there_and_adds_their_changes_up(learner, adapter, net):
    odds = jnp.log(jnp.array([[0.9 / 0.1, 0.3 / 0.7, 0.3 / 0.7], [1.0, 1.0, 1.0]]))
    told = {**net, "logits": odds}
    np.testing.assert_allclose(adapter.rows(told), [[0.6, 0.2, 0.2], [1 / 3] * 3], rtol=1e-5)
    layers = []
    for i, (kernel, bias) in enumerate(adapter.alone.layers):
        own = net["adapters"][f"Dense_{i}"]
        layers.append((kernel + sum(c * 3.0 * a @ b for c, a, b in zip((0.6, 0.2, 0.2), own["a"], own["b"])), bias))
    obs = observations(5, 0)
    close(learner.nets.policy.apply(told, obs), networks.apply_layers(layers, obs[:, :4], "tanh"))


def test_an_untrained_inventory_is_its_base_whatever_the_task_and_no_two_adapters_are_alike(env, base, learner, state):
    fresh = learner.nets.init(KEY)["policy"]["net"]
    rule = task_eval.trained(learner, SimpleNamespace(params={"policy": {"net": fresh}}, obs_stats=state.obs_stats))
    for task in (0, 1):
        for obs in observations(3, task):
            want = base.act(obs[:2], jnp.asarray(LATENT))
            close(rule(KEY, SimpleNamespace(obs={"policy": obs})), want)
    for layer in fresh["adapters"].values():
        assert not layer["b"].any() and (layer["a"][0] != layer["a"][1]).all()
    assert len(np.unique(fresh["logits"])) == 2 * COUNT  # with equal rows opposite tasks would cancel out


def test_gradients_reach_the_logits_as_soon_as_an_adapter_does_something(learner, net):
    obs, batch = jnp.concatenate([observations(4, 0), observations(4, 1)]), jax.random.normal(KEY, (8, 2))
    good = jnp.array([1.0] * 4 + [-1.0] * 4)

    def gradient(net):
        params = {"policy": {"net": net, "head": learner.nets.head.extra()}, "value": learner.nets.init(KEY)["value"]}
        told = learner.nets.head.log_prob(batch, learner.nets.policy.apply(net, obs), params["policy"]["head"])
        data = ppo.Batch(obs, obs, batch, told, good, jnp.zeros((8, 1)))
        return jax.grad(lambda p: ppo.loss(p, learner.nets, data, CONFIG)[0])(params)["policy"]["net"]

    first, later = gradient(learner.nets.init(KEY)["policy"]["net"]), gradient(net)
    assert not first["logits"].any() and (jnp.abs(later["logits"]) > 1e-6).all()
    b = first["adapters"]["Dense_1"]["b"]
    assert b.any() and not np.allclose(b[0], b[1])


def test_the_matrix_learns_at_a_rate_of_its_own(learner, adapter):
    params = learner.nets.init(KEY)
    tool = adapter.optimizer(optax.scale_by_adam(eps=0.0))
    steps, _ = tool.update(jax.tree.map(jnp.ones_like, params), tool.init(params), params)
    faster = steps["policy"]["net"].pop("logits")
    np.testing.assert_allclose(faster, 30.0, rtol=1e-5)
    assert all(np.allclose(x, 1.0) for x in jax.tree.leaves(steps))


def test_adapters_are_skills_that_no_task_is_told(env, base, adapter, net, entries):
    assert [s.slices for s in entries] == [("velocity", "disc_offset")] * COUNT
    assert entries[0].manifest["adapter"] == {**adapter.origin, "rank": 2, "scale": 3.0}
    assert adapter.origin["digest"] == base.digest()
    for i, own in enumerate(entries):
        np.testing.assert_array_equal(factors(own)[0].a, net["adapters"]["Dense_0"]["a"][i])
        np.testing.assert_array_equal(factors(own)[1].kernel, base.arrays["policy/kernel1"])
        np.testing.assert_array_equal(own.arrays["obs/mean"][:2], base.arrays["obs/mean"])
    alone = registry.make_spec("point_disc")
    entries[0].fits(alone)
    blend = Blend((entries[0], entries[1]), alone)
    assert blend.act(jnp.ones(4), blend.resolve(blend.zero()))[0].shape == (2,)


def test_skills_of_rows_and_the_exported_graph_act_as_the_policy(env, learner, adapter, state, entries):
    rows, rule = np.asarray(adapter.rows(state.params["policy"]["net"])), task_eval.trained(learner, state)
    graph = inventory_graph(Compose(entries, env.spec), rows)
    assert graph.inputs == {"obs": 6} and graph.slices[-1] == TASK
    allotted = Compose(entries, env.spec, ComposeConfig(squash="share"))
    for task, row in enumerate(rows):
        plain = merge(entries, row.tolist(), "plain")
        assert TASK not in plain.slices
        for obs in observations(4, task):
            want = rule(KEY, SimpleNamespace(obs={"policy": obs}))
            close(plain.act(obs[:4], jnp.zeros(0)), want)
            close(graph.row(obs)["action"], jnp.clip(want, -1, 1))
            held = allotted.resolve(state.params["policy"]["net"]["logits"][task])  # by `allocate`, the same
            close(allotted.act(obs, held)[0], want)


def test_matrices_of_seeds_stand_side_by_side(env, learner, state):
    two = SimpleNamespace(config={"num_seeds": 2, "seed": 5})
    both = jax.tree.map(lambda x: jnp.stack([x, 0 * x]), vars(state))
    found = inventory.matrices(two, learner, _Seeds(both))
    table = inventory.mean(found)
    assert list(table) == ["reach", "flee"] and list(table["flee"]) == [f"{i}-s{s}" for s in (5, 6) for i in range(3)]
    assert table["flee"]["1-s5"] == found[0]["flee"]["1-s5"] and table["reach"]["2-s6"] == pytest.approx(1 / 3)


@jax.tree_util.register_pytree_node_class
class _Seeds(SimpleNamespace):
    """A state of several seeds, as `trainer.seed_state` cuts it."""

    def __init__(self, fields):
        super().__init__(**fields)

    def tree_flatten(self):
        return (vars(self),), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children)


def test_settings_of_an_inventory(tmp_path, env, base, learner, state):
    library = Library(tmp_path)
    library.add(base)
    config = {"library": tmp_path, "adapter": {"base": "base", "latent": None, "rank": 4, "scale": 1.0}}

    def made(env=env, algo="ppo", **changes):
        return build.adapter_of({**config, "adapter": {**config["adapter"], **changes}}, env, algo)

    found = made(count=4, matrix_lr=10)
    assert (found.count, found.matrix_lr, found.task.tolist()) == (4, 10.0, [4, 5])
    assert type(made()) is type(made(count=1, matrix_lr=30.0)) is Adapter and isinstance(found, Inventory)
    with pytest.raises(UserError, match=r"adapter\.count must be at least 1, got 0"):
        made(count=0, matrix_lr=1.0)
    with pytest.raises(UserError, match=r"adapter\.count must be a whole number, got 1.5"):
        made(count=1.5)
    with pytest.raises(UserError, match=r"adapter\.matrix_lr must be positive, got -1"):
        made(count=2, matrix_lr=-1)
    with pytest.raises(UserError, match=r"adapter\.matrix_lr must be a number, got 'fast'"):
        made(count=2, matrix_lr="fast")
    with pytest.raises(UserError, match=r"adapter\.count needs adapter\.base"):
        made(base=None, count=2)
    with pytest.raises(UserError, match="adapters are trained with algo=ppo, not with algo=sac"):
        made(algo="sac", count=2, matrix_lr=1.0)
    with pytest.raises(UserError, match=r"adapter\.count=2 is for several tasks, and env point_disc has one"):
        made(registry.make("point_disc", "native"), count=2, matrix_lr=1.0)
    numbered = registry.make("point_disc", "native", tasks={"1": {"reach": 1.0}, "2": {"reach": -1.0}})
    with pytest.raises(UserError, match="a task called '1' cannot be told from adapter 1"):
        made(numbered, count=2, matrix_lr=1.0)


def test_a_base_that_reads_the_task_is_refused(env, make_skill):
    reads = make_skill(env.spec, "reads")
    with pytest.raises(UserError, match="reads reads the slice 'task' itself"):
        several(adapt(reads, env.spec), env.spec, 2, 1.0)


def test_runs_of_one_adapter_are_kept_as_they_were(tmp_path, base):
    library = Library(tmp_path)
    library.add(base)

    def kept(*more):
        said = config.compose("train", ["env=point_disc", "adapter.base=base", f"library={tmp_path}", *more])
        return pinning.pinned(said, "train")["adapter"]

    assert kept() == {"base": "base@1", "latent": None, "rank": 8, "scale": 2.0}
    assert kept("adapter.count=3") == {**kept(), "count": 3, "matrix_lr": 30.0}


@pytest.mark.slow
def test_resumed_from_a_checkpoint_it_goes_on_bit_for_bit(tmp_path, base, learner):
    before, compiled = base.digest(), trainer.programs(learner)
    for event in trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 4):
        if event.update == 2:
            checkpoints.save(tmp_path, 2, event.state)
    template = jax.eval_shape(compiled.init, trainer.seed_keys(0))
    _, half = checkpoints.restore_latest(tmp_path, template)
    *_, again = trainer.train(compiled, half, 4)
    for x, y in zip(jax.tree.leaves(event.state), jax.tree.leaves(again.state), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)
    assert 0 < event.metrics["policy/share_entropy"] <= np.log(COUNT)
    stats = event.state.obs_stats["policy"]
    np.testing.assert_array_equal(stats.mean[:2], base.arrays["obs/mean"])  # the base's own stand still
    np.testing.assert_array_equal((stats.mean[4:], stats.var[4:]), [[0, 0], [1, 1]])  # the task stays one-hot
    assert base.digest() == before


@pytest.mark.slow
def test_opposite_tasks_are_learned_side_by_side(tmp_path, monkeypatch, env, make_skill):
    """From the command line: both tasks become better than a base that hardly moves, by rows that differ."""
    monkeypatch.chdir(tmp_path)
    library, drawn = Library("library"), make_skill(registry.make_spec("point"), "base", seed=1, hidden=32)
    slow = {k: 0.1 * drawn.arrays[k] for k in ("policy/kernel1", "policy/bias1")}
    library.add(base := Skill(drawn.manifest, {**drawn.arrays, **slow}))
    small = ["total_steps=60000", "eval_every=0", "video=false", "logging.quiet=true", "run_dir=run"]
    soon = ["algo.lr=3e-3", "algo.gamma=0.9"]  # what pays soon is learned soon
    cli.main(["train", "env=point_disc", *SAID, "adapter.base=base", "adapter.count=2", "name=joint", *small, *soon])
    found, done = read_json(Path("run/evaluation.json")), read_json(Path("run/done.json"))
    rows, returns = found["allocation"], found["rules"]["trained"]
    assert abs(rows["reach"]["0"] - rows["flee"]["0"]) > 0.5, rows  # six seeds: 0.95 to 0.98
    still = base.prior.project(jnp.zeros(2))
    floor = task_eval.summary(
        task_eval.episodes(env, lambda key, s: base.act(s.obs["policy"][:2], still), jax.random.key(1000), 64)
    )
    gained = {task: returns[f"return_{task}"] - floor[f"return_{task}"] for task in TASKS}
    assert gained["reach"] > 10 and gained["flee"] > 30, gained  # six seeds: 17 to 29 and 56 to 97, of 40 and no end
    assert Path("run/plots/allocation.png").exists()
    assert library.load("base").digest() == base.digest()
    assert done["skills"] == ["joint-0@1", "joint-1@1"] and done["tasks"] == ["joint-reach@1", "joint-flee@1"]
    plain = library.load("joint-flee")
    assert plain.manifest["metrics"]["return"] == returns["return_flee"] and TASK not in plain.slices
    np.testing.assert_array_equal(factors(library.load("joint-1"))[0].kernel[:2], base.arrays["policy/kernel0"][:2])
    cli.main(["export", "run=run", "--check"])
    assert read_json(Path("run/export/parity.json"))["passed"]
    cli.main(["evaluate", "run=run"])
    assert read_json(Path("run/evaluation.json"))["allocation"] == rows
