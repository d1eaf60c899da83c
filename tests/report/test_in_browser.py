"""The page in a real browser, opened from disk without a network: sorted, filtered, hovered.

Needs a Chromium, which no Python package brings: without one these tests are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import synthetic

from petlbench import report
from petlbench.results import Results
from petlbench.statistics.judge import judge

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

NASTY = "<img src=https://example.com/x onerror=alert(1)> $$x^2$$"
WIDE, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def results() -> Results:
    found = synthetic.records(6, 5, 2, images=50)
    for record in found:
        method = record["spec"]["method"]
        record["spec"]["method"] = {**method, "config": {"rank": 8}}
        if method["name"] == "convpass":
            record["spec"]["method"] |= {"label": NASTY, "name": "mine", "source": "5" * 64}
    return judge(synthetic.results(found))


@pytest.fixture(scope="module")
def file(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(report.render([results]), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, size: tuple[int, int] = WIDE, scheme: str = "light") -> Any:
    """The page once its charts are drawn; a request or a complaint of the browser fails."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    trouble: list[str] = []
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:")) or trouble.append(request.url)
        ),
    )
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "console",
        lambda message: message.type in ("error", "warning") and trouble.append(message.text),
    )
    page.goto(file.as_uri())
    page.wait_for_function("Bokeh.documents.length == 2 && Bokeh.documents.every(d => d.is_idle)")
    yield page
    context.close()
    assert trouble == []


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser, file) as page:
        yield page


def ranked(results: Results) -> list[str]:
    return [row.method for row in results.board.rows]


def column(page: Any, header: str, table: str = "table.leaderboard") -> list[str]:
    """The cells of that column as they stand, from the top."""
    headers = [text.split("\n")[0] for text in page.locator(f"{table} thead th").all_inner_texts()]
    place = headers.index(header) + 1
    return list(page.locator(f"{table} tbody tr > :nth-child({place})").all_inner_texts())


def wait_for(page: Any, read: Callable[[], object], wanted: object) -> None:
    """Tables are drawn a moment after they were asked to be."""
    for _ in range(50):
        if read() == wanted:
            return
        page.wait_for_timeout(100)
    assert read() == wanted


