from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import numpy as np
import pytest
from PIL import Image

from noisy_student.errors import NoisyStudentError
from noisy_student.reporting import page, plots, schema, write_generation, write_overall
from noisy_student.reporting.pictures import Pictures
from noisy_student.runs import read_json, write_json

SCRIPT = Path(page.__file__).parent / "templates" / "page.js"
VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """Collects tags, ids and text, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", []
        self.feed(html)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not (self._open and self._open[-1] in ("style", "script")):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(finished):
    return (finished.path / "report.html").read_text()


@pytest.fixture(scope="module")
def parsed(html):
    return Page(html)


def test_page_is_self_contained_and_small(finished):
    for folder in (finished.path, *(finished.generation(g) for g in range(3))):
        html = (folder / "report.html").read_text()
        assert len(html.encode()) < 3_000_000
        (script,) = re.findall(r"<script.*?</script>", html, re.DOTALL)
        assert script == f"<script>\n{SCRIPT.read_text()}</script>"
        digest = base64.b64encode(hashlib.sha256(script[8:-9].encode()).digest()).decode()
        assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
        assert not re.search(r"<link|@import|@font-face|<iframe| on\w+=", html)
        sources = re.findall(r'(?:src|href|xlink:href)="([^"]*)"', html)
        local = r"#|data:image/(png|jpeg);base64,|gen-\d+/report\.html$"
        assert all(re.match(local, source) for source in sources)
        assert "http" not in html.replace("http-equiv", "")
        assert "None" not in Page(html).text


def test_page_is_well_formed_and_accessible(parsed):
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs.get("scope") in ("row", "col") for attrs in parsed.all("th"))
    assert all(attrs.get("alt") for attrs in parsed.all("img"))
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in parsed.all("svg"))
    references = re.findall(
        r"#([\w-]+)", " ".join(str(a.get("xlink:href") or a.get("clip-path")) for _, a in parsed.tags)
    )
    assert references
    assert set(references) <= set(ids)


def test_page_says_the_main_things_in_words(parsed, finished):
    text = " ".join(parsed.text.split())
    report = read_json(finished.path / "report.json")
    macro = report["generations"][2]["test"]["macro"]
    assert "Not for clinical use. Research software" in text
    assert "400 films of 200 patients with labels" in text
    assert f"{macro['auroc']:.3f} ({macro['ci'][0]:.3f}–{macro['ci'][1]:.3f}) on the test set" in text
    assert "700 films of 350 patients" in text
    assert "Undecided. On 150 validation patients" in text
    assert "Which to useGeneration 2" in text.replace("use Gen", "useGen")
    assert "On validation no AUROC can be given for Fracture (no positives)" in text
    assert "log loss (lower is better) −0.012 (at most −0.006 with 90 % confidence)" in text


def test_what_marks_and_colours_mean_stands_above_the_panels(html):
    for title, legend in (
        ("ROC curves", "● Youden’s threshold,"),
        ("Precision and recall", "△ fixed sensitivity,"),
        ("Reliability", "Blue: as given out, after calibration."),
        ("AUROC by label over generations", "generation from left to right"),
    ):
        start = html.index(f"<h3>{title}</h3>")
        panels = html.index('<div class="panels', start)
        assert start < html.index(legend, start) < panels


def test_the_diagnostic_of_the_pool_tells_what_was_taken_from_what_was_said(html):
    assert "Macro AUROC of the pseudo-labels: 0.840; of what the teachers said of the whole pool: 0.820." in html
    assert all(head in html for head in ("Teachers’ AUROC", "Positives right", "Negatives right"))


def test_colours_follow_the_page(html):
    assert "prefers-color-scheme: dark" in html
    style = html[html.index("<style>") : html.index("</style>")]
    drawn = html.replace(style, "")
    assert not re.search(r"(fill|stroke): #(?!none)", drawn)
    used = set(re.findall(r"var\(--([\w-]+)\)", drawn))
    assert used
    assert all(f"--{name}:" in style for name in used)


def test_undefined_label_shows_a_dash_and_its_reason(small):
    path = small.generation(1) / "evaluation.json"
    evaluation = read_json(path)
    cell = evaluation["splits"]["test"]["image"]["labels"]["Fracture"]
    cell.update(auroc=None, ci=None, ap=None, roc=None, reason="no positives among 600 films")
    write_json(path, evaluation)
    text = " ".join(Page(write_generation(small, 1)[1].read_text()).text.split())
    assert "– no positives among 600 films" in text


def test_a_decision_stands_beside_the_bounds_that_made_it(tmp_path):
    run = fake_run.make_run(tmp_path / "run", generations=2)
    path = run.generation(1) / "promotion.json"
    decision = read_json(path)
    decision["auroc"] |= {"ci": [-0.001, 0.043], "lower": 0.003}
    write_json(path, decision)

    def text():
        return " ".join(Page(write_generation(run, 1)[1].read_text()).text.replace("\N{NO-BREAK SPACE}", " ").split())

    shown = text()
    assert "Student minus teacher: macro AUROC +0.021 (at least +0.003 with 90 % confidence), " in shown
    assert "log loss (lower is better) −0.012 (at most −0.006 with 90 % confidence)." in shown
    assert "+0.043" not in shown
    write_json(
        run.path / "config.resolved.json",
        read_json(run.path / "config.resolved.json") | {"promotion": {"rule": "estimate", "confidence": 0.9}},
    )
    assert "Student minus teacher (the differences decide, wherever their bounds are): macro" in text()


def test_text_of_users_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    run = fake_run.make_run(tmp_path / "a&b<i>", generations=2, labels=("Edema", evil, "$x^2$ \"q\" 'r'"))
    path = run.generation(1) / "promotion.json"
    write_json(path, read_json(path) | {"sentence": f"{evil} --> {{{{ 1 }}}}"})
    write_json(run.path / "environment.json", {evil: evil})
    for _, html_path in (write_generation(run, 1), write_overall(run)):
        html = html_path.read_text()
        assert html.count("<script") == 1
        assert "<i>" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
        assert evil in Page(html).text


def test_gallery_embeds_pictures_and_hides_film_names(finished):
    parsed = Page((finished.generation(2) / "report.html").read_text())
    images = parsed.all("img")
    assert len(images) == 8 + 4 + 1
    assert all(attrs["src"].startswith("data:image/") for attrs in images)
    assert "false positive, probability 0.800" in parsed.text
    assert "patient0" not in (finished.generation(2) / "report.html").read_text()
    assert not Page((finished.generation(1) / "report.html").read_text()).all("img")


def gallery_text(run, thresholds, label="Edema", with_map=True, chosen_on=None):
    """Return the text of the gallery of generation 1 with one film, thresholds as given."""
    folder = run.generation(1)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "film.png")
    entry = {"label": label, "kind": "false positive", "probability": 0.13, "truth": 0, "thumb": "film.png"}
    content = {"entries": [entry | {"map": "film.png" if with_map else None}]}
    content |= {} if thresholds is None else {"thresholds": thresholds}
    content |= {} if chosen_on is None else {"chosen_on": dict.fromkeys(thresholds, chosen_on)}
    write_json(folder / "gallery.json", content)
    json_path, html_path = write_generation(run, 1)
    schema.check(read_json(json_path))
    text = " ".join(Page(html_path.read_text()).text.split())
    return text[text.index("Examples of right and wrong") :]


def test_a_caption_says_the_threshold_of_its_label(small):
    evil = '<b title="x">'
    said = "false positive, probability 0.130; called positive from 0.120 on"
    assert said in gallery_text(small, {"Edema": 0.12, "Fracture": 0.5})
    assert said in gallery_text(small, {evil: 0.12}, label=evil)
    assert "called positive from 0.500 on" in gallery_text(small, {"Edema": 0.5})
    for thresholds in (None, {}, {"Fracture": 0.12}):
        text = gallery_text(small, thresholds)
        assert "false positive, probability 0.130 " in text
        assert "called positive from 0" not in text


def test_a_gallery_says_where_its_thresholds_come_from(small):
    said = gallery_text(small, {"Edema": 0.12}, chosen_on="validation")
    assert "in its caption on: Youden’s, chosen on validation, as in the tables." in said
    assert "An earlier version" not in said
    assert "; 0.5 where these films lack" in gallery_text(small, {"Edema": 0.5}, chosen_on="validation")
    older = gallery_text(small, None)
    assert "An earlier version chose it, not as in the tables" in older
    assert "Youden" not in older.split("Subgroups")[0]


def test_a_map_without_colour_is_explained_where_there_are_maps(small):
    assert "A map without colour: nothing in the film spoke for the label." in gallery_text(small, {})
    assert "map" not in gallery_text(small, {}, with_map=False).split("Subgroups")[0]


def test_pictures_stop_at_their_room(finished):
    pictures = Pictures(room=3 * (finished.generation(2) / "thumbs" / "0.png").stat().st_size)
    found = pictures.gallery(finished.generation(2))
    assert 0 < len(found) < 8
    assert len(found) + pictures.left_out == 8


@pytest.mark.parametrize(("name", "message"), [("../../secret.png", "lies outside"), ("thumbs/none.png", "is missing")])
def test_gallery_pictures_must_be_in_the_generation(small, name, message):
    (small.path.parent / "secret.png").write_bytes(b"x")
    entry = {"label": "Edema", "kind": "true positive", "probability": 0.9, "truth": 1, "thumb": name, "map": None}
    write_json(small.generation(1) / "gallery.json", {"entries": [entry]})
    with pytest.raises(NoisyStudentError, match=message):
        write_generation(small, 1)


def test_large_augmented_picture_is_cut_down(small):
    noise = np.random.default_rng(0).integers(0, 255, (1600, 1600), dtype=np.uint8)
    Image.fromarray(noise).save(small.generation(1) / "augmented.png")
    uri = Pictures().augmented(small.generation(1))
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 1_600_000


def test_links_to_generation_pages_only_where_they_are(small):
    def leading_out() -> list[str]:
        links = [a["href"] for a in Page(write_overall(small)[1].read_text()).all("a")]
        return [link for link in links if not link.startswith("#")]

    assert leading_out() == []
    write_generation(small, 1)
    assert leading_out() == ["gen-1/report.html"]


def test_links_within_the_page_lead_somewhere(finished):
    for folder, sections in ((finished.path, 9), (finished.generation(0), 7)):  # generation 0: no films, no teacher
        parsed = Page((folder / "report.html").read_text())
        targets = {a["href"][1:] for a in parsed.all("a") if a["href"].startswith("#")}
        assert len(targets) == sections
        assert targets <= {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}


def sentences(run):
    return " ".join(Page(write_overall(run)[1].read_text()).text.split())


def test_folds_and_members_are_told_apart(small):
    assert "networks" not in sentences(small)
    fake_run.make_ensemble(small, 1)
    text = sentences(small)
    assert "Generation 1 is an ensemble, the mean of 2 networks, which learned from the same films" in text
    assert "of each of 2 networks, every one with all labelled patients," in text
    assert "without a part" not in text
    assert "Network 2 of 2" in text
    fake_run.make_ensemble(small, 0)
    assert "Every generation is an ensemble, the mean of 2 networks, which learned" in sentences(small)
    path = small.path / "config.resolved.json"
    write_json(path, read_json(path) | {"folds": 2})
    text = sentences(small)
    assert "of each of 2 networks, every one without a part of the labelled patients," in text
    assert "ensemble" not in text


def test_one_generation_has_no_trend(tmp_path):
    run = fake_run.make_run(tmp_path / "one", generations=1, labels=("Edema",))
    text = Page(write_overall(run)[1].read_text()).text
    assert "AUROC by label over generations" not in text
    assert "there is nothing to compare it with" in text


def test_auroc_range():
    assert plots.auroc_range([(None, None)]) == (0.5, 1.0)
    assert plots.auroc_range([(0.82, (0.79, 0.84)), (0.9, None)]) == (0.75, 0.95)
    assert plots.auroc_range([(0.87, None)]) == pytest.approx((0.85, 0.95))
    low, high = plots.auroc_range([(1.0, (0.99, 1.0))])
    assert low < 0.99
    assert high == 1.0


def test_thinning_keeps_the_ends_and_the_shape():
    x = np.linspace(0, 1, 5000)
    xs, ys = plots._thin(x, x**0.25)
    assert len(xs) <= 122
    assert (xs[0], xs[-1]) == (0, 1)
    assert np.abs(np.interp(x, xs, ys) - x**0.25).max() < 0.02


def test_a_fixed_point_is_drawn_where_its_rates_say():
    curve = {"fpr": [0, 1], "tpr": [0, 1]}
    without = plots.roc("r", "x", curve, None)
    marked = plots.roc("r", "x", curve, None, [("youden", 0.2, 0.8), ("specificity", 0.1, 0.5)])
    used = re.findall(r'<use xlink:href="[^"]*" x="([\d.]+)" y="([\d.]+)"', marked)
    places = [(float(x), float(y)) for x, y in used if (x, y) not in re.findall(r'x="([\d.]+)" y="([\d.]+)"', without)]
    # 150 by 140 points with margins of 24, 18, 7 and 7: the axes are 119 wide and 115 high.
    assert places == [pytest.approx((24 + 0.2 * 119, 7 + 0.2 * 115)), pytest.approx((24 + 0.1 * 119, 7 + 0.5 * 115))]


def test_numbers_of_any_size_are_short():
    values = (0.61234, 834.4, 12345.0, 3.21e-4, 1e-7, 0.0, 0.05, -0.002)
    assert [plots._short(value) for value in values] == [
        "0.612", "834", "12,345", "3.2e-4", "1e-7", "0", "0.05", "-2e-3",
    ]  # fmt: skip


def test_long_logs_are_averaged():
    svg = plots.training("t", "a & b", [(list(range(1, 1001)), [1.0] * 1000)])
    assert svg.count(" L ") < 200
    assert 'aria-label="a &amp; b"' in svg
