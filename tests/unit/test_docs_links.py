"""Every relative link of the documentation leads to a file, and to a heading where it names one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def test_there_are_pages_and_links_to_check() -> None:
    assert len(PAGES) > 10
    assert sum(len(links_of(page)) for page in PAGES) > 30


def test_every_relative_link_leads_somewhere() -> None:
    broken = [f"{page.relative_to(ROOT)}: {link}" for page in PAGES for link in links_of(page) if not leads(page, link)]
    assert broken == []


def test_no_link_leads_out_of_the_repository() -> None:
    outside = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in links_of(page)
        if not target_of(page, link).is_relative_to(ROOT)
    ]
    assert outside == []


def links_of(page: Path) -> list[str]:
    """Links that are not to another site; those in code are no links."""
    return [link for link in LINK.findall(prose_of(page)) if not re.match(r"[a-z]+:", link)]


def leads(page: Path, link: str) -> bool:
    target, (_, _, heading) = target_of(page, link), link.partition("#")
    return target.exists() and (not heading or heading in anchors_of(target))


def target_of(page: Path, link: str) -> Path:
    path = link.partition("#")[0]
    return (page.parent / path).resolve() if path else page


def anchors_of(page: Path) -> set[str]:
    """The names by which a forge links to the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", prose_of(page, keep_code_words=True), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def prose_of(page: Path, *, keep_code_words: bool = False) -> str:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return text if keep_code_words else re.sub(r"`[^`\n]*`", "", text)
