"""MJX backends: `mjx` (JAX; TPU and reference) and `warp` (MJX on MuJoCo Warp; NVIDIA GPUs)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from repertoire.envs.physics import constants
from repertoire.envs.physics import overrides as overriding
from repertoire.envs.physics.batching import over_worlds
from repertoire.envs.physics.quiet import mjx
from repertoire.envs.types import Array, Data, Held, Start
from repertoire.errors import UserError

#: What an MJX world carries from step to step besides time, qpos and qvel; all else is derived anew in each step.
_CARRIED = ("act", "qacc_warmstart")
_MOCAP = ("mocap_pos", "mocap_quat")  # where a model has mocap bodies

#: Fields that a start needs no dynamics for.
_KINEMATIC = frozenset({"xpos", "xquat", "site_xpos", "subtree_com"})

#: Bits of Warp's `overflow`: constraints (rows, then non-zeros) or contacts (broad phase, narrow phase, convex pairs)
#: did not fit their buffers. The other bits tell of solver limits, which no buffer cures.
_DROPPED = 0b11111


class MjxPhysics:
    """`Physics` on MJX. `impl` is `jax` or `warp`; raises `UserError` for a model that MJX cannot hold.

    Overrides replace model fields. The constants that decide on contacts follow them (see `constants`); those that
    only muscles and tendon limits use keep the base model's values, where `native` recomputes them.

    Args:
      model: compiled model.
      fields: derived fields of `Data` to read back besides time, qpos and qvel.
      impl: `jax` or `warp`.
      contacts, constraints: capacity per world under Warp (contacts share one pool); None lets Warp choose.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        fields: tuple[str, ...] = (),
        impl: str = "jax",
        contacts: int | None = None,
        constraints: int | None = None,
    ) -> None:
        self.name = "mjx" if impl == "jax" else "warp"
        self.model, self._fields, self._impl = model, fields, impl
        self._contacts, self._constraints = contacts, constraints
        self._mx = _put_model(model, impl, self.name)
        self._carried = (*_CARRIED, *(_MOCAP if model.nmocap else ()))
        self._known = _variable_fields(self._mx)
        self._forward = not _KINEMATIC.issuperset(fields)
        self._start = over_worlds(self._start_all)
        self._restart = over_worlds(self._restart_all)

    def init(self, qpos: Array, qvel: Array, overrides: Mapping[str, Array] | None = None) -> Data:
        """World at (qpos, qvel) with the fields computed: by kinematics where that suffices, else `mjx.forward`."""
        over = dict(overrides or {})
        overriding.check(self.model, over, self._known, self.name)
        return self._start(Start(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel), overrides=over))

    def step(
        self,
        data: Data,
        ctrl: Array,
        substeps: int,
        kick: Array | None = None,
        mocap: Array | None = None,
        held: Held = (),
    ) -> Data:
        """`substeps` calls of `mjx.step` under constant `ctrl`; with `held`, one `mjx.forward` after them."""
        if kick is not None:
            data = data.replace(qvel=data.qvel + kick)
        if mocap is not None:
            kind = data.backend["mocap_pos"].dtype
            poses = {"mocap_pos": mocap[:, :3].astype(kind), "mocap_quat": mocap[:, 3:].astype(kind)}
            data = data.replace(backend={**data.backend, **poses})
        return over_worlds(functools.partial(self._step_all, substeps, held))(data, ctrl)

    def reset_where(self, mask: Array, data: Data, fresh: Start) -> Data:
        """`init(fresh)` where `mask`; where no world of the batch is masked, no physics runs."""
        return self._restart(mask, data, fresh)

    def metrics(self, data: Data) -> dict[str, Array]:
        """Under Warp `overflow`: 1 where contacts or constraints did not fit and were dropped."""
        if "overflow" not in data.backend:
            return {}
        return {"overflow": ((data.backend["overflow"] & _DROPPED) != 0).astype(jnp.float32)}

    # -- all worlds: leading axis n ------------------------------------------------------------------------------

    def _start_all(self, start: Start) -> Data:
        blank = self._blank(len(start.qpos))
        kind = blank.qpos.dtype  # float64 under jax_enable_x64

        def one(start: Start) -> Data:
            data = blank.replace(qpos=start.qpos.astype(kind), qvel=start.qvel.astype(kind))
            over = {**start.overrides, **constants.derived(self.model, start.overrides)}
            model = self._model(over)
            if self._forward:
                data = mjx.forward(model, data)
            elif self._fields:
                data = mjx.com_pos(model, mjx.kinematics(model, data))
            return self._data(data, over)

        return jax.vmap(one)(start)

    def _step_all(self, substeps: int, held: Held, data: Data, ctrl: Array) -> Data:
        blank = self._blank(len(data.qpos))
        kind = blank.qpos.dtype

        def one(data: Data, ctrl: Array) -> Data:
            model = self._model(data.overrides)
            carried = {k: data.backend[k] for k in self._carried}
            d = blank.replace(time=data.time, qpos=data.qpos, qvel=data.qvel, ctrl=ctrl.astype(kind), **carried)
            d, _ = jax.lax.scan(lambda d, _: (_same_types(mjx.step(model, d), d), None), d, None, length=substeps)
            for address, value in held:
                d = d.replace(qpos=d.qpos.at[address].set(value))
            if held:
                d = mjx.forward(model, d)
            return self._data(d, data.overrides)

        return jax.vmap(one)(data, ctrl)

    def _restart_all(self, mask: Array, data: Data, fresh: Start) -> Data:
        def some() -> Data:
            pick = jax.vmap(lambda m, new, old: jax.tree.map(lambda a, b: jnp.where(m, a, b), new, old))
            return pick(mask, self._start_all(fresh), data)

        return jax.lax.cond(mask.any(), some, lambda: data)

    # -- one world -----------------------------------------------------------------------------------------------

    def _blank(self, worlds: int) -> Any:
        """Empty `mjx.Data`; Warp's contact pool serves all worlds, so it is sized by their number."""
        if self._impl == "jax":
            return mjx.make_data(self.model, impl="jax")
        pool = None if self._contacts is None else self._contacts * worlds
        return mjx.make_data(self.model, impl="warp", naconmax=pool, njmax=self._constraints)

    def _model(self, overrides: Mapping[str, Array]) -> Any:
        return self._mx.tree_replace(dict(overrides)) if overrides else self._mx

    def _data(self, d: Any, overrides: dict[str, Array]) -> Data:
        backend = {k: getattr(d, k) for k in self._carried}
        if self._impl == "warp":
            backend["overflow"] = d._impl.overflow
        fields = {f: _field(d, f) for f in self._fields}
        return Data(time=d.time, qpos=d.qpos, qvel=d.qvel, backend=backend, overrides=overrides, **fields)


