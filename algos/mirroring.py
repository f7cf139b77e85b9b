"""Mirror images of transitions, for learners that use a task's left-right symmetry (Mittal et al. 2024)."""

from __future__ import annotations

from typing import Any, NamedTuple

from repertoire.algos.types import Objective, Transition
from repertoire.envs import symmetry
from repertoire.envs.symmetry import Flip
from repertoire.errors import UserError


class Flips(NamedTuple):
    """Flips of what PPO reads of a transition."""

    policy: Flip
    critic: Flip
    action: Flip


def of(env: Any, objective: Objective | None) -> Flips:
    """The flips of an env. Raises `UserError` where it has no mirror symmetry, or where latents would need one too.

    The reward of a skill objective under latent z is not that of the mirrored transition under z, nor under a known
    mirror image of z: encoders and discriminators put skills where they like.
    """
    if objective is not None:
        raise UserError("latents have no mirror image: algo.symmetry=true is for tasks, not for skill discovery")
    mirror, obs = symmetry.of(env), env.spec.obs
    return Flips(mirror.group(obs, "policy"), mirror.group(obs, "critic"), mirror.action)


def image(flips: Flips, batch: Transition) -> Transition:
    """The transitions as they look in the mirror. Their log probabilities are still those of the drawn actions.

    The learner replaces them by those of the image under the policy that collects: a policy that is not symmetric yet
    gives the image of its action any probability, and ratios far from 1 drown what was really drawn.
    """
    obs = {**batch.obs, "policy": flips.policy(batch.obs["policy"]), "critic": flips.critic(batch.obs["critic"])}
    return batch.replace(obs=obs, action=flips.action(batch.action))
