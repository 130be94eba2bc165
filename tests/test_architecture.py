"""The house: which way imports point, what stays light, and that every module says what it is for."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ["models", "convert", "bench", "reports"]
FRAMEWORKS = {"tensorflow", "tf_keras", "tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib"}
MODULES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts
)


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    own = FOLDERS.index(path.relative_to(ROOT).parts[0])
    right = set(FOLDERS[own + 1 :]) | {"captionbench", "tests"}
    heads = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    assert not heads & right


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_frameworks_are_imported_late(path: Path) -> None:
    tree = ast.parse(path.read_text())
    top = ast.Module(body=[n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], type_ignores=[])
    assert not {name.split(".")[0] for name in imported(top)} & FRAMEWORKS


@pytest.mark.parametrize("path", [*MODULES, ROOT / "captionbench.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import bench, models.datasets, models.decoding",
        "import bench.worker, bench.conftest, bench.runtimes, bench.captioning",
        "import bench.run, reports.write",
    ],
)
def test_measuring_code_loads_no_framework(statement: str) -> None:
    assert not modules_loaded_by(statement) & FRAMEWORKS


def test_workers_load_no_scorers() -> None:
    assert "nltk" not in modules_loaded_by("import bench.worker")


def test_command_line_loads_little_before_a_verb_runs() -> None:
    loaded = modules_loaded_by("import captionbench")
    assert not loaded & (FRAMEWORKS | {"numpy", "nltk", "scipy", "PIL"})


def test_every_package_is_part_of_the_distribution() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in MODULES if path.name == "__init__.py"}
    assert found <= set(listed)
