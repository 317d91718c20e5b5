"""The house rules: floors, levels, cycles and sizes, read from the sources and from the table in `pyproject.toml`."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = REPOSITORY / "src" / "fledge"
MODULES = sorted(SOURCES.rglob("*.py"))
LONGEST_FILE = 420
LONGEST_FUNCTION = 70


def floors() -> dict[str, int]:
    """Room -> floor."""
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["fledge"]["floors"]
    return {room: int(floor) for floor, rooms in table.items() for room in rooms}


def dotted(path: Path) -> str:
    """src/fledge/nets/gru_scan.py -> fledge.nets.gru_scan; a package goes by its own name."""
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in MODULES}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module of fledge that this source names, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "fledge")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fledge":
            for alias in node.names:
                if (node.module, alias.name) == ("fledge", "__version__"):
                    continue  # a constant of the package, above no floor
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in NAMES else str(node.module)


def room(module: str) -> str:
    """fledge.nets.gru_scan -> nets; the package itself, which only hands names on, has no room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def offences(source: str, module: str, levels: dict[str, int]) -> list[str]:
    """What the imports of one module do against the floor plan."""
    here, found = room(module), []
    for target in imported(ast.parse(source)):
        there = room(target)
        if there == here:
            continue
        if there not in levels:
            found.append(f"{module} imports {target}, which is on no floor")
        elif levels[there] >= levels[here]:
            found.append(f"{module} (floor {levels[here]}) imports {target} (floor {levels[there]})")
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a directed graph, or nothing."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := walk(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def hands_names_on(tree: ast.Module) -> bool:
    """Docstring, imports, `__all__`, `__version__` and a module's `__getattr__` / `__dir__`; nothing else."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.If):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        if isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__"):
            continue
        return False
    return True


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room(module) for module in NAMES} - {""}
    assert rooms <= set(floors()), f"rooms without a floor: {sorted(rooms - set(floors()))}"


@pytest.mark.parametrize("floor", sorted(set(floors().values())))
def test_imports_only_go_down_and_rooms_of_one_floor_are_strangers(floor: int) -> None:
    levels = floors()
    found = [
        offence
        for module, path in NAMES.items()
        if levels.get(room(module)) == floor
        for offence in offences(path.read_text(), module, levels)
    ]
    assert not found, "\n".join(found)


def test_an_import_that_goes_up_is_caught() -> None:
    levels = floors()
    assert offences("from fledge.run import config", "fledge.core.stats", levels)
    assert offences("def f():\n    import fledge.envs.trial", "fledge.nets.blocks", levels)
    assert not offences("from fledge.core import types", "fledge.nets.blocks", levels)


def test_package_room_file_and_no_deeper() -> None:
    deep = [str(path) for path in MODULES if len(path.relative_to(SOURCES).parts) > 2]
    assert not deep, f"deeper than package / room / file: {deep}"


def test_imports_are_absolute() -> None:
    relative = [
        f"{module}:{node.lineno}"
        for module, path in NAMES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not relative, f"relative imports: {relative}"


def test_an_init_only_hands_names_on() -> None:
    busy = [
        str(path) for path in MODULES if path.name == "__init__.py" and not hands_names_on(ast.parse(path.read_text()))
    ]
    assert not busy, f"move what these define into files of their own: {busy}"


def test_no_import_cycle() -> None:
    graph = {module: set(imported(ast.parse(path.read_text()))) - {module} for module, path in NAMES.items()}
    found = cycle(graph)
    assert not found, " -> ".join(found)


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_files_and_functions_are_of_a_size_to_read() -> None:
    long = [f"{path}: {n} lines" for path in MODULES if (n := len(path.read_text().splitlines())) > LONGEST_FILE]
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > LONGEST_FUNCTION:
                    long.append(f"{path}:{node.lineno} {node.name}: {size} lines")
    assert not long, "\n".join(long)
