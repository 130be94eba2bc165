"""The one place where Keras 2 is imported, late and quiet.

TensorFlow Model Optimization needs Keras 2 (`tf_keras`); TF_USE_LEGACY_KERAS makes it find the same one.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from models.errors import MissingPackageError


def keras() -> ModuleType:
    """The `tf_keras` module. Raises MissingPackageError outside the build environment."""
    tensorflow()
    return _import("tf_keras")


def tensorflow() -> ModuleType:
    """The `tensorflow` module. Raises MissingPackageError outside the build environment."""
    _prepare_environment()
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    with quiet_native_code():
        module = _import("tensorflow")
        module.config.list_physical_devices()  # says on a machine without a GPU that it has none
    return module


def model_optimization() -> ModuleType:
    """The `tensorflow_model_optimization` module, on the same Keras. Raises MissingPackageError."""
    keras()
    with warnings.catch_warnings():
        # It still compares versions with distutils, which nothing here can change.
        warnings.filterwarnings("ignore", "distutils Version classes", DeprecationWarning)
        return _import("tensorflow_model_optimization")


def release_memory() -> None:
    """Forget Keras' global graph: a suite builds dozens of captioners in one process."""
    if "tf_keras" in sys.modules:
        keras().backend.clear_session()


def _prepare_environment() -> None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and information


@contextmanager
def quiet_native_code() -> Iterator[None]:
    """Drop what C++ prints on standard error: TensorFlow's logger ignores its level until it is set up.

    Python's own errors are exceptions and come through.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this needs {name}, which this environment does not hold. "
            "Use `nox -s bench`, or install the build environment: pip install -e '.[build]'."
        ) from error
