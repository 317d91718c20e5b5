"""The part of the exam that compiles nothing: properties, tasks, and shapes by abstract evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from fledge.core.contracts import Env
from fledge.core.spaces import Space
from fledge.core.types import SPLITS, Task, TimeStep
from fledge.envs.findings import (
    Failure,
    Finding,
    attempt,
    head,
    host,
    leaves,
    quick_jit,
    spell,
    structure_changes,
    value_change,
)

N_DRAWS = 128
"""Tasks drawn per split."""


def check_properties(env: Env) -> Iterator[Finding]:
    """Horizon, spaces, flags; and that the environment itself can be handed to a compiled function."""
    promises = (
        ("horizon", lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 1, "a whole number, 1 or more"),
        ("observation_space", lambda x: isinstance(x, Space), "a fledge.core.spaces.Space"),
        ("action_space", lambda x: isinstance(x, Space), "a fledge.core.spaces.Space"),
        ("fixed_length", lambda x: isinstance(x, bool), "True or False"),
        ("splits_disjoint", lambda x: isinstance(x, bool), "True or False"),
    )
    for name, good, wanted in promises:
        value = attempt(name, lambda name=name: getattr(env, name))  # type: ignore[misc]
        if isinstance(value, Failure):
            yield value.finding
        elif not good(value):
            yield Finding("properties", f"{name} is {value!r}", wanted, f"Return it from the property {name}.")
    odd = [path for path, leaf in leaves(env).items() if not eqx.is_array_like(leaf)]
    if odd:
        cure = "Declare such fields with eqx.field(static=True)."
        yield Finding("properties", f"fields {', '.join(odd)} are not arrays", "array or static fields", cure)
    if isinstance(failed := attempt("hash", lambda: hash(jax.tree.structure(env))), Failure):
        cure = "Make static fields numbers, words or tuples; arrays are ordinary fields."
        yield Finding("properties", failed.finding.came, "static fields that can be hashed", cure)


def draw_tasks(env: Env, key: Key[Array, ""]) -> dict[str, Task]:
    """`N_DRAWS` tasks of each split, in one compiled function."""
    keys = jax.random.split(key, N_DRAWS)
    return quick_jit(lambda keys: {s: jax.vmap(lambda k, s=s: env.sample(k, s))(keys) for s in SPLITS})(keys)


def check_tasks(env: Env, key: Key[Array, ""], drawn: dict[str, Task]) -> Iterator[Finding]:
    """Structure, purity and promised disjointness of the splits; `drawn` comes from `draw_tasks` with the same key."""
    keys = jax.random.split(key, N_DRAWS)
    singles = attempt("sample", lambda: {split: env.sample(keys[0], split) for split in SPLITS})
    again = attempt("sample", lambda: {split: env.sample(keys[0], split) for split in SPLITS})
    if isinstance(singles, Failure):
        yield singles.finding
        return
    for path, leaf in leaves(singles).items():
        if not isinstance(leaf, jax.Array | np.ndarray):
            yield Finding("tasks", f"task entry {path} is a {type(leaf).__name__}", "arrays", "Wrap it in jnp.asarray.")
    for split in SPLITS[1:]:
        for came, wanted in structure_changes(singles["train"], singles[split]):
            cure = "All splits share one task type."
            yield Finding("tasks", f"a task of '{split}' has {came}", f"{wanted}, as in 'train'", cure)
    if where := value_change(singles, again):
        yield Finding("pure", f"sample gave two tasks for one key: {where}", "one", "Draw from the key alone.")
    elif where := value_change(singles, head(drawn)):
        yield Finding("jit", f"sample gave {where} with and without jit", "the same", "Draw from the key alone.")
    for split in SPLITS:
        line = attempt(f"describe of a '{split}' task", lambda split=split: env.describe(singles[split]))  # type: ignore[misc]
        if isinstance(line, Failure):
            yield line.finding
        elif not (isinstance(line, str) and line):
            yield Finding("describe", f"describe gave {line!r}", "a line of text", "Say what this task is.")
    yield from _check_lists(env, singles["train"], drawn)


def _check_lists(env: Env, one: Task, drawn: dict[str, Task]) -> Iterator[Finding]:
    known: dict[str, set[bytes]] = {}
    for split in SPLITS:
        seen = _rows(drawn[split])
        listed = attempt(f"enumerate('{split}')", lambda split=split: env.enumerate(split))  # type: ignore[misc]
        known[split] = seen
        if isinstance(listed, Failure):
            yield listed.finding
        elif listed is not None:
            stacked = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), listed)
            changes = list(structure_changes(one, stacked))
            for came, wanted in changes:
                cure = "Stack the tasks along a new first axis."
                yield Finding("listed", f"a row of enumerate('{split}') has {came}", f"{wanted}, as sample", cure)
            if changes:
                continue
            known[split] = _rows(listed)
            if strangers := len(seen - known[split]):
                came = f"{strangers} of {len(seen)} tasks drawn for '{split}' are not in enumerate('{split}')"
                yield Finding("listed", came, "none", "Draw from the rows that are listed.")
    if not env.splits_disjoint:
        return
    for split in SPLITS[1:]:
        if shared := len(known["train"] & known[split]):
            came = f"{shared} of {len(known[split])} tasks of '{split}' are also in 'train'"
            yield Finding("disjoint", came, "none, since splits_disjoint is True", "Split the tasks, or return False.")


def _rows(tasks: Task) -> set[bytes]:
    flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(host(tasks))]
    parts = [np.ascontiguousarray(leaf).view(np.uint8) for leaf in flat]
    return {row.tobytes() for row in np.concatenate(parts, axis=1)}


def check_shapes(env: Env, key: Key[Array, ""], task: Task) -> Iterator[Finding]:
    """Shapes and dtypes of everything that `reset`, `restart` and `step` return, without running them."""
    action = attempt("action_space.sample", lambda: env.action_space.sample(key))
    if isinstance(action, Failure):
        yield action.finding
        return
    yield from _against_space("action", "action_space.sample", action, env.action_space)
    start = attempt("reset", lambda: jax.eval_shape(env.reset, key, task))
    if isinstance(start, Failure):
        yield start.finding
        return
    if not (isinstance(start, tuple) and len(start) == 2):
        yield Finding("timestep", f"reset returned {spell(start)}", "(state, observation)", "Return both.")
        return
    state, observation = start
    yield from _against_space("observation", "the observation of reset", observation, env.observation_space)
    again = attempt("restart", lambda: jax.eval_shape(env.restart, key, state, task))
    if isinstance(again, Failure):
        yield again.finding
    else:
        for came, wanted in structure_changes(start, again):
            yield Finding("state", f"restart returned {came}", f"{wanted}, as reset", "Return what reset returns.")
    after = attempt("step", lambda: jax.eval_shape(env.step, key, state, action, task))
    if isinstance(after, Failure):
        yield after.finding
    elif not (isinstance(after, tuple) and len(after) == 2 and isinstance(after[1], TimeStep)):
        came = (
            f"step returned ({', '.join(map(spell, after))})" if isinstance(after, tuple) else f"step: {spell(after)}"
        )
        yield Finding("timestep", came, "(state, TimeStep)", "Build the second with TimeStep.of.")
    else:
        yield from _check_states(state, after[0])
        yield from _check_timestep(after[1], env.observation_space)


def _against_space(check: str, what: str, x: Any, space: Space) -> Iterator[Finding]:
    wanted = jax.ShapeDtypeStruct(space.shape, space.dtype)
    if spell(x) != spell(wanted):
        cure = f"Change the {check} or the {check} space, so that they agree."
        yield Finding(check, f"{what} is {spell(x)}", f"{spell(wanted)}, as its space says", cure)


def _check_states(before: PyTree, after: PyTree) -> Iterator[Finding]:
    changes = list(structure_changes(before, after))
    for came, wanted in changes:
        cure = "Build the state with the same types in reset and step (jnp.asarray(0, jnp.int32), …)."
        yield Finding("state", f"after a step the state has {came}", f"{wanted}, as after reset", cure)
    if changes:
        return
    old, new = leaves(before), leaves(after)
    weak = [path for path in new if getattr(old[path], "weak_type", False) != getattr(new[path], "weak_type", False)]
    if weak:
        came = f"state entries {', '.join(weak)} are weakly typed in one of reset and step"
        cure = "Give dtypes: jnp.asarray(0, jnp.int32) instead of 0 or jnp.asarray(0)."
        yield Finding("compiles once", came, "one type in both (else every function of it compiles twice)", cure)


def _check_timestep(timestep: TimeStep, space: Space) -> Iterator[Finding]:
    for name in ("observation", "final_observation"):
        yield from _against_space("observation", f"{name} of step", getattr(timestep, name), space)
    wanted = {"reward": jnp.float32, "terminated": bool, "truncated": bool, "trial_end": bool}
    for name, dtype in wanted.items():
        scalar, value = jax.ShapeDtypeStruct((), dtype), getattr(timestep, name)
        if spell(value) != spell(scalar):
            cure = "TimeStep.of casts dtypes; the shape has to be () (batch with vmap)."
            yield Finding("timestep", f"{name} is {spell(value)}", spell(scalar), cure)
    if not isinstance(timestep.info, dict):
        yield Finding("timestep", f"info is {spell(timestep.info)}", "a dict of arrays", "Name each extra.")


def check_facts(env: Env, key: Key[Array, ""], task: Task) -> Iterator[Finding]:
    """The task vector, the optimum and the picture of one task."""
    vector = attempt("task_vector", lambda: env.task_vector(task))
    if isinstance(vector, Failure):
        yield vector.finding
    elif len(getattr(vector, "shape", ())) != 1 or not jnp.issubdtype(vector.dtype, jnp.floating):
        yield Finding("task vector", f"task_vector is {spell(vector)}", "float32[n]", "Flatten it and cast it.")
    optimum = attempt("optimal_return", lambda: env.optimal_return(task, 3))
    if isinstance(optimum, Failure):
        yield optimum.finding
    elif optimum is not None and (
        getattr(optimum, "shape", None) != (3,) or not jnp.issubdtype(optimum.dtype, jnp.floating)
    ):
        came = f"optimal_return(task, n_episodes=3) is {spell(optimum)}"
        yield Finding("optimum", came, "float32[3], or None", "Give one number per episode: jnp.full(n_episodes, …).")
    place = attempt("position", lambda: jax.eval_shape(lambda k, t: env.position(env.reset(k, t)[0]), key, task))
    if isinstance(place, Failure):
        yield place.finding
    elif place is not None and (getattr(place, "shape", None) != (2,) or not jnp.issubdtype(place.dtype, jnp.floating)):
        yield Finding("picture", f"position is {spell(place)}", "float32[2], or None", "Return jnp.stack([x, y]).")
    scene = attempt("scene", lambda: env.scene(task))
    if isinstance(scene, Failure):
        yield scene.finding
    elif scene is not None and isinstance(
        failed := attempt("json.dumps(scene)", lambda: json.dumps(dict(scene), allow_nan=False)), Failure
    ):
        cure = "Use plain numbers, words, lists and dicts: int(x), float(x), array.tolist()."
        yield Finding("picture", failed.finding.came, "a scene that can be written as JSON", cure)