def hover(page: Any, chart: str, method: str) -> str:
    """Point at the first thing of that method in a chart; what the tooltip says."""
    page.locator(chart).scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([chart, method]) => {
            const roots = [...Bokeh.index.roots];
            const plot = roots.find(view => view.el.parentElement?.id == chart);
            const dots = plot.model.renderers.find(r => r.data_source.data.method);
            const data = dots.data_source.data;
            const i = [...data.method].indexOf(method);
            const box = plot.el.getBoundingClientRect();
            const { x_scale, y_scale } = plot.frame;
            return [box.x + x_scale.compute(data.x[i]), box.y + y_scale.compute(data.y[i])];
        }""",
        [chart.removeprefix("#"), method],
    )
    page.mouse.move(x - 30, y - 30)
    page.mouse.move(x, y, steps=3)
    tooltip = page.locator(".bk-Tooltip").locator("div:has(> b)").first
    tooltip.wait_for(state="visible", timeout=5000)
    return str(tooltip.inner_text())


def test_a_click_on_a_header_sorts(page: Any, results: Results) -> None:
    assert column(page, "Method") == ranked(results)
    params = {row.method: row.trainable_parameters or 0 for row in results.board.rows}
    header = page.locator("table.leaderboard thead th", has_text="Params")
    header.click()
    wait_for(page, lambda: column(page, "Method"), sorted(params, key=lambda name: params[name]))
    assert header.get_attribute("aria-sort") == "ascending"
    header.click()
    wait_for(page, lambda: column(page, "Method"), sorted(params, key=lambda name: -params[name]))


def test_sorting_by_the_keyboard(page: Any, results: Results) -> None:
    header = page.locator("table.leaderboard thead th", has_text="Method")
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    wait_for(page, lambda: column(page, "Method"), sorted(ranked(results), key=str.lower))


def test_every_score_column_sorts_by_its_numbers(page: Any, results: Results) -> None:
    for task in results.board.tasks:
        score = {row.method: row.tasks[task].mean for row in results.board.rows}
        page.locator("table.leaderboard thead th", has_text=task).click()
        wait_for(
            page,
            lambda score=score: [score[name] for name in column(page, "Method")],
            sorted(score.values()),
        )


def test_filtering_the_leaderboard(page: Any, results: Results) -> None:
    page.locator("[id$=-leaderboard] input[type=search]").fill("lor")
    wait_for(page, lambda: column(page, "Method"), ["lora"])
    page.locator("[id$=-leaderboard] input[type=search]").fill("")
    wait_for(page, lambda: column(page, "Method"), ranked(results))


def test_filtering_records(page: Any, results: Results) -> None:
    records = "[id$=-records] table"
    key = next(key for key in results.records)
    page.locator("[id$=-records] input[type=search]").fill(key)
    wait_for(page, lambda: column(page, "Record", records), [key])
    page.locator("[id$=-records] input[type=search]").fill("adapter seed_that_is_not")
    body = page.locator(f"{records} tbody")
    wait_for(page, lambda: body.inner_text().strip(), "No matching records found")


def test_hovering_a_method_tells_its_cost_score_interval_and_settings(
    page: Any, results: Results
) -> None:
    for row in results.board.rows:
        text = hover(page, "#c1-params", row.method)
        assert row.ranking and row.ranking.low and row.ranking.high
        assert text.splitlines()[0] == row.method  # as text: nothing of it became an element
        assert f"{row.trainable_parameters:,} trainable parameters" in text
        assert f"{100 * row.ranking.mean:.1f} %" in text
        assert f"95% interval [{100 * row.ranking.low:.1f}, {100 * row.ranking.high:.1f}]" in text
        assert "rank = 8" in text


def test_hovering_a_cell_of_the_map(page: Any, results: Results) -> None:
    text = hover(page, "#c1-heat", "lora")
    task = results.board.tasks[0]
    row = next(row for row in results.board.rows if row.method == "lora")
    assert task in text and f"{100 * row.tasks[task].mean:.1f} %" in text
    assert "points to linear" in text


def test_a_link_of_the_leaderboard_opens_the_method(page: Any) -> None:
    name = page.locator("table.leaderboard tbody a", has_text="lora")
    text = page.locator("details.method", has=page.locator("b", has_text="lora")).locator("pre")
    assert not text.first.is_visible()
    name.click()
    assert text.first.is_visible() and "LoRA" in text.first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_no_scrolling_sideways_and_the_colours_asked_for(
    browser: Any, file: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, file, size, scheme) as page:
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3
        assert light > 240 if scheme == "light" else light < 40
        ink = brightness(page)
        assert (ink < light) if scheme == "light" else (ink > light)


def test_a_phone_shows_the_whole_cost_chart(browser: Any, file: Path) -> None:
    with opened(browser, file, PHONE) as page:
        hidden = page.locator("#c1-cost .wide").evaluate("it => it.scrollWidth - it.clientWidth")
        assert hidden <= 0


def test_a_shadow_tells_that_the_leaderboard_scrolls(browser: Any, file: Path) -> None:
    import io

    import numpy as np
    from PIL import Image

    def edge(side: int) -> float:
        """How bright the pixels of that column mostly are, 0 to 255."""
        picture = Image.open(io.BytesIO(table.screenshot())).convert("L")
        return float(np.median(np.asarray(picture)[:, side]))

    with opened(browser, file, (700, 900)) as page:
        table = page.locator("#c1-leaderboard .dt-layout-table")
        assert edge(-2) < 225 < 250 < edge(1)  # there is more to the right
        table.evaluate("it => it.scrollLeft = it.scrollWidth")
        assert edge(-2) > 250


def brightness(page: Any) -> float:
    """Of the charts' most frequent colour that is not the page's: of what is drawn, 0 to 255."""
    import io

    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(page.locator("#c1-params").screenshot())).convert("L")
    values = np.bincount(np.asarray(picture).ravel(), minlength=256)
    values[values.argmax()] = 0
    return float(np.average(np.arange(256), weights=values))


def test_paper_shows_all_methods_on_white(browser: Any, file: Path) -> None:
    with opened(browser, file, scheme="dark") as page:
        assert page.pdf()[:5] == b"%PDF-"
        assert page.locator("details:not([open])").count() == 0
        page.emulate_media(media="print", color_scheme="dark")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == "rgb(255, 255, 255)"
