"""What a contract says of a rule that decides in place of a network: where its tables come from, what it remembers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from repertoire.deploy.graph import Graph
from repertoire.envs.lattice import Lattice
from repertoire.envs.task import Task
from repertoire.envs.tasks.maze import Walled
from repertoire.high_level.goals import ZeroShot
from repertoire.high_level.navigate import Navigator
from repertoire.high_level.plan import Imagined, Planner
from repertoire.high_level.route import WayPoint
from repertoire.high_level.rules import Decider
from repertoire.high_level.script import Machine

#: Kind -> what a runner should know of it.
NOTES = {
    "script": "stages in turn; z begins with the stage and the macro steps in it",
    "zero_shot": "towards phi(goal) - phi(features); it remembers nothing",
    "route": "towards the way point that the table gives for the cell the robot is in and the nearest of `goals`; it "
    "remembers nothing",
    "graph": "the option of least cost by the measured hand-offs and the table of costs to the nearest of `goals`; z "
    "begins with 0 at first, then 1 + the option done last",
    "plan": "a search in the learned dynamics, at every decision; `noise` is what it draws, standard normal, anew for "
    "each; z begins with the mean of the rest of the last search, a latent (or scores of the options) per macro step",
}


def kind_of(rule: Decider) -> str:
    """One of `NOTES`, as `controller.kind` has it."""
    if isinstance(rule, ZeroShot):
        return "route" if isinstance(rule.ahead, WayPoint) else "zero_shot"
    return {Machine: "script", Navigator: "graph", Planner: "plan"}[type(rule)]


def describe(graph: Graph, task: Task) -> dict[str, Any] | None:
    """`hierarchy.rule` of a contract; None where a network decides."""
    rule = graph.rule
    if rule is None:
        return None
    told: dict[str, Any] = {"kind": (kind := kind_of(rule)), "note": NOTES[kind]}
    if isinstance(rule, ZeroShot) and isinstance(rule.ahead, WayPoint):
        way = rule.ahead
        told |= {"settings": dataclasses.asdict(way.config), **_map(task, way.guide.cells, way.guide.goals)}
    if isinstance(rule, Navigator):
        field = rule.field
        told |= {"settings": dataclasses.asdict(field.config), "measured_on": rule.graph.measured_on}
        told |= _map(task, field.cells, field.goals)
    if isinstance(rule, Planner) and isinstance(rule.model, Imagined):
        cost, dynamics = dataclasses.asdict(rule.model.cost), rule.model.dynamics
        told |= {"settings": dataclasses.asdict(rule.config), "cost": cost, "members": dynamics.members}
    return told


def _map(task: Task, cells: Lattice, goals: np.ndarray) -> dict[str, Any]:
    """The place, m: rows (towards -y, S at the origin) and cells of the map, null on open ground; cells of the tables.

    `low` is the centre of their first, from the `origin`: the world's, or on open ground the goal.
    """
    walled = isinstance(task, Walled)
    return {
        "map": list(task.rows) if isinstance(task, Walled) else None,
        "map_cell": task.cell if isinstance(task, Walled) else None,
        "origin": "world" if walled else "goal",
        "low": np.asarray(cells.low).tolist(),
        "cell": float(cells.cell),
        "cells": list(cells.free.shape),
        "goals": np.asarray(goals).tolist() if walled else None,
    }
