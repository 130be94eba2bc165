"""The one place where Keras 2 is imported, late and quiet.

TensorFlow Model Optimization needs Keras 2 (`tf_keras`); TF_USE_LEGACY_KERAS makes it find the same one.
"""

import importlib
import os
from types import ModuleType

from models.errors import MissingPackageError


def keras() -> ModuleType:
    """The `tf_keras` module. Raises MissingPackageError outside the build environment."""
    _prepare_environment()
    return _import("tf_keras")


def tensorflow() -> ModuleType:
    """The `tensorflow` module. Raises MissingPackageError outside the build environment."""
    _prepare_environment()
    return _import("tensorflow")


def _prepare_environment() -> None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # keep information lines out of the progress bars


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this needs {name}, which this environment does not hold. "
            "Use `nox -s bench`, or install the build environment: pip install -e '.[build]'."
        ) from error
