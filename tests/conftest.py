"""What all tests share: shapes and dtypes are checked wherever `fledge` states them, and compiled programs are kept."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

# Before JAX is imported, and inherited by the processes that tests start. One thread per worker: workers share cores.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Two devices, so that seeds can be spread. Little optimisation: these programs run for milliseconds and would compile
# for seconds.
_FLAGS = {
    "xla_force_host_platform_device_count": "2",
    "xla_cpu_multi_thread_eigen": "false",
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_parallel_codegen_split_count": "1",
}
os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={value}" for name, value in _FLAGS.items()))
for name in ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# A shell that starts the tests in the background has them, and what they start, ignore ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # until everything is imported

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("fledge", "beartype.beartype")

import pytest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def compiled_programs() -> Path:
    """The folder of compiled programs, shared by all workers and by later runs of the tests."""
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def nobody_debugs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracebacks on the console are asked for by the tests that look at them."""
    monkeypatch.delenv("FLEDGE_DEBUG", raising=False)


@pytest.fixture(scope="session")
def gridnav_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished smoke run of rl2-gridnav, made through the API. Copy it before changing it."""
    import fledge

    folder = tmp_path_factory.mktemp("runs") / "gridnav"
    return fledge.run("rl2-gridnav", scale="smoke", out=folder, quiet=True).dir


def pytest_collection_finish() -> None:
    """What was imported stays: looking through it for garbage again and again would take a twentieth of all time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--renew` writes the stored numbers of tests/golden anew."""
    parser.addoption("--renew", action="store_true", help="write the stored numbers of tests/golden anew")


@pytest.fixture
def renew(request: pytest.FixtureRequest) -> bool:
    """Whether stored numbers are to be written anew instead of compared."""
    return bool(request.config.getoption("--renew"))
