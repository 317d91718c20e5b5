"""What has to be set up before JAX starts: threads, and a cache of compiled programs. Runners only, never at import."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fledge.core.errors import ConfigError, unknown

FEW_CORES = 2
MOST_CPU_DEVICES = 16
"""Seeds run side by side on the cores of a CPU; more of them than this is rare, and each device has its threads."""
_THREADS = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The first is read by XLA's thread pools, the others by BLAS libraries."""


def prepare() -> None:
    """Limit threads on small machines, make each core a device, and keep compiled programs between runs.

    What the environment already says is left as it is; so is a cache that the caller has configured. Threads and
    devices can only be set before JAX's first computation; after it they stay as they are.
    """
    n_cores = cores()
    if n_cores <= FEW_CORES:
        for name in _THREADS:
            os.environ.setdefault(name, str(n_cores))
    import jax

    with suppress(RuntimeError):  # JAX has computed something already
        if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
            jax.config.update("jax_num_cpu_devices", min(n_cores, MOST_CPU_DEVICES))
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        folder = cache_folder() / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # a home that cannot be written costs compile time, nothing else
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def cache_folder() -> Path:
    """`FLEDGE_CACHE`, or ~/.cache/fledge."""
    chosen = os.environ.get("FLEDGE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fledge"


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device() -> str:
    """The machine in words, such as "cpu (2 cores)" or "gpu (NVIDIA H100)"."""
    import jax

    first = jax.devices()[0]
    if first.platform == "cpu":
        return f"cpu ({cores()} cores)"
    return f"{first.platform} ({first.device_kind}, {len(jax.devices())} in all)"


def versions() -> dict[str, str]:
    """Package → version, of what decides a run's numbers."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for package in ("fledge", "jax", "jaxlib", "equinox", "optax", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source, with "+changes" where the checkout has any; None where it is no checkout."""
    import subprocess

    folder = Path(__file__).resolve().parent
    try:
        ask = ["git", "-C", str(folder)]
        run = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        known = subprocess.run([*ask, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10)
        if known.returncode:
            return None  # installed inside somebody else's checkout
        changes = subprocess.run([*ask, "status", "--porcelain", "--", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def benchmark(name: str, arguments: Sequence[str]) -> int:
    """Run a script of the checkout's benchmarks/ in a process of its own; returns its exit code.

    Raises:
        ConfigError: this is no checkout, or there is no such script.
    """
    import subprocess

    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    if not folder.is_dir():
        raise ConfigError(
            "Benchmarks are not part of the installed package. Run 'make bench' in a checkout of the source."
        )
    script = folder / f"{name}.py"
    if not script.exists():
        raise unknown("benchmark", name, [path.stem for path in folder.glob("*.py") if path.stem[0] != "_"])
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode
