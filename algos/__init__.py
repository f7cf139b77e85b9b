"""Learners: rollout, advantages, PPO, SAC, networks and the training loop."""
