"""The exam for environments: everything in the table takes it, and so can a user's own class."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
from jaxtyping import Array, Key

from fledge.core.contracts import Env
from fledge.core.errors import ContractError
from fledge.envs.check_shapes import check_facts, check_properties, check_shapes, check_tasks, draw_tasks
from fledge.envs.check_walks import check_walks
from fledge.envs.findings import CHECKS, Failure, Finding, attempt, head

__all__ = ["CHECKS", "Finding", "check_env", "require_env"]

_BLOCKING = {"properties", "runs", "traces", "tasks", "state", "timestep"}
"""Findings after which walking could only repeat what has been said."""


def check_env(env: Env, *, key: Key[Array, ""] | None = None, n_steps: int | None = None) -> tuple[Finding, ...]:
    """Every promise of the contract that `env` breaks; empty if it keeps them all (see `CHECKS`).

    Args:
        env: a plain environment (not a `Trial`, which the exam puts around it).
        key: randomness of tasks and walks; the same exam every time if it is left out.
        n_steps: cuts the walks short where steps are dear; what needs whole episodes is then not examined.

    Example:
        >>> from fledge.envs.families import make
        >>> check_env(make("darkroom-tiny"))
        ()
    """
    key = jax.random.key(0) if key is None else key
    findings = list(check_properties(env))
    drawn = attempt("sample", lambda: draw_tasks(env, key))
    if findings or isinstance(drawn, Failure):
        return (*findings, drawn.finding) if isinstance(drawn, Failure) else tuple(findings)
    task = head(drawn["train"])
    findings += _take("sample", lambda: check_tasks(env, key, drawn))
    findings += _take("reset and step", lambda: check_shapes(env, key, task))
    findings += _take("a fact of a task", lambda: check_facts(env, key, task))
    if not any(finding.check in _BLOCKING for finding in findings):
        findings += _take("an episode", lambda: check_walks(env, key, drawn, n_steps))
    return tuple(dict.fromkeys(findings))


def require_env(env: Env, *, key: Key[Array, ""] | None = None, n_steps: int | None = None) -> None:
    """Nothing, if `env` passes the exam.

    Raises:
        ContractError: it does not; all broken promises are listed together.
    """
    findings = check_env(env, key=key, n_steps=n_steps)
    if findings:
        lines = "\n".join(f"  {finding}" for finding in findings)
        raise ContractError(f"{type(env).__name__} breaks {len(findings)} promise(s) of Env:\n{lines}")


def _take(what: str, part: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of one part, those before it raised included."""
    findings: list[Finding] = []
    failed = attempt(what, lambda: findings.extend(part()))
    return [*findings, failed.finding] if isinstance(failed, Failure) else findings
