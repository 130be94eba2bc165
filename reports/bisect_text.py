"""A bisection on the terminal: every layer's error, and the first that is out of tolerance."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.parity.bisect import Bisection

LOG_WIDTH = 140


def print_bisection(found: Bisection, reproduction: Path | None) -> None:
    """The table, and what it means."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    shown = Table(box=None, title=f"{found.graph}: relative error after each layer, tolerance {found.tolerance:g}")
    for index, header in enumerate(("layer", "error", "SNR (dB)", "cosine", "largest")):
        shown.add_column(header, justify="right" if index else "left", no_wrap=True)
    suspect = found.suspect
    for boundary in found.boundaries:
        first = suspect is not None and boundary.layer == suspect.layer
        snr = boundary.difference.snr_db
        cells = (
            boundary.layer,
            f"{boundary.error:.2g}",
            "" if snr is None else f"{snr:.0f}",
            f"{boundary.difference.cosine:.6f}",
            f"{boundary.difference.max_abs:.2g}",
        )
        shown.add_row(*(Text(cell, "red" if first else "") for cell in cells))
    console.print(shown)
    console.print(Text(_verdict(found)))
    if reproduction is not None:
        console.print(Text(f"reproduction: {reproduction}"))


def _verdict(found: Bisection) -> str:
    if found.suspect is None:
        return f"All {len(found.boundaries)} places of the {found.graph} that both have are within {found.tolerance:g}."
    suspect = found.suspect
    alone = f"alone, on the reference's own values, its error is {suspect.local_error:.2g}"
    cause = (
        "it is itself out of tolerance"
        if suspect.local_error > found.tolerance
        else "errors of the layers before it add up here"
    )
    return f"First out of tolerance: {suspect.layer} ({suspect.error:.2g}); {alone}: {cause}."
