"""Skills computed only where they act: blocks of rows, chosen skills of a bank, switches and blends of the top few."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.algos.types import Stats
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import dispatch, frozen
from repertoire.high_level import registry as controllers
from repertoire.high_level.bank import Bank
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import Choice, Latent, Parameterized
from repertoire.scripts import config, pinning

SPEC = registry.make_spec("ant")
GOALS = registry.make_spec("ant_multi_goals")  # shows its goal too
ROWS, GROUPS, SIZE = 13, 4, 4
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def skills(make_skill):
    """Five of one shape, two of another, one of a third; they read different slices."""
    one = [make_skill(SPEC, f"a{i}", seed=i) for i in range(5)]
    two = [make_skill(GOALS, f"b{i}", "gaussian", 3, seed=9 + i, hidden=12) for i in range(2)]
    return (*one[:2], two[0], *one[2:], make_skill(SPEC, "c", "one_hot", 4, seed=20), two[1])


def drawn(skills, worlds, seed=0):
    """Observations [W, P] and latents of random worlds."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(worlds, GOALS.obs.size("policy")))
    latents = [rng.normal(size=(worlds, s.prior.size)) for s in skills]
    return jnp.asarray(obs, jnp.float32), tuple(jnp.asarray(z, jnp.float32) for z in latents)


def chosen_by(bank):
    return jax.jit(jax.vmap(lambda obs, z, chosen: bank.act_chosen(obs, z, chosen, bank.start())[0]))


def all_by(bank):
    """The same, computing all."""
    return jax.jit(jax.vmap(lambda obs, z, chosen: bank.act(obs, z, bank.start())[0][chosen]))


# -- blocks -----------------------------------------------------------------------------------------------------------


SORT = jax.jit(lambda index: dispatch.sort(index, GROUPS, SIZE))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, GROUPS), min_size=ROWS, max_size=ROWS))
def test_every_row_stands_in_a_block_of_its_group(index):
    blocks = jax.tree.map(np.asarray, SORT(np.asarray(index, np.int32)))
    inside = [r for r, group in enumerate(index) if group < GROUPS]
    places = blocks.place[inside]
    assert len(set(places)) == len(inside)
    np.testing.assert_array_equal(blocks.rows.ravel()[places], inside)
    np.testing.assert_array_equal(blocks.owner[places // SIZE], np.asarray(index)[inside])
    counts = np.bincount(index, minlength=GROUPS + 1)[:GROUPS]
    assert blocks.used == sum(-(-c // SIZE) for c in counts) <= len(blocks.owner)
    assert ((blocks.rows >= 0) & (blocks.rows < ROWS)).all()


def test_as_many_blocks_as_any_fall_of_rows_can_need():
    """13 rows in blocks of 4: at worst 10 + 1 + 1 + 1, which are 3 + 3; four of 13 groups of 1 row each need 13."""
    assert dispatch.most(13, 4, 4) == 6 and dispatch.most(13, 20, 4) == 13 and dispatch.most(1, 32, 1) == 1


def test_blocks_are_small_where_rows_are_few():
    assert dispatch.block_size(1, 32) == 1 and dispatch.block_size(1024, 32) == 16
    assert dispatch.cost(1024, 8, 16) == (64 + 3.75) * 22


@pytest.mark.parametrize("index", [np.arange(ROWS) % GROUPS, np.full(ROWS, 2)])
def test_every_row_is_computed_by_its_group(index):
    x, factor = jnp.arange(ROWS, dtype=jnp.float32), jnp.array([1.0, 10.0, 100.0, 1000.0])
    blocks = dispatch.sort(jnp.asarray(index, jnp.int32), GROUPS, SIZE)
    found = dispatch.compute(lambda group, rows: (factor[group] * x[rows])[:, None], blocks)
    np.testing.assert_array_equal(found[:, 0], x * factor[index])


# -- banks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fetch", [0, 6, 1000])
def test_chosen_skills_act_as_each_alone(skills, monkeypatch, fetch):
    """With blocks for nothing, as measured, and so dear that every stack is computed whole."""
    monkeypatch.setattr(dispatch, "FETCH", fetch)
    bank, (obs, z) = Bank(skills, GOALS), drawn(skills, 37)
    chosen = np.random.default_rng(1).integers(0, len(skills), (37, 2)).astype(np.int32)
    want = np.stack(
        [
            [skills[i].act(obs[w][GOALS.obs.index("policy", skills[i].slices)], z[i][w]) for i in row]
            for w, row in enumerate(chosen[:5])
        ]
    )
    got = chosen_by(bank)(obs, z, chosen)
    np.testing.assert_allclose(got[:5], want, **CLOSE)
    np.testing.assert_allclose(got, all_by(bank)(obs, z, chosen), **CLOSE)


def test_any_choices_of_any_worlds(skills):
    bank, (obs, z) = Bank(skills, GOALS), drawn(skills, 21)
    got, want = chosen_by(bank), all_by(bank)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 7), min_size=63, max_size=63))
    def same(told):
        chosen = jnp.asarray(told, jnp.int32).reshape(21, 3)
        np.testing.assert_allclose(got(obs, z, chosen), want(obs, z, chosen), **CLOSE)

    same()
    for skill in range(8):  # all worlds one skill, and all other groups empty
        chosen = jnp.full((21, 3), skill)
        np.testing.assert_allclose(got(obs, z, chosen), want(obs, z, chosen), **CLOSE)


def test_seeds_of_worlds_in_a_scan_under_a_branch(skills):
    bank, (obs, z) = Bank(skills, GOALS), drawn(skills, 12)
    chosen = np.random.default_rng(2).integers(0, 8, (3, 4, 1)).astype(np.int32)
    nested = jax.tree.map(lambda x: x.reshape(3, 4, *x.shape[1:]), (obs, z))

    def one(obs, z, chosen):
        def step(total, i):
            action = jax.lax.cond(i > 0, lambda: bank.act_chosen(obs, z, chosen, ())[0], lambda: jnp.ones((1, 8)))
            return total + action, None

        return jax.lax.scan(step, jnp.zeros((1, 8)), jnp.arange(3))[0]

    got = jax.jit(jax.vmap(jax.vmap(one)))(*nested, chosen)
    want = 1 + 2 * all_by(bank)(obs, z, chosen.reshape(12, 1)).reshape(3, 4, 1, 8)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=5e-6)


