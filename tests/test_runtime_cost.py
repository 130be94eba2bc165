"""What a package takes on disk with all it needs, and what importing it takes."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import disturbance
from bench.installed import installed_bytes, required_packages
from bench.launcher import Launcher
from bench.measurement import Disturbance
from bench.runtime_cost import measure_cost, runtime_costs
from bench.runtimes import RUNTIMES
from bench.runtimes.fake import FakeRuntime
from convert.store import Store
from models.errors import MissingPackageError

Install = Callable[..., None]
CALM = Disturbance(0.0, 0.0, 0.0)
BUSY = replace(CALM, other_cores=1.0)


class Imported(FakeRuntime):
    """A runtime of which nothing but the import is used."""

    def __init__(self, name: str, package: str, module: str) -> None:
        super().__init__()
        self.name, self.package, self.module = name, package, module


class CountingLauncher(Launcher):
    """Counts the processes that measure a cost."""

    def __init__(self) -> None:
        super().__init__({"onnxruntime": Path("/no/such/python")})
        object.__setattr__(self, "measured", [])

    def run(self, runtime: str, arguments: Sequence[str]) -> str:
        if "bench.runtime_cost" in arguments:
            self.measured.append(runtime)  # type: ignore[attr-defined]
        return super().run(runtime, arguments)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package of one file (and its bytecode) into a folder of its own, as pip would leave it."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)

    def install(name: str, size: int, requires: Sequence[str] = (), *, code: str = "", shared: str = "") -> None:
        module = name.replace("-", "_").replace(".", "_").lower()
        (site / module).mkdir(parents=True)
        (site / module / "__init__.py").write_text(code.ljust(size, "\n"), encoding="utf-8")
        (site / module / "__init__.pyc").write_bytes(bytes(1000))
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        files = [f"{module}/__init__.py,,", f"{module}/__init__.pyc,,", *([f"{shared},,"] if shared else [])]
        (info / "RECORD").write_text("\n".join(files) + "\n", encoding="utf-8")

    return install


def test_all_that_is_needed_is_counted_once(install: Install) -> None:
    install("top-package", 100, ["Left_Part>=1", "right.part"])
    install("left-part", 20, ["common-part", "top-package"], shared="common_part/__init__.py")
    install("Right.Part", 3, ["Common.Part (>=0.5)"])
    install("common_part", 4000)
    assert required_packages("Top_Package") == ["common-part", "left-part", "right-part", "top-package"]
    assert installed_bytes("top-package") == 4123


def test_extras_and_other_platforms_are_not_needed(install: Install) -> None:
    other = "win32" if sys.platform != "win32" else "linux"
    install("top-package", 1, ["gpu-part; extra == 'gpu'", f"other-part; sys_platform == '{other}'", "absent-part"])
    install("gpu-part", 10)
    install("other-part", 100)
    assert required_packages("top-package") == ["top-package"]


def test_extra_that_a_requirement_asks_for_is_needed(install: Install) -> None:
    install("top-package", 1, ["part[fast]"])
    install("part", 10, ["fast-part; extra == 'fast'", "slow-part; extra == 'slow'"])
    install("fast-part", 100)
    install("slow-part", 1000)
    assert required_packages("top-package") == ["fast-part", "part", "top-package"]


def test_package_that_is_absent_is_refused() -> None:
    with pytest.raises(MissingPackageError, match=r"no-such-package is not installed here: pip install"):
        installed_bytes("no-such-package")


def test_package_without_a_list_of_its_files_is_refused(install: Install, tmp_path: Path) -> None:
    install("bare-package", 1)
    (tmp_path / "site" / "bare_package-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(MissingPackageError, match="bare-package has no list of its files"):
        installed_bytes("bare-package")


def test_import_is_measured_in_processes_of_its_own(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import time; print('hello'); time.sleep(0.02); held = b'x' * {32 * 2**20}"
    install("heavy-package", 200, code=code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setitem(RUNTIMES, "heavy", Imported("heavy", "heavy-package", "heavy_package"))
    cost = measure_cost("heavy")
    assert (cost.version, cost.install_bytes) == ("1.0", 200)
    assert cost.import_seconds >= 0.02
    assert cost.import_rss_bytes > 30 * 2**20
    assert not list((tmp_path / "site").rglob("__pycache__"))  # the environment stays as it was
    assert "heavy_package" not in sys.modules


def test_module_that_can_not_be_imported_is_refused(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("broken-package", 1)
    monkeypatch.setitem(RUNTIMES, "broken", Imported("broken", "broken-package", "no_such"))
    with pytest.raises(MissingPackageError, match="can't import no_such"):
        measure_cost("broken")


def test_costs_are_kept_and_a_runtime_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(disturbance, "disturbance_between", lambda before, after: CALM)
    store, launcher = Store(tmp_path / "store"), CountingLauncher()
    costs = runtime_costs(store, launcher, ["fake", "onnxruntime"])
    assert list(costs) == ["fake"]
    assert costs["fake"].install_bytes > 10**6
    assert costs["fake"].import_rss_bytes > 0
    assert "what onnxruntime costs is not known: --python onnxruntime=/no/such/python" in capsys.readouterr().err
    assert runtime_costs(store, launcher, ["fake"]) == costs
    assert launcher.measured == ["fake"]  # type: ignore[attr-defined]


def test_cost_of_a_busy_machine_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbance, "disturbance_between", lambda before, after: BUSY)
    store, launcher = Store(tmp_path / "store"), CountingLauncher()
    assert [list(runtime_costs(store, launcher, ["fake"])) for _ in range(2)] == [["fake"], ["fake"]]
    assert launcher.measured == ["fake", "fake"]  # type: ignore[attr-defined]
