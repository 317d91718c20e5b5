"""Export: a trained agent as one file of StableHLO that runs with JAX alone."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from fledge.core.errors import ConfigError, ContractError
from fledge.run.agent import AgentMemory, LoadedAgent, decide, first_memory, load

FORMAT = 1
PLATFORMS = ("cpu", "cuda")


def export_agent(path: Path | str, out: Path | str | None = None, *, seed: int | None = None) -> Path:
    """Write the agent of a run folder as one zip file; returns its path.

    The file holds three functions as serialised StableHLO (`begin`, `sampled`, `greedy`), agent.json, which describes
    their inputs and outputs, and load.py, which calls them with JAX alone (and flatbuffers, which
    `jax.export` reads its own files with).

    Args:
        path: the run folder.
        out: the file; by default agent.zip in the folder. Never overwritten.
        seed: which seed's agent; the first by default.

    Raises:
        ConfigError: `out` is there already.
        ContractError: the agent adapts by gradient steps, which this format has no function for.
    """
    agent = load(path, seed=seed)
    if agent.agent.adapts:
        raise ContractError(
            f"{type(agent.agent).__name__} adapts at episode ends by its own code; it has no export yet."
        )
    target = Path(out) if out is not None else Path(path) / "agent.zip"
    if target.exists():
        raise ConfigError(f"{target} is there already. Choose another --out, or delete it first.")
    if not target.parent.is_dir():
        raise ConfigError(f"There is no folder {target.parent} to write into. Make it first.")

    functions, about = _functions(agent)
    loader = (resources.files("fledge.run") / "loader.py").read_text(encoding="utf-8")
    beside = target.with_name(f".{target.name}.part")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as file:
        for name, (function, inputs) in functions.items():
            exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*inputs)
            file.writestr(f"{name}.stablehlo", bytes(exported.serialize()))
        file.writestr("agent.json", json.dumps(about, indent=2, ensure_ascii=False))
        file.writestr("load.py", loader)
    beside.replace(target)
    return target


def _functions(loaded: LoadedAgent) -> tuple[dict[str, tuple[Callable[..., Any], list[Any]]], dict[str, Any]]:
    """Name → pure function of arrays and the shapes of its inputs; and what agent.json says about them."""
    agent, trial = loaded.agent, loaded.trial
    told = agent.told
    task_shape = jax.eval_shape(lambda key: trial.task_vector(trial.sample(key)), jax.random.key(0))
    task = jnp.zeros(task_shape.shape) if told else None
    start = first_memory(agent, trial, jax.random.key(0), task)
    carried = (start.inner, start.observation)
    structure = jax.tree.structure(carried)

    def begin() -> tuple[Array, ...]:
        return tuple(jnp.asarray(leaf) for leaf in jax.tree.leaves(carried))

    def step(inputs: dict[str, Any], noise: PyTree[Array] | None) -> tuple[Array, tuple[Array, ...]]:
        inner, last_observation = jax.tree.unflatten(structure, inputs["memory"])
        memory = AgentMemory(
            inner, last_observation, inputs["last_action"], inputs["start"], jax.random.key(0), inputs.get("task")
        )
        seen, final = inputs["observation"], inputs["final_observation"]
        action, after = decide(agent, memory, seen, inputs["reward"], inputs["done"], final, noise)
        return action, tuple(jax.tree.leaves((after.inner, after.observation)))

    def greedy(inputs: dict[str, Any]) -> tuple[Array, tuple[Array, ...]]:
        return step(inputs, None)

    def sampled(inputs: dict[str, Any]) -> tuple[Array, tuple[Array, ...]]:
        key = jax.random.wrap_key_data(inputs["key"], impl="threefry2x32")
        return step(inputs, agent.sample_noise(key))

    inputs: dict[str, Any] = {
        "memory": begin(),
        "observation": start.observation,
        "last_action": start.action,
        "reward": jnp.zeros(()),
        "done": jnp.asarray(False),
        "final_observation": start.observation,
        "start": jnp.asarray(True),
    }
    if told:
        inputs["task"] = task
    with_key = inputs | {"key": jnp.zeros(2, jnp.uint32)}
    functions: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "begin": (begin, []),
        "greedy": (greedy, [inputs]),
        "sampled": (sampled, [with_key]),
    }
    return functions, _about(loaded, with_key)


_MEANING = {
    "memory": "what the last call returned; at a trial's start, what begin() returned",
    "observation": "what the agent sees now (after an episode's end, the start of the next episode)",
    "last_action": "the action of the last call (zeros at a trial's start)",
    "reward": "what the last action earned",
    "done": "whether the last action ended an episode",
    "final_observation": "what the last action led to (the observation, unless an episode ended)",
    "start": "whether this is a trial's first decision (the last transition is then ignored)",
    "task": "the task vector that this agent is told",
    "key": "two uint32 numbers, fresh at every call: the randomness of a sampled action (not for greedy)",
}


def _about(loaded: LoadedAgent, inputs: dict[str, Any]) -> dict[str, Any]:
    def shape(leaf: Array) -> dict[str, Any]:
        return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}

    described = {name: jax.tree.map(shape, value) for name, value in inputs.items()}
    return {
        "format": FORMAT,
        "recipe": loaded.recipe,
        "seed": loaded.seed,
        "environment": loaded.config.env.family,
        "episodes_per_trial": loaded.trial.n_episodes,
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
        "functions": {
            "begin": "() -> memory",
            "greedy": "(inputs) -> (action, memory): the most likely action",
            "sampled": "(inputs, key among them) -> (action, memory)",
        },
        "inputs": {name: {"arrays": described[name], "meaning": _MEANING[name]} for name in described},
        "action": shape(inputs["last_action"]),
    }
