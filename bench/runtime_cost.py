"""What a runtime costs before any model: `python -m bench.runtime_cost RUNTIME`, in the runtime's own environment."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from subprocess import PIPE
from typing import Any

import psutil

from bench.disturbance import Watch, why_disturbed
from bench.installed import installed_bytes
from bench.launcher import Launcher
from bench.result_file import from_json
from bench.runtimes import find_runtime, runtime_version
from bench.setting import RuntimeCost
from convert.store import Store
from models.errors import CaptionbenchError, MissingPackageError
from models.files import content_key
from models.progress import say

# Raised when a change makes the same environment cost something else.
COST_VERSION = 2
# After one that is not counted: it reads the files from the disk and compiles them.
PROCESSES = 3
# Tells when it is about to import and how long that took, and then waits, so that its memory can be read from outside:
# a module to read it with would already have imported part of what is measured.
_CHILD = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
__import__(sys.argv[1])
print("seconds", time.perf_counter() - start, flush=True)
sys.stdin.readline()
"""


def runtime_costs(store: Store, launcher: Launcher, runtimes: Iterable[str]) -> dict[str, RuntimeCost]:
    """By runtime; one that can't be measured is left out, and the run says why.

    Kept in the store until the environment or the machine changes, for three imports of TensorFlow take a while.
    """
    costs = {}
    for runtime in runtimes:
        try:
            costs[runtime] = _stored_cost(store, launcher, runtime)
        except CaptionbenchError as error:
            say(f"what {runtime} costs is not known: {error}")
    return costs


def measure_cost(runtime: str) -> RuntimeCost:
    """The cost of a runtime in this environment. Raises MissingPackageError where it is not installed.

    `import_seconds` and `import_rss_bytes` are medians over fresh processes, of the import statement alone: neither
    has the interpreter's own start in it. The files are in memory and compiled, as from the second import on.
    """
    found = find_runtime(runtime)
    install_bytes = installed_bytes(found.package)
    imports = _imports(found.module)
    return RuntimeCost(
        version=runtime_version(found),
        install_bytes=install_bytes,
        import_seconds=round(statistics.median(seconds for seconds, _ in imports), 4),
        import_rss_bytes=int(statistics.median(grown for _, grown in imports)),
    )


def _stored_cost(store: Store, launcher: Launcher, runtime: str) -> RuntimeCost:
    key = content_key(COST_VERSION, runtime, str(launcher.python(runtime)), launcher.describe(runtime))
    found = store.find("runtime_costs", key)
    facts = found.facts if found else _launch(store, launcher, runtime, key)
    cost: RuntimeCost = from_json(RuntimeCost, dict(facts))
    return cost


def _launch(store: Store, launcher: Launcher, runtime: str, key: str) -> Mapping[str, Any]:
    """Measure in the runtime's environment; kept only if nothing else ran meanwhile."""
    say(f"measuring what it costs to install and to import {runtime}")
    with Watch() as watch:
        output = launcher.run(runtime, ["-m", "bench.runtime_cost", runtime])
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    if why := why_disturbed(watch.disturbance):
        say(f"{runtime}: {why} during its import, so the next run measures it again")
        return facts
    return store.build("runtime_costs", key, f"the cost of {runtime}", lambda _: facts).facts


def _imports(module: str) -> list[tuple[float, int]]:
    """What importing a module takes, in several processes, its bytecode at hand.

    Not every installer writes bytecode, and an environment may forbid it: TensorFlow then takes over twice as long.
    So it is kept in a folder of this measurement's own, and the environment stays as it was.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = inherited | {"PYTHONPYCACHEPREFIX": bytecode}
        return [_import_once(module, environment) for _ in range(1 + PROCESSES)][1:]


def _import_once(module: str, environment: Mapping[str, str]) -> tuple[float, int]:
    """Seconds and growth in resident bytes of importing a module in a new process."""
    # -P: a folder that happens to have the module's name must not be what is imported.
    command = [sys.executable, "-P", "-c", _CHILD, module]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment) as child:
        _answer(child, "ready", module)
        before = _resident_bytes(child)
        _go_on(child)
        seconds = float(_answer(child, "seconds", module))
        grown = _resident_bytes(child) - before
        _go_on(child)
    return seconds, grown


def _answer(child: "subprocess.Popen[str]", word: str, module: str) -> str:
    """What follows `word` in the child's output; a module may print lines of its own."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(word):
            return line.removeprefix(word)
    raise MissingPackageError(f"{sys.executable} can't import {module}: install its package in that environment.")


def _go_on(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def _resident_bytes(child: "subprocess.Popen[str]") -> int:
    return int(psutil.Process(child.pid).memory_info().rss)


def main(arguments: list[str]) -> int:
    """Print the cost of a runtime as JSON; errors a user can cause become one line and status 2."""
    try:
        print(json.dumps(dataclasses.asdict(measure_cost(arguments[0]))))
    except CaptionbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
