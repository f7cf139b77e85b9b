"""Gymnasium ids of all envs. Imported by `import repertoire`, so it knows names only: no JAX, no MuJoCo."""

from __future__ import annotations

import gymnasium

#: Names of `registry.TASKS`, in its order; a test holds the two equal.
NAMES = (
    "ant",
    "half_cheetah",
    "hopper",
    "walker2d",
    "humanoid",
    "ant_forward",
    "half_cheetah_forward",
    "hopper_forward",
    "walker2d_forward",
    "humanoid_forward",
    "ant_multi_goals",
    "ant_maze",
    "ant_push",
    "half_cheetah_goal",
    "half_cheetah_hurdle",
    "point",
    "point_disc",
    "point_maze",
    "panda_reach",
    "panda_push",
    "panda_pick_place",
    "panda_stack",
    "panda_rearrange",
    "panda_drawer",
    "panda_scene",
    "panda_cube",
    "go2",
    "go2_velocity",
    "g1",
    "g1_walking",
    "g1_reaching",
    "g1_squatting",
    "g1_stepping",
    "h1",
    "h1_walking",
    "h1_reaching",
    "h1_squatting",
    "h1_stepping",
    "g1_button",
    "g1_cabinet",
    "g1_ball",
    "g1_box",
    "g1_transfer",
    "g1_lift",
    "g1_carry",
    "g1_far_reach",
    "h1_button",
    "h1_cabinet",
    "h1_ball",
    "h1_box",
    "h1_transfer",
    "h1_lift",
    "h1_carry",
    "h1_far_reach",
)

NAMESPACE, VERSION = "repertoire", 0
_ONE, _MANY = "repertoire.envs.gym_env:GymEnv", "repertoire.envs.gym_vector:GymVectorEnv"


def gym_id(name: str) -> str:
    """Gymnasium id of registry name `name`: `ant_multi_goals` -> `repertoire/AntMultiGoals-v0`."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    return f"{NAMESPACE}/{camel}-v{VERSION}"


def register() -> None:
    """Register every env with Gymnasium, once: `make` gives one world, `make_vec` one batched simulation.

    No `max_episode_steps` is registered: the envs truncate by themselves after `episode_length` steps.
    """
    for name in NAMES:
        if gym_id(name) not in gymnasium.registry:
            gymnasium.register(
                id=gym_id(name),
                entry_point=_ONE,
                vector_entry_point=_MANY,
                kwargs={"env_name": name},
            )
