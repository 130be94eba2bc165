"""Placeholder until the real module is written."""
from pathlib import Path
def open_folder(data: Path | None): raise NotImplementedError
