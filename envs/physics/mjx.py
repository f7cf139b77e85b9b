"""MJX backends: `mjx` (JAX; TPU and reference) and `warp` (MJX on MuJoCo Warp; NVIDIA GPUs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from mujoco import mjx

from repertoire.envs.types import Array, Data, Start
from repertoire.errors import UserError

#: Contact and constraint capacity per world under Warp, where buffers have a fixed size.
WARP_CONTACTS, WARP_CONSTRAINTS = 64, 256


class MjxPhysics:
    """`Physics` on MJX. `impl` is `jax` or `warp`; raises `UserError` for a model that MJX cannot hold.

    Overrides replace model fields as they are: constants that MuJoCo derives from them (`mj_setConst`) keep the
    base model's values, so override only fields without such constants, or accept the difference to `native`.
    """

    def __init__(self, model: mujoco.MjModel, fields: tuple[str, ...] = (), impl: str = "jax") -> None:
        self.name = "mjx" if impl == "jax" else "warp"
        self.model, self._fields, self._impl = model, fields, impl
        try:
            self._mx = mjx.put_model(model, impl=impl)
        except NotImplementedError as error:
            raise UserError(f"physics={self.name} cannot hold this model: {error}; use physics=native") from error

    def init(self, qpos: Array, qvel: Array, overrides: Mapping[str, Array] | None = None) -> Data:
        """World at (qpos, qvel) after `mjx.forward`."""
        sizes = {"naconmax": WARP_CONTACTS, "njmax": WARP_CONSTRAINTS} if self._impl == "warp" else {}
        data = mjx.make_data(self.model, impl=self._impl, **sizes).replace(qpos=qpos, qvel=qvel)
        over = dict(overrides or {})
        return self._data(mjx.forward(self._model(over), data), over)

    def step(self, data: Data, ctrl: Array, substeps: int) -> Data:
        """`substeps` calls of `mjx.step` under constant `ctrl`."""
        model = self._model(data.overrides)

        def body(d: Any, _: None) -> tuple[Any, None]:
            return mjx.step(model, d), None

        stepped, _ = jax.lax.scan(body, data.backend.replace(ctrl=ctrl), None, length=substeps)
        return self._data(stepped, data.overrides)

    def reset_where(self, mask: Array, data: Data, fresh: Start) -> Data:
        """`init(fresh)` where `mask`."""
        new = self.init(fresh.qpos, fresh.qvel, fresh.overrides)
        return jax.tree.map(lambda a, b: jnp.where(mask, a, b), new, data)

    def _model(self, overrides: Mapping[str, Array]) -> Any:
        return self._mx.tree_replace(dict(overrides)) if overrides else self._mx

    def _data(self, d: Any, overrides: dict[str, Array]) -> Data:
        return Data(
            time=d.time,
            qpos=d.qpos,
            qvel=d.qvel,
            backend=d,
            overrides=overrides,
            **{f: getattr(d, f) for f in self._fields},
        )
