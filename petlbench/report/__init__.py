"""One self-contained page of everything that a results folder holds, to be opened from disk.

The page needs no network and asks for none: its policy (Content-Security-Policy) allows no request
at all, and of scripts only those that are written here, by their hashes. The same comparisons give
the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources

from petlbench import __version__, wording
from petlbench.errors import UsageError, unknown
from petlbench.results import Results
from petlbench.wording import visible


def render(
    found: Sequence[Results], problems: Sequence[str] = (), baseline: str | None = None
) -> str:
    """The page: a section for each comparison; never one ranking of several.

    Args:
        found: Comparisons, judged where intervals and rank groups are to be shown.
        problems: A sentence for each file that could not be read.
        baseline: The method that per-task maps compare with, in place of the linear probe.

    Raises:
        UsageError: The libraries of the report are not installed, or no method is `baseline`.
    """
    try:
        import bokeh.resources
        import itables.options
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise UsageError(
            f"the report needs {error.name}, which is not installed. "
            "Type: pip install 'petlbench[report]'"
        ) from error
    from petlbench.formats import _text
    from petlbench.leaderboard import differences
    from petlbench.published.block import NOT_RANKED
    from petlbench.report.section import MOST_RECORDS, Section

    boards = [each.board for each in found]
    methods = {row.method for board in boards for row in board.rows}
    if baseline is not None and baseline not in methods:
        raise unknown("baseline", baseline, methods)

    def own(file: str) -> str:
        return (resources.files("petlbench.report") / file).read_text(encoding="utf-8")

    with open(itables.options.dt_bundle, "rb") as stream:
        tables = base64.b64encode(stream.read()).decode()
    modules = json.dumps({"imports": {"datatables": f"data:text/javascript;base64,{tables}"}})
    charts = bokeh.resources.Resources("inline", components=["bokeh"], log_level="warn")
    scripts = (
        ("importmap", modules),
        ("text/javascript", "\n".join(charts.js_raw)),
        ("module", own("page.js")),
    )
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(own),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") else visible(str(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh refers to what it has defined: the order counts
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    environment.filters |= {
        "metric": wording.metric,
        "duration": _text.duration,
        "parameters": _text.parameters,
        "percent": lambda fraction: f"{100 * fraction:.1f}",
        "interval": _text.interval,
    }
    return environment.get_template("page.html").render(
        sections=[Section(each, number, baseline) for number, each in enumerate(found, 1)],
        apart=_text.apart(boards),
        differences=differences(boards),
        problems=problems,
        not_ranked=NOT_RANKED,
        most_records=MOST_RECORDS,
        version=__version__,
        style=Markup(own("style.css")),
        scripts=[(kind, Markup(text)) for kind, text in scripts],
        hashes=[_hash(text) for _, text in scripts],
    )


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