def test_skills_with_a_memory_go_on_whoever_acts(make_skill):
    """A frozen controller that is not chosen keeps its clock and decides as if it were."""
    inner = [make_skill(SPEC, name, seed=i) for i, name in enumerate("ab")]
    learner = Learner(MacroEnv(SimpleNamespace(spec=SPEC), Blend(inner, SPEC), 2), PPOConfig(hidden=(8,)))
    params = jax.tree.map(lambda x: x + 0.3, learner.nets.init(jax.random.key(0)))
    stats = Stats(jnp.zeros(27), jnp.ones(27), jnp.ones(()))
    slow = frozen.freeze("slow", learner, SimpleNamespace(params=params, obs_stats={"policy": stats}), {})
    mixed = (inner[0], slow, inner[1])
    bank, (obs, z) = Bank(mixed, SPEC), drawn(mixed, 6)
    chosen = jnp.array([[0], [1], [2], [1], [0], [2]])

    def twice(act):
        """Actions of the second step, and the memory after it."""
        _, memory = act(bank.start())
        return act(memory)

    got = jax.jit(jax.vmap(lambda o, z, c: twice(lambda m: bank.act_chosen(o[:27], z, c, m))))(obs, z, chosen)
    want = jax.jit(jax.vmap(lambda o, z: twice(lambda m: bank.act(o[:27], z, m))))(obs, z)
    np.testing.assert_allclose(got[0][:, 0], want[0][jnp.arange(6), chosen[:, 0]], **CLOSE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), got[1], want[1])
    assert np.unique(got[1][0][0]).tolist() == [0]  # decides every two steps


# -- composers --------------------------------------------------------------------------------------------------------


def test_one_skill_acts_in_every_world(skills):
    """A switch, joint by joint too, a choice and a skill with its latent: as the skills alone, whatever the world."""
    obs, skills = drawn(skills, 9)[0], skills[1:5]
    for composer in (
        Blend(skills, GOALS, BlendConfig(combine="switch", groups="all")),
        Blend(skills, GOALS, BlendConfig(combine="switch", groups={"hips": ["hip*"], "rest": ["ankle*"]})),
        Choice(skills, GOALS, per_skill=2),
        Parameterized(skills, GOALS),
    ):

        def both(obs, key, c=composer):
            held = c.resolve(c.sample(key))
            return c.act(obs, held)[0], dense(c, obs, held)

        got, want = jax.jit(jax.vmap(both))(obs, jax.random.split(jax.random.key(3), 9))
        np.testing.assert_allclose(got, want, **CLOSE)


def dense(composer, obs, held):
    """The action of the one who acts, of all skills' actions."""
    if isinstance(composer, Blend):
        actions = composer.bank.act(obs, held.latents, ())[0]
        return (composer.weights(held) * jnp.clip(actions, -1, 1)).sum(0)
    if isinstance(composer, Parameterized):
        return composer.bank.act(obs, held[1], ())[0][held[0]]
    latents = [jnp.asarray(table)[held[0]] for table in composer.latents()]
    return composer.bank.act(obs, latents, ())[0][jnp.asarray(composer.owners)[held[0]]]


