"""The page as a browser shows it; skipped where there is no Chromium."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import fake_run
import pytest
from PIL import Image

from noisy_student.reporting import write_generation, write_overall

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'noisy_student[test]'")
if browser.chromium() is None:
    pytest.skip(f"no Chromium: none of {', '.join(browser.NAMES)} is on the path", allow_module_level=True)

SECTIONS = ["summary", "generations", "labels", "pseudo", "training", "gallery", "subgroups", "data", "setup", "limits"]
CUT = "(parts) => parts.filter((part) => part.scrollWidth > part.clientWidth + 1).map((part) => part.ariaLabel)"
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.launched() as found:
        yield found


@pytest.fixture(scope="module")
def pages(finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run, of a generation, of a run of an earlier version, and of an ensemble with odd labels."""
    folder = tmp_path_factory.mktemp("pages")
    older = fake_run.make_run(folder / "older", generations=2, labels=("Edema", "Fracture"))
    fake_run.make_older(older)
    odd = fake_run.make_run(folder / "odd", generations=2, labels=("Edema", EVIL, "long" * 30))
    fake_run.add_pictures(odd, 1)
    fake_run.make_ensemble(odd, 1)
    return {
        "run": finished.path / "report.html",
        "generation": finished.generation(1) / "report.html",
        "older": write_overall(older)[1],
        "odd": write_generation(odd, 1)[1],
    }


