"""Policies that can be told: the slice of their observation that holds a goal becomes the latent of the library entry.

As the goal-conditioned skills of SkillBlender (arXiv 2506.09366), which a controller gives their sub-goals.
"""

from __future__ import annotations

import numpy as np

from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError
from repertoire.skills.latent import CommandPrior
from repertoire.skills.skill import Skill


def command_slices(spec: EnvSpec, command: str | None, command_range: float = 1.0) -> tuple[str, ...]:
    """The policy slice that is a command, if any.

    Raises `UserError` for one that the env does not have or that holds several steps, and for a range that is none.
    """
    if command is None:
        return ()
    found = {s.name: s for s in spec.obs.groups["policy"]}
    if command not in found:
        raise UserError(f"env {spec.name} has no policy slice {command!r} to command; it has {', '.join(found)}")
    if found[command].history > 1:
        raise UserError(f"policy slice {command!r} cannot be a command: it holds {found[command].history} steps of it")
    if not 0 < command_range < float("inf"):
        raise UserError(f"command_range must be positive, got {command_range}")
    return (command,)


def commanded(skill: Skill, spec: EnvSpec, command: str, command_range: float = 1.0) -> Skill:
    """`skill`, a policy of env `spec` without latent, with its slice `command` as its latent.

    At latent z it does what the policy does where the slice holds z * `command_range`, in the slice's own unit: the
    kernel's rows go to the end, and the normaliser and the scale of the slice go with them.
    """
    moved = spec.obs.index("policy", command_slices(spec, command, command_range))
    kept = np.setdiff1d(np.arange(spec.obs.size("policy")), moved)
    (row,) = (s for s in spec.obs.groups["policy"] if s.name == command)
    arrays = {
        **skill.arrays,
        "policy/kernel0": skill.arrays["policy/kernel0"][np.concatenate([kept, moved])],
        "command/scale": np.full(len(moved), command_range * row.scale, np.float32),
    }
    for name in ("mean", "var"):
        both = skill.arrays[f"obs/{name}"]
        arrays |= {f"obs/{name}": both[kept], f"command/{name}": both[moved]}
    told = skill.manifest["contract"]
    manifest = {
        **skill.manifest,
        "contract": {**told, "policy": [s for s in told["policy"] if s["name"] != command]},
        "latent": CommandPrior(len(moved)).describe(),
        "command": {"slice": command, "range": command_range},
    }
    return Skill(manifest, arrays)
