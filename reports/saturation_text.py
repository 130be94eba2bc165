"""Which INT8 layers of an ONNX file can be wrong on CPUs without VNNI, as a table for the terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from convert.saturation import LayerSaturation, Saturates, overflow_risk
from reports.text import DASH, percent

HEADERS = ("layer", "operator", "saturates", "worst pair sum", "any order", "pairs", "outputs", "largest error")
STYLES = {Saturates.NEVER: "green", Saturates.POSSIBLE: "yellow", Saturates.OBSERVED: "red"}
VERDICTS = {
    Saturates.NEVER: "No layer can overflow int16.",
    Saturates.POSSIBLE: "{possible} of {layers} layers could overflow int16 on x86 CPUs without VNNI; none did here.",
    Saturates.OBSERVED: "{observed} of {layers} layers overflow int16 on x86 CPUs without VNNI, most of all {worst}.",
}
REMEDY = "Weights of 7 bits (reduce_range) fit; so does session.x64quantprecision=1, or the layer in float."


def render_saturation(layers: Sequence[LayerSaturation]) -> Group:
    """The layers, and what they mean for the file."""
    table = Table(box=None)
    for index, header in enumerate(HEADERS):
        table.add_column(header, no_wrap=index > 0, justify="left" if index < 3 else "right")
    for layer in layers:
        table.add_row(*_cells(layer))
    risk = overflow_risk(layers)
    verdict = VERDICTS[risk.saturates].format(
        possible=risk.possible, observed=risk.observed, layers=risk.layers, worst=_short(risk.worst_layer or "")
    )
    remedy = "" if risk.saturates is Saturates.NEVER else f" {REMEDY}"
    return Group(table, Text(verdict + remedy, STYLES[risk.saturates]))


def _cells(layer: LayerSaturation) -> list[Text]:
    return [
        Text(_short(layer.name)),
        Text(layer.operator),
        Text(layer.saturates, STYLES[layer.saturates]),
        Text(str(layer.worst_pair)),
        Text(str(layer.worst_pair_any_order)),
        Text(percent(layer.share_pairs)),
        Text(percent(layer.share_outputs)),
        Text(DASH if layer.max_error is None else f"{layer.max_error:.3g}"),
    ]


def _short(name: str) -> str:
    """The last parts of a name that converters build of all scopes."""
    return "/".join(name.split("/")[-3:])