@pytest.mark.parametrize("combine", ["blend", "multiply"])
def test_the_top_skills_share_the_weight(skills, combine):
    full = Blend(skills, GOALS, BlendConfig(combine=combine, residual=0.1))
    obs, _ = drawn(skills, 9)
    raw = jax.random.normal(jax.random.key(4), (9, full.size))
    act = {}
    for top in (None, 2, 8):
        blend = Blend(skills, GOALS, BlendConfig(combine=combine, residual=0.1, top=top))
        held, act[top] = jax.jit(jax.vmap(lambda o, r, b=blend: (h := b.resolve(r), b.act(o, h)[0])))(obs, raw)
        if top is None:
            weights, share = np.asarray(held.weights), np.asarray(jax.vmap(full.acting)(held))
        if top == 2:
            few = held
    np.testing.assert_allclose(act[8], act[None], **CLOSE)
    best = np.argsort(-share, axis=1)[:, :2]
    want = np.zeros_like(weights)
    for w in range(9):
        want[w, best[w]] = weights[w, best[w]] / weights[w, best[w]].sum(0)
    np.testing.assert_allclose(few.weights, want, **CLOSE)
    np.testing.assert_allclose(jax.vmap(full.acting)(few), want.mean(2), **CLOSE)  # a joint is a group here
    # the same weights, all skills computed
    np.testing.assert_allclose(act[2], jax.jit(jax.vmap(lambda o, h: full.act(o, h)[0]))(obs, few), **CLOSE)
    assert (np.abs(act[2] - act[None]).max(1) > 1e-3).all()


def test_a_top_of_one_is_the_heaviest_skill(skills):
    """Also where its weight in a group is too small for float32: it has all of it in the end."""
    blend = Blend(skills[:3], GOALS, BlendConfig(top=1, squash="clamp", groups={"most": ["*[!4]"], "rest": ["*4"]}))
    weights = np.array([[0.0, 50.0], [9.0, -50.0], [0.0, 0.0]])
    goals = jnp.array([0.6, 0.8, 0.0, 1.0, 0.3, -0.2, 0.1])
    held = blend.resolve(jnp.concatenate([goals, jnp.asarray(weights, jnp.float32).ravel()]))
    np.testing.assert_array_equal(held.weights, [[0, 0], [1, 1], [0, 0]])
    obs = drawn(skills[:3], 1)[0][0]
    own = obs[GOALS.obs.index("policy", skills[1].slices)]
    np.testing.assert_allclose(blend.act(obs, held)[0], jnp.clip(skills[1].act(own, goals[2:4]), -1, 1), **CLOSE)
    assert float(blend.metrics(held)["weight_entropy"]) == 0.0


def test_settings_of_the_top(skills):
    for bad, line in ((0, "at least 1, got 0"), (2.0, "a whole number, got 2.0"), (True, "a whole number, got True")):
        with pytest.raises(UserError, match=rf"controller\.top must be {line}"):
            BlendConfig(top=bad)
    with pytest.raises(UserError, match=r"controller\.top must be at most 8, the number of skills, got 9"):
        Blend(skills, GOALS, BlendConfig(top=9))
    with pytest.raises(UserError, match="a switch lets one skill act anyway"):
        BlendConfig(combine="switch", top=1)
    told = Blend(skills, GOALS, BlendConfig(top=2)).describe()
    assert controllers.make(told, skills, GOALS).config.top == 2
    assert controllers.make({k: v for k, v in told.items() if k != "top"}, skills, GOALS).config.top is None
    for kind in ("blend", "multiply", "residual"):  # runs from before there was one go on
        stored = (pinning.pinned(config.compose("train_controller", [f"controller={kind}", *more]) | {"skills": []},
                                 "train-controller") for more in ((), ("controller.top=2",)))  # fmt: skip
        assert [run["controller"].get("top") for run in stored] == [None, 2]


def test_one_skill_set_is_computed_as_ever(skills):
    """Bit for bit: a choice among the latents of one set sorts nothing."""
    choice, latent = Choice(skills[:1], GOALS, per_skill=3), Latent(skills[:1], GOALS)
    obs = drawn(skills, 1)[0][0]
    _, z = choice.table[1]
    same = [c.act(obs, held)[0] for c, held in ((choice, (jnp.asarray(1), ())), (latent, (jnp.asarray(z), ())))]
    np.testing.assert_array_equal(*same)
    assert "custom_vmap" not in str(jax.make_jaxpr(lambda o: choice.act(o, (jnp.asarray(1), ())))(obs))
