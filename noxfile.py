"""The way in for people and for CI: `nox -l` lists the sessions.

Each runtime has an environment of its own, as it would be deployed; `bench` starts a process in each.
"""

import hashlib
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
CODE = ("captionbench.py", "noxfile.py", "models", "convert", "bench", "reports", "tests")
# Runtime -> the environment session that holds it.
RUNTIME_SESSIONS = {
    "tensorflow": "env-tensorflow",
    "keras_predict": "env-tensorflow",
    "tflite": "env-tflite",
    "onnxruntime": "env-onnxruntime",
}
# What is published of the 2020 study, in the order of a reader's interest.
STUDY_SUITES = ("flickr8k", "encoders", "paper", "seeds")
ENVIRONMENTS = list(dict.fromkeys(RUNTIME_SESSIONS.values()))


@nox.session(name="env-tensorflow")
def environment_tensorflow(session: nox.Session) -> None:
    """Install the build environment: TensorFlow and all converters."""
    _install(session, "-e", ".[build]")


@nox.session(name="env-tflite")
def environment_tflite(session: nox.Session) -> None:
    """Install the TFLite environment: LiteRT and no TensorFlow."""
    _install(session, "-e", ".[tflite]")


@nox.session(name="env-onnxruntime")
def environment_onnxruntime(session: nox.Session) -> None:
    """Install the ONNX Runtime environment: no TensorFlow."""
    _install(session, "-e", ".[onnxruntime]")


@nox.session(venv_backend="none", requires=ENVIRONMENTS)
def bench(session: nox.Session) -> None:
    """The main job: build what is missing, measure on every runtime, write the report."""
    pythons = [f"--python={name}={_python(session, env)}" for name, env in RUNTIME_SESSIONS.items()]
    _captionbench(session, "bench", *pythons, *session.posargs)


@nox.session(venv_backend="none", requires=ENVIRONMENTS)
def parity(session: nox.Session) -> None:
    """Do captions match across runtimes, and where they don't, why: nox -s parity [-- --suite flickr8k --data DIR]."""
    pythons = [f"--python={name}={_python(session, env)}" for name, env in RUNTIME_SESSIONS.items()]
    _captionbench(session, "parity", *pythons, *session.posargs)


@nox.session(venv_backend="none", requires=ENVIRONMENTS)
def study(session: nox.Session) -> None:
    """The 2020 study again, all of it: nox -s study -- --data DIR. Most of a day; goes on where it was stopped."""
    pythons = [f"--python={name}={_python(session, env)}" for name, env in RUNTIME_SESSIONS.items()]
    for suite in STUDY_SUITES:
        out = f"reports/published/{suite}"
        _captionbench(session, "bench", "--suite", suite, "--out", out, *pythons, *session.posargs)
    module = (str(_python(session, "env-tensorflow")), "-m")
    session.run(*module, "reports.study", *session.posargs, external=True)
    session.run(*module, "reports.readme", external=True)


@nox.session(venv_backend="none", requires=ENVIRONMENTS)
def sensitivity(session: nox.Session) -> None:
    """Check the harness: A/A comparisons, and slowdowns of 5 and 10 % that must be found. About an hour, quiet."""
    pythons = [f"--python={name}={_python(session, env)}" for name, env in RUNTIME_SESSIONS.items()]
    _captionbench(session, "sensitivity", *pythons, *session.posargs)


@nox.session(venv_backend="none", requires=["env-tensorflow"])
def build(session: nox.Session) -> None:
    """Train and export a suite's captioners without measuring them."""
    _captionbench(session, "build", *session.posargs)


@nox.session(venv_backend="none", requires=["env-tensorflow"])
def report(session: nox.Session) -> None:
    """Write the report of a results file again: nox -s report -- reports/runs/scenes/results.json."""
    _captionbench(session, "report", *session.posargs)


@nox.session(venv_backend="none", requires=["env-tensorflow"])
def compare(session: nox.Session) -> None:
    """What changed between two runs, as a gate: nox -s compare -- BEFORE AFTER [--confirm AGAIN]."""
    _captionbench(session, "compare", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite, with every runtime in one environment."""
    _install(session, "-e", ".[build,tflite,onnxruntime]", *_group("test"))
    # Two processes, a file of tests in one of them; the benchmark plugin has its own runs and can't be shared.
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:benchmark", *session.posargs)


@nox.session
def matrix(session: nox.Session) -> None:
    """Every technique x precision x format x runtime, built and run on a tiny captioner; writes docs/matrix.md."""
    _install(session, "-e", ".[build,tflite,onnxruntime]")
    session.run("python", "-m", "captionbench", "matrix", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, rules and format; then that README and claims show what the published results say."""
    _install(session, "-e", ".", *_group("lint"))
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)
    session.run("python", "-m", "reports.readme", "--check")
    session.run("python", "-m", "reports.study", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on everything."""
    _install(session, "-e", ".", *_group("types"))
    session.run("mypy")


def _captionbench(session: nox.Session, *arguments: str) -> None:
    session.run(str(_python(session, "env-tensorflow")), "-m", "captionbench", *arguments, external=True)


def _python(session: nox.Session, environment: str) -> Path:
    """The interpreter of another session's environment."""
    folder = session.cache_dir.parent / environment
    windows = folder / "Scripts" / "python.exe"
    return windows if windows.exists() else folder / "bin" / "python"


def _group(name: str) -> list[str]:
    """The requirements of a dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def _install(session: nox.Session, *requirements: str) -> None:
    """Install unless pyproject.toml and requirements are those of the last time: a second run needs no network."""
    content = Path("pyproject.toml").read_bytes() + repr(requirements).encode()
    stamp = Path(session.virtualenv.location) / "captionbench.installed"
    digest = hashlib.sha256(content).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        session.log("the environment is up to date")
        return
    session.install(*requirements)
    stamp.write_text(digest)
