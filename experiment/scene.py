"""One renderer set up to show a robot well: floor without end, soft light, a camera at a sensible distance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from repertoire.errors import unknown

Marker = tuple[Sequence[float], float, Sequence[float]]  # position [3] m, radius m, rgba [4]
Markers = Callable[[int], Iterable[Marker]]


def root_body(model: Any, name: str | None = None) -> int:
    """Id of body `name`, by default of the robot: the child of the world with the most degrees of freedom below it.

    Raises:
      UserError: no body of that name.
    """
    if name is not None:
        names = [model.body(i).name for i in range(model.nbody)]
        if name not in names:
            raise unknown("body", name, names)
        return names.index(name)
    dofs = np.bincount(np.asarray(model.body_rootid), np.asarray(model.body_dofnum), minlength=model.nbody)
    return int(np.argmax(dofs[1:])) + 1 if model.nbody > 1 else 0


def robot_size(model: Any, root: int) -> float:
    """Largest distance of a shape of the robot from its root at qpos0, m."""
    import mujoco

    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mine = (model.body_rootid[model.geom_bodyid] == model.body_rootid[root]) & (model.geom_rbound > 0)
    if not mine.any():
        return float(model.stat.extent)
    reach = np.linalg.norm(data.geom_xpos[mine] - data.xpos[root], axis=1) + model.geom_rbound[mine]
    return float(reach.max())


def staged(model: Any, width: int, height: int) -> Any:
    """A copy of `model` for the camera: planes without end at the same checker size, a big enough frame buffer."""
    import mujoco

    model = copy.copy(model)
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    model.vis.headlight.ambient[:] = np.maximum(model.vis.headlight.ambient, 0.3)
    model.light_diffuse[:] = np.minimum(model.light_diffuse, 0.75)
    # Software OpenGL pays most for shadows and mirrors: a frame takes a third of the time so.
    model.vis.quality.shadowsize = min(1024, model.vis.quality.shadowsize)
    for g in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE):
        size, material = model.geom_size[g].copy(), model.geom_matid[g]
        if material >= 0 and size[0] > 0 and size[1] > 0 and not model.mat_texuniform[material]:
            model.mat_texrepeat[material] /= 2 * size[:2]  # repeats per plane become repeats per metre
            model.mat_texuniform[material] = True
        if material >= 0:
            model.mat_reflectance[material] = model.mat_specular[material] = 0
            _soften(model, model.mat_texid[material])
            model.geom_rgba[g, :3] = model.geom_rgba[g, :3].mean()
        model.geom_size[g, :2] = 0
    return model


def _soften(model: Any, textures: np.ndarray) -> None:
    """Less contrast in the textures of a floor, so that the robot and its shadow are what one sees."""
    for texture in set(textures[textures >= 0].tolist()):
        start = model.tex_adr[texture]
        stop = start + model.tex_height[texture] * model.tex_width[texture] * model.tex_nchannel[texture]
        data = model.tex_data[start:stop].astype(float)
        model.tex_data[start:stop] = 165 + 0.2 * (data - data.mean())


class Stage:
    """A renderer for one model. Use as a context manager, and in one thread: it owns an OpenGL context."""

    def __init__(
        self, model: Any, *, width: int = 480, height: int = 360, camera: str = "follow", root: str | None = None
    ) -> None:
        """Set up for frames of `height` x `width`. See `video.render` for the arguments and errors."""
        import mujoco
        from mujoco.rendering.classic.renderer import Renderer

        self._root = root_body(model, root)
        self._size = robot_size(model, self._root)
        self.model = staged(model, width, height)
        # A wide shadow volume shades the distant floor with itself.
        self.model.vis.map.shadowclip = min(2 * self._size / self.model.stat.extent, 1.0)
        self.data = mujoco.MjData(self.model)
        self._mode, self._aspect, self._dot = camera, width / height, 0.1 * self._size
        self._camera = self._make_camera(camera)
        self._renderer = Renderer(self.model, height, width)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._renderer.close()

    def _make_camera(self, mode: str) -> Any:
        import mujoco

        named = [self.model.camera(i).name for i in range(self.model.ncam)]
        if mode not in ("follow", "overview", *named):
            raise unknown("camera", mode, ["follow", "overview", *named])
        camera = mujoco.MjvCamera()
        if mode not in ("follow", "overview"):
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, named.index(mode)
            return camera
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.azimuth, camera.elevation = (90, -89.9) if mode == "overview" else (120, -20)
        camera.distance = 3.0 * self._size
        return camera

    def frame_motion(self, qpos: np.ndarray, bounds: Sequence[float] | None = None) -> None:
        """Point the camera at a motion [T, nq]: follow from its first height, or frame `bounds` from above."""
        import mujoco

        # Sparse in time: the frame needs the extent of the path, not every point of it.
        some = qpos[np.unique(np.linspace(0, len(qpos) - 1, 200).astype(int))]
        path = np.empty((len(some), 3))
        for i, row in enumerate(some):
            self.data.qpos[:] = row
            mujoco.mj_kinematics(self.model, self.data)
            path[i] = self.data.xpos[self._root]
        if self._mode == "follow":
            self._camera.lookat[:] = path[0]
            self._camera.lookat[2] = np.median(path[:, 2])  # fixed height, so that hops are seen as hops
        elif self._mode == "overview":
            self._frame_from_above(path, bounds)

    def _frame_from_above(self, path: np.ndarray, bounds: Sequence[float] | None) -> None:
        margin = 2 * self._size
        box = bounds or (*(path[:, :2].min(0) - margin), *(path[:, :2].max(0) + margin))
        half = np.array([box[2] - box[0], box[3] - box[1]]) / 2
        self._camera.lookat[:] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 0]
        up = max(half[1], half[0] / self._aspect)
        self._dot = 0.012 * up
        self._camera.distance = 1.05 * up / np.tan(np.deg2rad(self.model.vis.global_.fovy) / 2)

    def shoot(self, qpos: np.ndarray, markers: Iterable[Marker] = (), mocap: np.ndarray | None = None) -> np.ndarray:
        """One frame [H, W, 3] uint8 of the robot at `qpos` [nq], with marker spheres and mocap poses [nmocap, 7]."""
        import mujoco

        self.data.qpos[:] = qpos
        if mocap is not None:
            self.data.mocap_pos[:], self.data.mocap_quat[:] = mocap[:, :3], mocap[:, 3:]
        mujoco.mj_fwdPosition(self.model, self.data)
        if self._mode == "follow":
            self._camera.lookat[:2] = self.data.xpos[self._root][:2]
        self._move_lights(self.data.xpos[self._root])
        self._renderer.update_scene(self.data, self._camera)
        for marker in markers:
            self._draw(*marker)
        return self._renderer.render()

    def _move_lights(self, at: np.ndarray) -> None:
        """Let the sun follow: MuJoCo casts the shadow of a directional light only around the light's position."""
        import mujoco

        sun = self.model.light_type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        fixed = sun & (self.model.light_bodyid == 0)
        self.data.light_xpos[fixed] = at - 4 * self._size * self.data.light_xdir[fixed]

    def play(
        self, qpos: np.ndarray, markers: Markers | None = None, mocap: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Frames of a motion [T, nq]; from above, a trail of the root's path so far is drawn too."""
        crumbs: list[Marker] = []
        for t, row in enumerate(qpos):
            shown = [*(markers(t) if markers else ()), *crumbs]
            frame = self.shoot(row, shown, None if mocap is None else mocap[t])
            if self._mode == "overview":
                self._drop(crumbs, self.data.xpos[self._root])
            yield frame

    def _drop(self, crumbs: list[Marker], at: np.ndarray) -> None:
        if not crumbs or np.linalg.norm(at[:2] - crumbs[-1][0][:2]) > self._dot:
            crumbs.append(((at[0], at[1], 0.0), self._dot, (0.9, 0.25, 0.15, 1.0)))

    def _draw(self, position: Sequence[float], radius: float, rgba: Sequence[float]) -> None:
        import mujoco

        scene = self._renderer.scene
        if scene.ngeom >= scene.maxgeom:
            return
        size, pos = np.full(3, float(radius)), np.asarray(position, float)
        sphere, colour = mujoco.mjtGeom.mjGEOM_SPHERE, np.asarray(rgba, np.float32)
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], sphere, size, pos, np.eye(3).ravel(), colour)
        scene.ngeom += 1
