"""Pages say what the records, the commands and the imports say, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from robustbench_cli import __version__
from robustbench_cli.config.catalogue import scan

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"))
}
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
WRITTEN = sorted(name for name, text in PAGES.items() if "<!-- begin " in text)


def anchors(text):
    """The places of a page that a link may name, as GitHub calls them."""
    heads = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_is_what_its_sources_make_it(name, script):
    now = script("make_pages").rewritten(ROOT / name)
    assert PAGES[name] == now, f"{name} is out of date: run python docs/make_pages.py"


def test_every_part_is_on_a_page_and_is_not_empty(script):
    found = [part for text in PAGES.values() for part in script("marked_parts").part_names(text)]
    assert {*found} == {*script("make_pages").PARTS}
    for text in PAGES.values():
        assert not re.search(r"<!-- begin ([\w-]+) -->\n<!-- end \1 -->", text)
        assert text.count("<!-- begin ") == text.count("<!-- end ")


def test_a_part_is_replaced_and_nothing_else(script):
    page = "a\n<!-- begin one -->\nold\n<!-- end one -->\nb\n"
    filled = script("marked_parts").filled
    assert filled(page, {"one": "new"}) == page.replace("old", "new")
    assert filled("a\n", {"one": "new"}) == "a\n"
    with pytest.raises(KeyError):
        filled(page, {})


def test_links_lead_somewhere():
    seen = 0
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
            if re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            place = (ROOT / name).parent / path if path else ROOT / name
            assert place.exists(), f"{name}: {target}"
            if anchor:
                page = PAGES[str(place.resolve().relative_to(ROOT))]
                assert anchor in anchors(page), f"{name}: {target}"
            seen += 1
    assert seen > 40


def test_every_page_can_be_reached_from_the_index():
    index = PAGES["docs/index.md"]
    for name in PAGES:
        if name.startswith("docs/") and name != "docs/index.md":
            assert f"({Path(name).name})" in index, name
    assert "docs/index.md" in PAGES["README.md"]


def test_files_that_pages_name_are_there():
    """``evaluation/attack_loop.py`` and its like: below the root, the package, or by name alone."""
    shown = set(re.findall(r"^In `(.*)`:$", PAGES["docs/adding-an-attack.md"], re.MULTILINE))
    shown |= set(re.findall(r"^In `(.*)`:$", PAGES["docs/adding-a-defense.md"], re.MULTILINE))
    shown |= set(re.findall(r"^In `(.*)`:$", PAGES["docs/adding-others.md"], re.MULTILINE))
    package = ROOT / "robustbench_cli"
    for name, text in PAGES.items():
        if name == "CHANGELOG.md":
            continue
        for path in re.findall(r"`([\w/.-]+\.(?:py|md|toml)|[a-z_]+/)`", text):
            places = [ROOT / path, package / path, ROOT / "benchmarks" / path, ROOT / "docs" / path]
            there = any(place.exists() for place in places) or path in {*shown, "journal/"}
            stands_for_any = re.search(r"[A-Z]{2,}", path)  # presets/PAPER/NAME.toml
            found = there or stands_for_any or list(package.glob(f"*/{path}"))
            assert found, f"{name}: {path}"


def test_the_walk_through_the_loop_names_its_functions():
    _, _, walk = PAGES["docs/evaluation.md"].partition("## PGD, walked through the loop")
    names = re.findall(r"`(_?[a-z]+_[a-z_]+|_[a-z]+)`", walk.partition("\n## ")[0])
    loop = (ROOT / "robustbench_cli/evaluation/attack_loop.py").read_text()
    assert len(names) > 5
    assert [name for name in names if not re.search(rf"\b{name}\b", loop)] == []


def test_names_that_the_readme_lists_are_registered():
    """``defenses`` are spelt as they are registered; attacks go by the names of their papers."""
    _, _, listed = PAGES["README.md"].partition("- **Objectives:**")
    names = re.findall(r"`([\w-]+)`", listed.partition("- **Attacks**")[0])
    known = {name for item in scan("defenses") for name in (item.name, *item.aliases)}
    assert len(names) > 30
    assert {*names} <= known


def test_the_readme_is_short():
    assert len(PAGES["README.md"].encode()) <= 10_000


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^title: advbench$", text, re.MULTILINE)
    assert re.search(rf"^version: {re.escape(__version__)}$", text, re.MULTILINE)
