"""The ONNX graphs against the code that acts in training: every activation, prior, mode and batch size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import networks, normalize
from repertoire.algos.types import Stats
from repertoire.deploy.graph import ACTIVATIONS, FrozenPolicy, Graph, controller_graph, policy_graph, skill_graph
from repertoire.deploy.onnx_model import to_onnx
from repertoire.envs.registry import make
from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.compose import Compose, ComposeConfig
from repertoire.high_level.composer import Composer
from repertoire.high_level.frozen import FrozenController, freeze
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.options import Option
from repertoire.high_level.sequence import Choice, Latent, Parameterized
from repertoire.skills.latent import OneHot, Sphere, product_of
from repertoire.skills.skill import Skill, contract

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
HIDDEN = 16


@pytest.fixture(scope="module")
def ant() -> EnvSpec:
    return make("ant", "native").spec


@pytest.fixture(scope="module")
def goals() -> EnvSpec:
    return make("ant_multi_goals", "native").spec


def arrays(obs: int, extra: int, out: int) -> dict[str, np.ndarray]:
    sizes, made = (obs + extra, HIDDEN, HIDDEN, out), {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        made[f"policy/kernel{i}"] = (RNG.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        made[f"policy/bias{i}"] = (0.1 * RNG.normal(size=b)).astype(np.float32)
    made["obs/mean"] = RNG.normal(size=obs).astype(np.float32)
    made["obs/var"] = RNG.uniform(0.0, 2.0, obs).astype(np.float32)
    made["obs/var"][0] = 0.0  # an entry that never moved
    return made


def fake_skill(spec: EnvSpec, name: str, kind: str, size: int, activation: str = "swish") -> Skill:
    manifest: dict[str, Any] = {
        "schema": 1, "name": name, "env": spec.name, "contract": contract(spec), "objective": {}, "provenance": {},
        "latent": {"kind": kind, "size": size, "hold": 0}, "metrics": {},
        "network": {"hidden": [HIDDEN, HIDDEN], "activation": activation},
    }  # fmt: skip
    if kind == "product":
        manifest["latent"] = product_of([Sphere(2), OneHot(3)], weighted=True).describe()
    return Skill(manifest, arrays(spec.obs.size("policy"), size, spec.action_size))


def controller(spec: EnvSpec, outputs: int, activation: str = "relu") -> FrozenPolicy:
    return FrozenPolicy.from_arrays(arrays(spec.obs.size("policy"), 0, outputs), activation)


def run(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(graph.inputs)
    return dict(zip(graph.outputs, session.run(list(graph.outputs), dict(inputs))))


def same(graph: Graph, rows: int, **given: np.ndarray) -> dict[str, np.ndarray]:
    drawn = {n: (10 * RNG.normal(size=(rows, w))).astype(np.float32) for n, w in graph.inputs.items()}
    inputs = {n: np.asarray(given.get(n, drawn[n]), np.float32) for n in graph.inputs}
    out, expected = run(graph, inputs), graph.fn(*map(jnp.asarray, inputs.values()))
    for name, value in out.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
        assert value.shape == (rows, graph.outputs[name]) and value.dtype == np.float32
    return out


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_flat_policy(ant: EnvSpec, activation: str) -> None:
    policy = controller(ant, ant.action_size, activation)
    graph = policy_graph(ant, policy)
    for rows in (1, 7):
        out = same(graph, rows)
    assert np.abs(out["action"]).max() <= 1.0
    np.testing.assert_allclose(out["ctrl"], out["action"] * ant.action_high[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_a_frozen_policy_is_what_the_learner_computes(ant: EnvSpec, activation: str) -> None:
    policy = controller(ant, ant.action_size, activation)
    obs = jnp.asarray(100 * RNG.normal(size=(5, policy.mean.size)), jnp.float32)
    x = normalize.apply(Stats(jnp.asarray(policy.mean), jnp.asarray(policy.var), jnp.ones(())), obs)
    layers = list(zip(map(jnp.asarray, policy.kernels), map(jnp.asarray, policy.biases)))
    np.testing.assert_allclose(policy(obs), networks.apply_layers(layers, x, activation), rtol=1e-5, atol=1e-5)


def test_a_policy_that_is_told(ant: EnvSpec) -> None:
    skill = fake_skill(ant, "told", "command", 2)
    told = {"scale": [0.5, 2.0], "mean": [0.1, 0.0], "var": [0.3, 1e-4]}  # the last is clipped
    extra = {f"command/{k}": np.asarray(v, np.float32) for k, v in told.items()}
    out = same(skill_graph(ant, Skill(skill.manifest, {**skill.arrays, **extra})), 7)
    assert np.ptp(out["action"], axis=0).max() > 0.01


KINDS = [("sphere", 2), ("sphere", 3), ("gaussian", 2), ("one_hot", 4), ("ball", 2), ("product", 7)]


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_skill_set(ant: EnvSpec, kind: str, size: int) -> None:
    skill = fake_skill(ant, "a", kind, size, "elu")
    graph, z = skill_graph(ant, skill), RNG.normal(size=(5, size)).astype(np.float32)
    z[0] = 0.0  # no direction
    out = same(graph, 5, z=z)
    projected = np.stack([skill.prior.project(row) for row in z])
    np.testing.assert_allclose(run(graph, {"obs": np.ones((5, 27), np.float32), "z": z})["action"],
                               run(graph, {"obs": np.ones((5, 27), np.float32), "z": projected})["action"],
                               atol=1e-6)  # fmt: skip
    assert out["action"].std() > 0


@pytest.mark.parametrize(("kind", "size"), [("sphere", 2), ("gaussian", 3), ("one_hot", 4), ("ball", 2)])
def test_controller_of_one_skill_set(goals: EnvSpec, ant: EnvSpec, kind: str, size: int) -> None:
    graph = controller_graph(controller(goals, size), Latent((fake_skill(ant, "a", kind, size),), goals), hold=5)
    held, decide = np.full((6, size), 0.5, np.float32), np.array([[1], [0], [1], [0], [0], [1]], np.float32)
    out = same(graph, 6, z=held, decide=decide)
    keeps = decide[:, 0] == 0
    np.testing.assert_array_equal(out["z_next"][keeps], held[keeps])
    assert (out["z_next"][~keeps] != held[~keeps]).any(axis=1).all()


def test_controller_that_picks_from_several_skill_sets(goals: EnvSpec, ant: EnvSpec) -> None:
    kinds = (("a", "sphere", 2, "tanh"), ("b", "one_hot", 5, "relu"), ("c", "sphere", 2, "swish"))
    choice = Choice(tuple(fake_skill(ant, *kind) for kind in kinds), goals, per_skill=4)
    n = choice.discrete
    graph = controller_graph(controller(goals, n), choice, hold=5)
    held = np.arange(n, dtype=np.float32)[:, None]
    obs = RNG.normal(size=(n, goals.obs.size("policy"))).astype(np.float32)
    out = same(graph, n, obs=obs, z=held, decide=np.zeros((n, 1)))
    np.testing.assert_array_equal(out["z_next"], held)
    for i in range(n):  # as `MacroEnv` acts
        expected = jnp.clip(choice.act(jnp.asarray(obs[i]), choice.resolve(jnp.int32(i)))[0], -1, 1)
        np.testing.assert_allclose(out["action"][i], expected, atol=1e-5)
    decided = same(graph, n, obs=obs, z=held, decide=np.ones((n, 1)))["z_next"]
    assert set(decided.ravel()) <= set(range(n))


def test_a_random_table_can_be_traced(goals: EnvSpec, ant: EnvSpec) -> None:
    choice = Choice((fake_skill(ant, "a", "gaussian", 3),), goals, per_skill=4)
    graph = controller_graph(controller(goals, 4), choice, hold=2)
    same(graph, 3, z=np.array([[0], [1], [3]]))
    jax.jit(graph.fn)(*(jnp.zeros((1, w)) for w in graph.inputs.values()))


COMPOSERS: dict[str, Callable[..., Composer]] = {
    "parameterized": Parameterized,
    "blend": Blend,
    "clamp": lambda s, e: Blend(s, e, BlendConfig(squash="clamp", limit=0.5, groups={"all": ["*"]})),
    "bounded": lambda s, e: Blend(s, e, BlendConfig(limit=0.5, bounded=True, groups="all")),
    "switch": lambda s, e: Blend(s, e, BlendConfig(combine="switch", groups={"hips": ["hip*"], "rest": ["ankle*"]})),
    "multiply": lambda s, e: Blend(s, e, BlendConfig(combine="multiply", residual=0.3)),
    "top": lambda s, e: Blend(s, e, BlendConfig(top=2, groups={"hips": ["hip*"], "rest": ["ankle*"]})),
    "top of a product": lambda s, e: Blend(s, e, BlendConfig(combine="multiply", top=1, residual=0.3)),
    "residual": lambda s, e: Blend(s[:1], e, BlendConfig(residual=0.2)),
    "choice": lambda s, e: Choice(s, e, per_skill=3),
    "latent, ending": lambda s, e: Option(Latent(s[:1], e), every=3, longest=6),
    "choice, ending": lambda s, e: Option(Choice(s, e, per_skill=3), every=3, longest=6),
    "parameterized, ending": lambda s, e: Option(Parameterized(s, e), every=3, longest=6),
    "blend, ending": lambda s, e: Option(Blend(s, e), every=3, longest=6),
}


def drive(graph: Graph, rows: int, steps: int) -> None:
    """Both sides for some control steps, each with its own state; a decision at steps 0 and 3."""
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    fn, names = jax.jit(graph.fn), list(graph.outputs)
    theirs = ours = np.zeros((rows, graph.inputs["z"]), np.float32)
    for step in range(steps):
        obs = (2 * RNG.normal(size=(rows, graph.inputs["obs"]))).astype(np.float32)
        decide = np.full((rows, 1), step % 3 == 0, np.float32)
        out = dict(zip(names, session.run(names, {"obs": obs, "z": theirs, "decide": decide})))
        expected = fn(jnp.asarray(obs), jnp.asarray(ours), jnp.asarray(decide))
        for name, value in out.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{name}, step {step}")
            assert value.shape == (rows, graph.outputs[name])
        theirs, ours = out["z_next"], np.asarray(expected["z_next"])
    assert out["action"].std() > 0
    with jax.enable_x64(True):  # as the check measures float32's own error
        exact = jax.jit(graph.fn)(*(jnp.asarray(x, jnp.float64) for x in (obs, theirs, np.zeros_like(decide))))
    assert exact["action"].dtype == np.float64


@pytest.mark.parametrize("kind", COMPOSERS)
def test_controllers_of_every_kind(goals: EnvSpec, ant: EnvSpec, kind: str) -> None:
    kinds = (("a", "sphere", 2, "tanh"), ("b", "one_hot", 5, "relu"), ("c", "gaussian", 2, "swish"))
    composer = COMPOSERS[kind](tuple(fake_skill(ant, *k) for k in kinds), goals)
    policy = controller(composer.spec(), composer.head.outputs)
    drive(controller_graph(policy, composer, hold=3), rows=12, steps=8 if isinstance(composer, Option) else 4)


@pytest.fixture(scope="module")
def composed(goals: EnvSpec, ant: EnvSpec, make_adapter: Callable[..., Skill]) -> Callable[..., Compose]:
    """(activation, squash) -> two adapters that know of the goal, scaled differently, and one that does not."""

    def make(activation: str, squash: str, bounded: bool = False) -> Compose:
        base, made = fake_skill(ant, "base", "sphere", 2, activation), []
        for i, (name, spec) in enumerate((("a", goals), ("b", goals), ("c", ant))):
            size = spec.obs.size("policy")
            seen = Stats(jnp.zeros(size), jnp.asarray(RNG.uniform(0.5, 2.0, size), jnp.float32), jnp.ones(()))
            made.append(make_adapter(base, spec, name, seed=i, stats=seen, rank=3, scale=0.5))
        return Compose(made, goals, ComposeConfig(squash=squash, bounded=bounded))

    return make


def test_adapters_composed_in_one_graph(goals: EnvSpec, composed: Callable[..., Compose]) -> None:
    composer = composed("swish", "tanh")
    graph = controller_graph(controller(goals, 3), composer, hold=3)
    assert graph.inputs["z"] == 3
    drive(graph, rows=6, steps=4)
    one = same(graph, 4, z=np.eye(4, 3), decide=np.zeros((4, 1)))  # each alone, and the base
    assert len(np.unique(one["action"], axis=0)) == 4


@pytest.mark.parametrize("bounded", [False, True])
def test_shares_of_adapters(goals: EnvSpec, composed: Callable[..., Compose], bounded: bool) -> None:
    graph = controller_graph(controller(goals, 3), composed("relu", "share", bounded), hold=3)
    drive(graph, rows=6, steps=2)
    out = same(graph, 4, decide=np.ones((4, 1)))
    np.testing.assert_allclose(out["z_next"].sum(1), 1.0, rtol=1e-5)


def test_an_adapter_and_a_composition_under_a_controller(goals: EnvSpec, composed: Callable[..., Compose]) -> None:
    low = composed("elu", "clamp")
    middle = frozen_controller(goals, low, hold=2, command=None)
    top = Choice((middle, low.skills[0]), goals)
    drive(controller_graph(controller(goals, top.head.outputs), top, hold=4), rows=4, steps=5)


def frozen_controller(goals: EnvSpec, composer: Composer, hold: int, command: str | None) -> FrozenController:
    """As `freeze` makes it of a learner and its state."""
    made = arrays(composer.spec().obs.size("policy"), 0, composer.head.outputs)
    net = {f"Dense_{i}": {"kernel": made[f"policy/kernel{i}"], "bias": made[f"policy/bias{i}"]} for i in range(3)}
    stats = Stats(made["obs/mean"], made["obs/var"], np.ones(()))
    state = SimpleNamespace(params={"policy": {"net": net, "head": {}}}, obs_stats={"policy": stats})
    env = MacroEnv(SimpleNamespace(spec=goals), composer, hold)
    config = SimpleNamespace(hidden=(HIDDEN, HIDDEN), activation="relu")
    nets = SimpleNamespace(head=composer.head, policy=SimpleNamespace(layers=networks.dense_layers))
    learner = SimpleNamespace(env=env, config=config, nets=nets)
    return freeze(f"{composer.mode}-frozen", learner, state, {}, command)


def test_three_levels_with_clocks_of_their_own(goals: EnvSpec, ant: EnvSpec) -> None:
    skills = (fake_skill(ant, "a", "sphere", 2), fake_skill(ant, "b", "gaussian", 2))
    low = frozen_controller(goals, Blend(skills, goals), hold=2, command="goal")
    ending = Option(Choice((low, skills[0]), goals, per_skill=3), every=4, longest=8)
    middle = frozen_controller(goals, ending, hold=4, command=None)
    top = Blend((middle, low, skills[1]), goals, BlendConfig(groups={"all": ["*"]}))
    graph = controller_graph(controller(goals, top.head.outputs), top, hold=8)
    names = [f.name for f in top.fields]
    assert "choice+keep-frozen/clock" in names and "choice+keep-frozen/blend-frozen/clock" in names
    drive(graph, rows=4, steps=7)
    with pytest.raises(UserError, match="is a controller: export the run that trained it"):
        skill_graph(goals, low)


def test_what_does_not_fit_is_refused(goals: EnvSpec, ant: EnvSpec) -> None:
    latent = Latent((fake_skill(ant, "a", "sphere", 2),), goals)
    with pytest.raises(UserError, match="hold must be at least 1"):
        controller_graph(controller(goals, 2), latent, hold=0)
    with pytest.raises(UserError, match="3 outputs of a latent controller, expected 2"):
        controller_graph(controller(goals, 3), latent, hold=5)
    with pytest.raises(UserError, match="policy observations"):
        policy_graph(goals, controller(ant, 8))
    with pytest.raises(UserError, match="did you mean 'swish'"):
        controller(ant, 8, "swich")
    with pytest.raises(UserError, match="needs the array 'policy/bias1'"):
        FrozenPolicy.from_arrays({k: v for k, v in arrays(3, 0, 2).items() if k != "policy/bias1"}, "relu")
    with pytest.raises(UserError, match="cannot have the layers"):
        FrozenPolicy((np.zeros((3, 4)), np.zeros((5, 2))), (np.zeros(4), np.zeros(2)), np.zeros(3), np.ones(3))
