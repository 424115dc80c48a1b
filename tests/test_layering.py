"""Imports go one way, and nothing happens at import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "costmw"

# From the bottom up: a part imports only what stands before it, or beside it in its own set.
LAYERS: list[set[str]] = [
    {"errors", "hosts", "listening", "money", "events", "periods", "toml_file"},
    {"context"},
    {"providers"},
    {"chargeable", "price_list", "price_overrides", "pricing", "worst_prices", "bounds"},
    {"budgets", "budget_file", "config"},
    {"caps"},
    {"store"},
    {"capture", "headroom", "meter", "meters", "pipeline"},
    {"usual", "anomalies", "forecast"},
    {
        "answering",
        "answers",
        "arithmetic",
        "outlook",
        "question",
        "reports",
        "reprice",
        "savings",
        "transfer",
    },
    {"care"},
    {"__init__"},
    {"alerts", "monthly"},
    {"dashboard"},
    {"serve"},
    {"integrations"},
    {"proxy"},
    {"doctor"},
    {"testing"},
    {"demo"},
    {"cli"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}

# Imports inside functions and for types only: who is asked at run time, not needed to exist.
ALLOWED_LATE = {
    ("context", "meter"),
    ("meter", "alerts"),
    ("meter", "reports"),
    ("meter", "reprice"),
    ("store", "config"),
    ("integrations", "dashboard"),
}


def part_of(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """The parts of costmw that a file imports, and whether at once when it is imported."""
    tree = ast.parse(path.read_text("utf-8"))
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, *, at_once: bool) -> None:
        for child in ast.iter_child_nodes(node):
            late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom) and child.module:
                names = [child.module]
                if child.module == "costmw":
                    names = [
                        f"costmw.{a.name}"
                        if (SOURCE / f"{a.name}.py").is_file() or (SOURCE / a.name).is_dir()
                        else "costmw"
                        for a in child.names
                    ]
            else:
                names = []
            found.extend(
                (part_of(name), at_once) for name in names if name.split(".")[0] == "costmw"
            )
            visit(child, at_once=at_once and not late)

    visit(tree, at_once=True)
    return found


FILES = sorted(p for p in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_file_imports_only_what_stands_before_it(path: Path) -> None:
    part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert part in RANK, f"{part} has no place in the architecture: give it one here and in docs"
    for imported, at_once in imports_of(path):
        backward = RANK[imported] > RANK[part]
        assert not backward or (not at_once and (part, imported) in ALLOWED_LATE), (
            f"{path.name} ({part}) imports {imported}, which stands after it"
        )


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if "integrations" not in p.parts and "testing" not in p.parts],
    ids=lambda p: str(p.relative_to(SOURCE)),
)
def test_the_core_imports_no_framework(path: Path) -> None:
    frameworks = {"starlette", "fastapi", "flask", "werkzeug", "django", "httpx", "httpx2"}
    for node in ast.parse(path.read_text("utf-8")).body:
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        assert not frameworks & {name.split(".")[0] for name in names}


def test_importing_costmw_loads_no_optional_package_and_does_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, threading, os\n"
        "import costmw\n"
        "costmw.Meter('sqlite:///llmcost.db')\n"
        "heavy = {'genai_prices', 'httpx', 'httpx2', 'starlette', 'fastapi', 'flask',\n"
        "         'sqlite_utils', 'openai', 'anthropic', 'sqlite3', 'pydantic', 'typer'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count(), os.listdir('.'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['sqlite3'] 1 []"


def test_a_missing_package_is_an_error_that_names_the_pip_command(tmp_path: Path) -> None:
    wanted = {
        "costmw.integrations.starlette": ("starlette", "costmw[fastapi]"),
        "costmw.integrations.flask": ("flask", "costmw[flask]"),
        "costmw.integrations.django": ("django", "costmw[django]"),
        "costmw.proxy": ("httpx2", "costmw[proxy]"),
        "costmw.proxy.server": ("uvicorn", "costmw[proxy]"),
        "costmw.testing": ("uvicorn", "costmw[testing]"),
    }
    for module, (package, extra) in wanted.items():
        script = f"import sys; sys.modules[{package!r}] = None; import {module}"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 1
        assert f"{package} is not installed. To enable this: pip install '{extra}'" in done.stderr


def test_the_command_line_without_its_packages_says_what_to_install() -> None:
    for package, arguments, extra in (
        ("typer", [], "costmw[cli]"),
        ("fastapi", ["demo"], "costmw[demo]"),
    ):
        script = (
            f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = {arguments!r}\n"
            "from costmw.cli import main; main()"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"pip install '{extra}'" in done.stderr