def _put_model(model: mujoco.MjModel, impl: str, name: str) -> Any:
    if impl == "jax" and model.nhfield:  # measured: 1.6 cm apart within 0.3 s
        raise UserError("physics=mjx finds other contacts on height fields than C MuJoCo: use physics=native or warp")
    try:
        return mjx.put_model(model, impl=impl)
    except NotImplementedError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"physics={name} cannot hold this model: {reason}; use physics=native") from error
    except RuntimeError as error:
        if "warp" not in str(error).lower():
            raise
        raise UserError("physics=warp needs warp-lang: install the 'cuda' extra") from error


def _field(d: Any, name: str) -> Array:
    """`mjx.Data` keeps some fields of `MjData` in its implementation part."""
    return getattr(d if name in d.__dataclass_fields__ else d._impl, name)


def _same_types(new: Any, old: Any) -> Any:
    """Under `jax_enable_x64` MJX turns some int32 fields of a model with tendons into int64, which no scan takes."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype) if isinstance(b, jax.Array) else a, new, old)


def _variable_fields(mx: Any) -> tuple[str, ...]:
    """Names of the model's float arrays, `opt.<field>` for options; integers shape the program and cannot vary."""
    groups = (("", mx), ("opt.", mx.opt))
    names = ((p + f.name, getattr(part, f.name)) for p, part in groups for f in type(part).fields())
    return tuple(n for n, v in names if isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jnp.floating))
