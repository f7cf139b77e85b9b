"""Low-rank adapters of a frozen policy: known answers, training, the library (research hierarchy 3.1)."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import distributions, networks, normalize
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import frozen
from repertoire.high_level.blend import Blend
from repertoire.high_level.macro_env import MacroEnv
from repertoire.scripts import build, cli, pinning, task_eval
from repertoire.skills.adapters import adapt, factors, freeze_policy, merge, one_base
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
CONFIG = PPOConfig(envs=32, rollout=32, minibatches=4, hidden=(3,), activation="elu", lr=3e-3)
LATENT = (0.6, 0.8)


@pytest.fixture(scope="module")
def env():
    return registry.make("point_maze", radius=5.0, hold=True)  # where the base begins, but does not stay


@pytest.fixture(scope="module")
def base(make_skill):
    return make_skill(registry.make_spec("point"), "base", seed=1)


@pytest.fixture(scope="module")
def learner(env, base):
    return Learner(env, CONFIG, adapter=adapt(base, env.spec, LATENT, rank=2, scale=3.0))


@pytest.fixture(scope="module")
def state(env, learner):
    """As much of a state as freezing reads, with an adapter that has changed."""
    net = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(KEY, x.shape), learner.nets.init(KEY)["policy"]["net"])
    stats = learner.adapter.statistics(normalize.init(env.spec.obs.size("policy")))
    return SimpleNamespace(params={"policy": {"net": net, "head": {}}}, obs_stats={"policy": stats})


@pytest.fixture(scope="module")
def entry(learner, state):
    return freeze_policy("adapted", learner, state, {"run": "r"})


def of_base(env, base, obs):
    """What the base does for an observation of the task."""
    return base.act(obs[env.spec.obs.index("policy", base.slices)], jnp.asarray(LATENT))


def test_a_change_is_scale_times_a_times_b():
    base = [(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.5, 0.0])), (jnp.ones((2, 1)), jnp.zeros(1))]
    net = networks.low_rank(base, rank=1, scale=10.0, activation="relu")
    first = {"a": jnp.array([[1.0], [0.0]]), "b": jnp.array([[0.0, 0.1]])}
    params = {"Dense_0": first, "Dense_1": {"a": jnp.zeros((2, 1)), "b": jnp.ones((1, 1))}}
    np.testing.assert_allclose(net.layers(params)[0][0], [[1.0, 3.0], [3.0, 4.0]])
    np.testing.assert_allclose(net.apply(params, jnp.array([1.0, -1.0])), [0.0])  # relu of -1.5 and -1
    np.testing.assert_allclose(net.apply(params, jnp.array([1.0, 1.0])), [4.5 + 7.0])
    shapes = jax.tree.map(jnp.shape, networks.low_rank(base, 8, 1.0, "relu").init(KEY))
    assert shapes == {"Dense_0": {"a": (2, 2), "b": (2, 2)}, "Dense_1": {"a": (2, 1), "b": (1, 1)}}  # no side is less


def test_a_mean_may_be_squashed_as_that_of_the_base_was():
    head, extra = distributions.Gaussian(2, -1.0, "tanh"), {"log_std": jnp.full(2, -30.0)}
    logits = jnp.array([0.5, -2.0])
    np.testing.assert_allclose(head.mode(logits), np.tanh([0.5, -2.0]), rtol=1e-6)
    np.testing.assert_allclose(head.sample(KEY, logits, extra), head.mode(logits), atol=0.05)
    best = [float(head.log_prob(x, logits, extra)) for x in (head.mode(logits), logits)]
    assert best[0] > best[1]


def test_an_untrained_adapter_is_its_base_exactly(env, base, learner, state):
    params = learner.nets.init(KEY)
    for kernel, (changed, _) in zip(learner.adapter.layers, learner.nets.policy.layers(params["policy"]["net"])):
        np.testing.assert_array_equal(kernel[0], changed)
    obs = 3 * jax.random.normal(KEY, (20, env.spec.obs.size("policy")))
    fresh = freeze_policy("fresh", learner, SimpleNamespace(params=params, obs_stats=state.obs_stats), {})
    got, want = jax.vmap(lambda o: fresh.act(o, jnp.zeros(0)))(obs), jax.vmap(lambda o: of_base(env, base, o))(obs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert learner.config.hidden == (8,) and learner.config.activation == "tanh"  # the base's, not the config's


def test_the_entry_holds_what_it_is_made_of(base, learner, entry):
    assert entry.manifest["adapter"] == {**learner.adapter.origin, "rank": 2, "scale": 3.0}
    assert entry.manifest["adapter"]["digest"] == base.digest()
    np.testing.assert_array_equal(factors(entry)[1].kernel, base.arrays["policy/kernel1"])
    np.testing.assert_array_equal(entry.arrays["policy/bias1"], base.arrays["policy/bias1"])
    for i, layer in enumerate(factors(entry)):
        np.testing.assert_allclose(
            layer.kernel + layer.a @ layer.b, entry.arrays[f"policy/kernel{i}"], rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
def test_learning_changes_the_adapter_and_nothing_of_the_base(tmp_path, monkeypatch, env, base):
    """The base leaves the place where there is reward; its adapter learns to stay."""
    monkeypatch.chdir(tmp_path)
    library = Library("library")
    library.add(base)
    small = ["algo.envs=32", "algo.rollout=32", "algo.lr=3e-3", "total_steps=51200", "eval_every=0", "video=false"]
    adapter = ["adapter.base=base", "adapter.rank=2", "adapter.scale=3", f"adapter.latent={list(LATENT)}"]
    task = ["env=point_maze", "env.radius=5.0", "env.hold=true", "run_dir=run", "logging.quiet=true"]
    cli.main(["train", *task, *adapter, *small])
    rewards = [json.loads(line)["env/reward"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert len(rewards) == 50 and np.mean(rewards[-5:]) > 2 * np.mean(rewards[3:15]), rewards
    made = frozen.load(library, "point_maze-adapter@1")
    assert library.load("base").digest() == base.digest() == made.manifest["adapter"]["digest"]
    assert made.manifest["adapter"]["base"] == "base@1" and made.manifest["metrics"]["return"] > 0
    own, place = (env.spec.obs.index("policy", names) for names in (base.slices, ("position",)))
    for name in ("mean", "var"):
        np.testing.assert_array_equal(made.arrays[f"obs/{name}"][own], base.arrays[f"obs/{name}"])
    assert (made.arrays["obs/var"][place] > 1e-6).all() and (made.arrays["obs/var"][place] < 0.5).all()  # measured
    assert all((layer.b != 0).any() for layer in factors(made))
    np.testing.assert_array_equal(factors(made)[0].kernel[own], base.arrays["policy/kernel0"][: len(own)])


def test_the_entry_acts_as_the_trained_policy_and_comes_back_from_the_library(tmp_path, env, learner, state, entry):
    library = Library(tmp_path)
    opened = frozen.load(library, library.add(entry))
    assert opened.digest() == entry.digest() and opened.prior.size == 0
    obs = jax.random.normal(KEY, (env.spec.obs.size("policy"),))
    rule = task_eval.trained(learner, state)
    want = rule(KEY, SimpleNamespace(obs={"policy": obs}))
    np.testing.assert_allclose(opened.act(obs, jnp.zeros(0)), want, rtol=1e-5, atol=1e-6)
    card = (library.path("adapted") / "card.md").read_text()
    assert "Adapter (rank 2, scale 3) of base at latent [0.6, 0.8], trained on **point_maze**." in card
    assert "none: it only does its task" in card
    blend = Blend((opened, opened), env.spec)  # a skill as any other, to other controllers
    np.testing.assert_allclose(blend.act(obs, blend.resolve(blend.zero()))[0], jnp.clip(want, -1, 1), atol=1e-5)


def test_plain_weights_of_a_merged_adapter_agree(env, entry):
    plain = merge([entry], [1.0], "plain")
    assert "adapter" not in plain.manifest and not any("adapter" in k or "base" in k for k in plain.arrays)
    for obs in jax.random.normal(KEY, (5, env.spec.obs.size("policy"))):
        np.testing.assert_allclose(plain.act(obs, jnp.zeros(0)), entry.act(obs, jnp.zeros(0)), rtol=1e-5, atol=1e-5)
    half, none = merge([entry, entry], [0.25, 0.25], "half"), merge([entry], [0.0], "none")
    mean = 0.5 * (plain.arrays["policy/kernel0"] + none.arrays["policy/kernel0"])
    np.testing.assert_allclose(half.arrays["policy/kernel0"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(none.arrays["policy/kernel0"], entry.arrays["base/kernel0"])


def test_a_policy_from_scratch_can_be_a_base(env, state):
    learner = Learner(env, CONFIG)
    drawn = SimpleNamespace(params=learner.nets.init(KEY), obs_stats=state.obs_stats)
    policy = freeze_policy("scratch", learner, drawn, {})
    assert "adapter" not in policy.manifest and policy.prior.size == 0
    adapter = adapt(policy, env.spec)
    assert adapter.known.all() and adapter.origin["latent"] == []
    told = freeze_policy("told", learner, drawn, {}, "goal", 2.0)
    assert told.prior.size == 2 and set(policy.slices) - set(told.slices) == {"goal"}
    assert told.digest() != freeze_policy("told", learner, drawn, {}, "goal", 3.0).digest()
    with pytest.raises(UserError, match="scratch is no adapter: make one with"):
        factors(policy)


def test_settings_of_an_adapter(tmp_path, env, base):
    library = Library(tmp_path)
    library.add(base)
    config = {"library": tmp_path, "adapter": {"base": "base", "latent": [1, 0.0], "rank": 4, "scale": 1}}

    def made(algo="ppo", **changes):
        return build.adapter_of({**config, "adapter": {**config["adapter"], **changes}}, env, algo)

    assert (made().rank, made().scale, made().origin["latent"]) == (4, 1.0, [1.0, 0.0])
    assert made(base=None, latent=None) is build.adapter_of({}, env, "ppo") is None
    with pytest.raises(UserError, match=r"adapter\.latent needs adapter\.base"):
        made(base=None)
    assert pinning.pinned({**config, "env": {"name": "point"}}, "train")["adapter"]["base"] == "base@1"
    with pytest.raises(UserError, match="adapters are trained with algo=ppo, not with algo=sac"):
        made("sac")
    with pytest.raises(UserError, match=r"adapter\.latent must be a list of numbers, got 1"):
        made(latent=1)
    with pytest.raises(UserError, match=r"adapter\.rank must be a whole number, got 1.5"):
        made(rank=1.5)
    with pytest.raises(UserError, match="did you mean 'base'"):
        made(base="bas")


def test_what_cannot_be_adapted_or_merged_says_so(env, base, entry, make_skill):
    with pytest.raises(UserError, match=r"adapter\.rank must be at least 1, got 0"):
        adapt(base, env.spec, rank=0)
    with pytest.raises(UserError, match=r"adapter\.scale must be positive"):
        adapt(base, env.spec, scale=-1.0)
    with pytest.raises(UserError, match="must have the 2 entries of base's latent, got 3"):
        adapt(base, env.spec, (1.0, 0.0, 0.0))
    with pytest.raises(UserError, match="skill base does not fit env ant"):
        adapt(base, registry.make_spec("ant"))
    learner = Learner(MacroEnv(env, Blend((base,), env.spec), 1), CONFIG)
    stats = {"policy": normalize.init(env.spec.obs.size("policy"))}
    top = frozen.freeze("top", learner, SimpleNamespace(params=learner.nets.init(KEY), obs_stats=stats), {})
    with pytest.raises(UserError, match="top is a controller: an adapter needs the weights of a single policy"):
        adapt(top, env.spec)
    other = Skill(
        {**entry.manifest, "name": "o", "adapter": {**entry.manifest["adapter"], "digest": "x"}}, entry.arrays
    )
    with pytest.raises(
        UserError, match=r"adapters must have one base at one latent: adapted has base base, o has base"
    ):
        one_base((entry, other))
    scaled = Skill({**entry.manifest, "name": "s"}, {**entry.arrays, "obs/mean": entry.arrays["obs/mean"] + 1})
    with pytest.raises(UserError, match="adapted and s read different observations, or scale them differently"):
        merge((entry, scaled), (0.5, 0.5), "m")
