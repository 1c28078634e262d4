"""A picture of the top of a report's page, as in the README, by the headless Chromium of the system.

    ./scripts/demo && python scripts/picture_report.py runs/demo/report.html docs/report.png

Of a run on synthetic films only: no real film goes into a picture that is passed on, so anything else is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run")  # fmt: skip


@click.command()
@click.argument("page", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--width", default=1180, show_default=True, help="Width of the window.")
@click.option("--height", default=1560, show_default=True, help="Height of the window, and of the picture.")
@click.option("--at", default="", help="Section to show, such as gallery; the top of the page without it.")
def main(page: Path, picture: Path, width: int, height: int, at: str) -> None:
    """Write a PICTURE (PNG) of a PAGE."""
    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    if report["config"]["data"]["source"] != "synthetic":
        raise click.ClickException(f"{page}: shows real films; a picture is made of a run on synthetic ones alone.")
    browser_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser_path is None:
        raise click.ClickException(f"There is no Chromium: none of {', '.join(NAMES)} is on the path.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(QUIET))
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        tab.goto(page.resolve().as_uri() + (f"#{at}" if at else ""))
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