@pytest.fixture
def opened(chromium: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Return a function that opens one of the pages by name."""
    made: list[browser.Watched] = []

    def open_page(name: str, **options: Any) -> browser.Watched:
        made.append(browser.Watched(chromium, pages[name], **options))
        return made[-1]

    yield open_page
    for watched in made:
        watched.context.close()


@pytest.mark.parametrize("name", ["run", "generation", "older", "odd"])
def test_nothing_is_fetched_and_nothing_goes_wrong(opened, pages, name):
    watched = opened(name)
    outside = [url for url in watched.requests if not url.startswith("data:image/")]
    assert outside == [pages[name].resolve().as_uri()]
    assert watched.complaints == []


@pytest.mark.parametrize("name", ["run", "generation", "older", "odd"])
def test_no_page_is_wider_than_the_screen(opened, name):
    tab = opened(name).tab
    tab.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    for width in (1280, 700, 400, 360):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        if width != 700:  # on a desk and on a phone no table is cut either; between them a shade says where it goes on
            assert tab.eval_on_selector_all(".scroll", CUT) == []


def test_a_table_that_goes_on_has_a_shade_at_its_edge(opened):
    tab = opened("run", width=700).tab
    table = tab.get_by_role("region", name="Operating point, youden")
    assert table.evaluate("(it) => it.scrollWidth > it.clientWidth")
    table.evaluate("(it) => it.scrollIntoView()")

    def edges() -> list[int]:
        """Return how light the pixels at the left and the right edge are, above the headings."""
        box = table.bounding_box()
        picture = tab.screenshot(clip=box | {"y": box["y"] + 2, "height": 1})
        with Image.open(io.BytesIO(picture)) as row:
            return [sum(row.convert("RGB").getpixel((x, 0))) for x in (0, row.width - 1)]

    left, right = edges()
    assert left > right + 30
    table.evaluate("(it) => (it.scrollLeft = 9999)")
    left, right = edges()
    assert right > left + 30


def test_all_sections_are_there_and_can_be_seen(opened):
    for name, missing in (("run", set()), ("generation", {"gallery"}), ("older", {"gallery"})):
        tab = opened(name).tab
        found = tab.eval_on_selector_all("section > h2", "(heads) => heads.map((head) => head.id)")
        assert found == [section for section in SECTIONS if section not in missing]
        heights = tab.eval_on_selector_all("section", "(parts) => parts.map((part) => part.offsetHeight)")
        assert min(heights) > 60


def column(tab: Any, number: int) -> list[str]:
    rows = tab.locator("[aria-label='Measures by label'] tbody tr")
    return [rows.nth(k).locator("th, td").nth(number).inner_text().split("\n")[0] for k in range(rows.count())]


def first_number(text: str) -> float:
    return float(re.match(r"[\d.,]+", text)[0].replace(",", ""))  # type: ignore[index]


@pytest.mark.parametrize("width", [400, 1280])
def test_a_click_sorts_and_says_so(opened, width):
    tab = opened("run", width=width).tab
    head = tab.locator("[aria-label='Measures by label'] thead th")
    before = column(tab, 0)
    assert head.nth(7).get_attribute("aria-sort") is None
    head.nth(7).get_by_role("button").click()
    positives = [first_number(text) for text in column(tab, 7)]
    assert positives == sorted(positives, reverse=True)
    assert len(set(positives)) > 5
    assert head.nth(7).get_attribute("aria-sort") == "descending"
    assert tab.locator("#said").inner_text() == "Sorted by Positive, from the largest."
    head.nth(7).get_by_role("button").click()
    assert [first_number(text) for text in column(tab, 7)] == sorted(positives)
    head.nth(0).get_by_role("button").click()
    assert column(tab, 0) == sorted(before, key=str.lower)
    assert [head.nth(k).get_attribute("aria-sort") for k in (0, 7)] == ["ascending", None]


def test_the_keyboard_sorts_and_the_focus_can_be_seen(opened):
    tab = opened("run").tab
    button = tab.locator("[aria-label='Measures by label'] thead th").nth(1).get_by_role("button")
    button.focus()
    tab.keyboard.press("Enter")
    areas = [first_number(text) for text in column(tab, 1)]
    assert areas == sorted(areas, reverse=True)
    tab.keyboard.press("Space")
    areas = [first_number(text) for text in column(tab, 1)]
    assert areas == sorted(areas)
    assert button.evaluate("(it) => getComputedStyle(it).outlineStyle") == "solid"


def test_undefined_figures_stay_at_the_end(opened):
    tab = opened("run").tab
    tab.locator("summary", has_text="AUROC by label and age").click()
    table = tab.locator("[aria-label='Macro AUROC by age']")
    for _ in range(2):
        table.get_by_role("button", name="Macro AUROC").click()
        assert table.locator("tbody th").last.inner_text().startswith("under 20")


def test_without_a_script_the_tables_are_plain(opened):
    tab = opened("run", java_script_enabled=False).tab
    assert tab.locator("thead button").count() == 0
    assert tab.locator("[aria-label='Measures by label'] tbody tr").count() == len(fake_run.LABELS)
    assert tab.get_by_role("columnheader", name="AUROC").first.is_visible()


def test_a_label_that_looks_like_a_script_stays_text(opened):
    watched = opened("odd")
    watched.tab.on("dialog", lambda dialog: watched.complaints.append("a dialog was opened"))
    head = watched.tab.locator("[aria-label='Measures by label'] tbody th", has_text="alert")
    assert head.inner_text() == EVIL
    assert watched.tab.locator("script").count() == 1
    watched.tab.get_by_role("button", name="Label").first.click()
    assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_colours_of_the_reader(opened, scheme):
    tab = opened("run", color_scheme=scheme).tab
    paper, ink = (
        sum(int(part) for part in re.findall(r"\d+", tab.evaluate(f"getComputedStyle(document.body).{name}"))[:3])
        for name in ("backgroundColor", "color")
    )
    assert (paper > ink) == (scheme == "light")


def test_folded_parts_are_printed(opened):
    tab = opened("run").tab
    folded = tab.locator("details:not([open]) [aria-label='Pseudo-labels of generation 1'] tbody tr").first
    assert not folded.is_visible()
    tab.emulate_media(media="print")
    assert folded.is_visible()
    assert not tab.locator("nav").is_visible()
    assert tab.pdf(format="A4", prefer_css_page_size=True).startswith(b"%PDF")


def test_nothing_is_cut_on_paper(opened):
    tab = opened("run", width=700).tab  # A4 with the margins of the page, in CSS pixels
    tab.emulate_media(media="print")
    assert tab.eval_on_selector_all(".scroll", CUT) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("run", 1280, "light"),
        ("run", 400, "dark"),
        ("generation", 1280, "dark"),
        ("older", 1280, "light"),
        ("odd", 400, "light"),
        ("odd", 1280, "dark"),
    ],
)
def test_axe_finds_nothing_serious(opened, name, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    tab = opened(name, width=width, color_scheme=scheme).tab
    tab.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    found = axe.Axe().run(tab).response
    assert len(found["passes"]) > 20
    serious = [
        (problem["id"], node["html"][:200])
        for problem in found["violations"]
        if problem["impact"] in ("serious", "critical")
        for node in problem["nodes"]
    ]
    assert serious == []


@pytest.mark.parametrize("name", ["run", "generation", "older", "odd"])
def test_html_is_valid_for_a_strict_parser(pages, name):
    html5lib = pytest.importorskip("html5lib")
    parser = html5lib.HTMLParser(strict=True)  # raises at the first error
    parser.parse(pages[name].read_text())
    assert parser.errors == []
