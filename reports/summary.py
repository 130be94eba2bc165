"""A report as one JSON object: the verdict, what makes it doubtful, and the rows; for programs. Pure."""

import json

from reports.flat import flatten, record_values
from reports.markup import to_text
from reports.report import Report
from reports.verdict import render_verdict


def render_json(report: Report) -> str:
    """The object; units are in the names, what was not reached is null, `ship` is null where nothing can be."""
    results, winner = report.results, report.winner
    table = {
        "suite": results.suite,
        "created": results.created,
        "commit": results.commit,
        "verdict": to_text(render_verdict(report)),
        "ship": winner.name if winner else None,
        "ship_status": winner.row.status.value if winner else None,
        "ship_sha256": winner.row.sha256 if winner else None,
        "tied": [item.name for item in report.tied],
        "baseline": results.baseline,
        "noise_floor": results.noise_floor,
        "cautions": [
            {"kind": str(caution.kind), "text": to_text(caution.text), "remedy": to_text(caution.remedy)}
            for caution in report.cautions
        ],
        "rows": [record_values(record) for record in flatten(report)],
    }
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"
