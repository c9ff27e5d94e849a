"""The page of a study in HTML: what it holds, that nothing foreign runs, what a browser shows."""

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from robustbench_cli.cli import main
from robustbench_cli.evaluation.journal import write_arrays
from robustbench_cli.report.html_template import template_text
from robustbench_cli.runs import records
from robustbench_cli.runs.outcomes import TargetedOutcome
from robustbench_cli.runs.trust import Finding

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>--><!--"
PGD = {"name": "pgd", "steps": 20, "last_iterate": False}
LIES = Finding(
    check="secant", severity="warning", message=f"gradients {HOSTILE}", attacks=["pgd20"]
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def study(tmp_path, trained, judged, evaluated):
    """Two defenses over two seeds, a sound one and one with upper bounds; what an attack kept."""
    results = tmp_path / "results"
    rng = np.random.default_rng(0)
    for subject in ("trades", f"pgd-at:{HOSTILE}"):
        for seed in (0, 1):
            model = trained(subject, seed, id=f"{subject[:6].strip(':')}-s{seed}", data="digits")
            history = [
                {"epoch": epoch, "lr": 0.1, "val_clean": 0.6, "val_robust": 0.1 * epoch}
                for epoch in (1, 2)
            ]
            threat = {"norm": "Linf", "eps": 0.3}
            model = replace(model, history=history, config={**model.config, "threat": threat})
            (results / model.id).mkdir(parents=True)
            records.write(model, results / model.id)
            bound = {"worst_case_trust": "upper bound", "findings": [LIES]}
            run = judged(
                results,
                model,
                np.ones(40),
                {"pgd20": (PGD, (rng.random(40) < 0.4 + 0.2 * seed).astype(float))},
                **({} if subject == "trades" else bound),
            )
            if subject != "trades":
                marked = replace(run.attacks["pgd20"], trust="upper bound")
                run = replace(run, attacks={"pgd20": marked}, id=run.id)
                records.write(run, results / run.id)
    kept = evaluated(model, {"pgd20": (PGD, 8)}, n=12, clean=12, id="kept", kind="attack")
    (results / "kept").mkdir()
    write_images(results / "kept", kept)
    return results


def write_images(folder, run, **changes):
    """Write what ``advbench attack`` keeps of 12 images: the last four stand."""
    rng = np.random.default_rng(1)
    x = rng.random((12, 1, 8, 8), dtype=np.float32)
    y = np.arange(12) % 3
    arrays = {
        "x": x,
        "x_adv": np.clip(x + 0.1 * rng.choice([-1, 1], x.shape), 0, 1).astype(np.float32),
        "y": y,
        "clean": y,
        "adversarial": np.where(np.arange(12) < 8, (y + 1) % 3, y),
        "norm": np.full(12, 0.1, np.float32),
        "step": np.arange(12),
        "clean_confidence": np.full(12, 0.9, np.float32),
        "adversarial_confidence": np.linspace(0.4, 0.95, 12, dtype=np.float32),
        "classes": np.array(["zero", HOSTILE, "two"]),
        "name": np.array([f"test/{i}.png" for i in range(12)]),
        **changes,
    }
    path = write_arrays(folder / "adversarial.npz", arrays)
    records.write(replace(run, examples=records.filed(path)), folder)


@pytest.fixture
def page(study, tmp_path, capsys):
    """Write the page; return its text."""
    pytest.importorskip("matplotlib")
    out = tmp_path / "study.html"
    assert main(["report", "--results", str(study), "--out", str(out)]) == 0
    capsys.readouterr()
    return out.read_text()


@pytest.fixture
def undrawn(study, capsys, monkeypatch):
    """Return the text of the page, made where there is no matplotlib: no time is spent on it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    def text():
        assert main(["report", "--results", str(study), "--format", "html"]) == 0
        return Seen(capsys.readouterr().out).text

    return text


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text outside pictures and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside += [tag] if tag in ("svg", "script", "style") else []

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        self.words += [] if self._inside else [data]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_holds_table_pictures_images_and_how_numbers_were_made(page):
    seen = Seen(page)
    assert [tag for tag, _ in seen.tags].count("svg") == 2  # trade-off and history
    for said in (
        "upper bound: something hides the truth",
        "95 % interval",
        "steps=20",
        "seed 0: ",
        "test/5.png: two",
        "Robust accuracy over the radius is not drawn",
        "advbench report --paper NAME",
        "kept: 8 of 12 images fell",
        "\N{MULTIPLICATION SIGN}5",
    ):
        assert said in seen.text, said
    assert re.search(r"≤\d\d\.\d\d \[", seen.text)
    assert not re.search(r"https?://(?!www\.w3\.org|arxiv\.org)", page.partition("</style>")[2])


def test_whatever_a_record_says_is_text(page):
    seen = Seen(page)
    assert [tag for tag, _ in seen.tags].count("script") == 1
    assert not [attrs for _, attrs in seen.tags if any(name.startswith("on") for name in attrs)]
    assert all(attrs["src"].startswith("data:image/") for tag, attrs in seen.tags if tag == "img")
    assert f"pgd-at:{HOSTILE}" in html.unescape(page)
    assert HOSTILE not in page
    policy = next(attrs for _, attrs in seen.tags if "http-equiv" in attrs)["content"]
    assert policy.startswith("default-src 'none'")
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_surest_errors_come_first(page):
    names = re.findall(r"test/(\d+)\.png", page)
    assert list(map(int, names)) == [7, 6, 5, 4, 3, 2, 1, 0]


def test_pages_without_images_or_pictures_say_how_to_get_them(study, undrawn):
    (study / "kept" / "run.json").unlink()
    text = undrawn()
    assert "pictures need matplotlib" in text
    assert "advbench attack pgd20 --run " in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((12, 1, 8, 8))}, "'x' holds no 12 images"),
        ({"y": np.zeros(3, int)}, "'y' is not of 12 images"),
        ({"norm": np.zeros((12, 12), np.float32)}, "'norm' is not of 12 images"),
    ],
)
def test_a_damaged_file_of_images_is_named_and_the_page_goes_on(study, undrawn, change, message):
    write_images(study / "kept", records.read(study / "kept"), **change)
    text = undrawn()
    assert "adversarial.npz is damaged" in text
    assert message in text


def test_another_file_than_the_recorded_one_is_not_shown(study, undrawn):
    with (study / "kept" / "adversarial.npz").open("ab") as file:
        file.write(b"x")
    assert "is not the file that its record names" in undrawn()


def test_images_of_a_model_whose_answers_mean_nothing_are_not_shown(study, undrawn):
    run = records.read(study / "kept")
    void = {"pgd20": replace(run.attacks["pgd20"], trust="withheld")}
    records.write(replace(run, attacks=void), study / "kept")
    text = undrawn()
    assert "kept: no images, its answers mean nothing" in text
    assert "test/7.png" not in text


def test_images_of_an_attack_with_a_target_are_said_to_be_left_out(study, undrawn):
    run = records.read(study / "kept")
    reached = TargetedOutcome(
        params={**PGD, "target": 1},
        target="1",
        n=8,
        reached=3,
        success_rate=0.375,
        of_the_target=4,
        wrong=0,
        forwards=1,
        backwards=1,
        seconds=1.0,
    )
    records.write(replace(run, attacks={}, targeted={"pgd20:target=1": reached}), study / "kept")
    assert "kept: no images, pgd20:target=1 is after one class only" in undrawn()


def test_models_from_elsewhere_have_figures_but_no_history(study, capsys):
    pytest.importorskip("matplotlib")
    for model in ("trades-s0", "trades-s1", "pgd-at-s0", "pgd-at-s1"):
        (study / model / "run.json").unlink()
    assert main(["report", "--results", str(study), "--format", "html"]) == 0
    seen = Seen(capsys.readouterr().out)
    assert [tag for tag, _ in seen.tags].count("svg") == 1  # the trade-off
    assert "training is not drawn: no training run here made these models" in seen.text
    assert "test/7.png" in seen.text


def test_other_tables_are_pages_too(capsys):
    assert main(["paper", "show", "trades", "--table", "5", "--format", "html"]) == 0
    seen = Seen(capsys.readouterr().out)
    assert "TRADES 1/lambda=6" in seen.text
    assert "56.61" in seen.text


def test_templates_are_part_of_the_package():
    for name in ("page.html", "style.css", "study.css", "study.js"):
        assert template_text(name)


PROBE = """
const frame = document.querySelector("iframe"), found = {};
const inside = frame.contentDocument, column = (at) =>
  [...inside.querySelectorAll("#results tbody tr")].map((row) => row.cells[at].textContent.trim());
const head = (at) => inside.querySelectorAll("#results th button")[at];
found.overflow = inside.documentElement.scrollWidth - frame.clientWidth;
found.ground = frame.contentWindow.getComputedStyle(inside.body).backgroundColor;
found.title = inside.title;
head(1).click(); found.down = column(1); head(1).click(); found.up = column(1);
found.sorted = inside.querySelectorAll("#results th")[1].getAttribute("aria-sort");
const opened = inside.querySelector("#results td button");
opened.click();
found.popover = inside.querySelectorAll(":popover-open").length;
const filter = inside.querySelector("select[name=label]");
filter.value = "two"; filter.dispatchEvent(new Event("change"));
found.cards = [...inside.querySelectorAll(".fallen")].filter((card) => !card.hidden).length;
found.said = inside.querySelector("#shown").textContent;
const out = document.createElement("pre");
out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out);
"""


def shown(text, folder, width, *, dark):
    """Return what the probe finds in a page in a frame of this width, and the browser's console."""
    harness = folder / f"harness-{width}-{dark}.html"
    harness.write_text(
        f'<!doctype html><meta charset="utf-8"><body><iframe srcdoc="{html.escape(text)}" '
        f'style="width:{width}px;height:900px;border:0"></iframe>'
        f'<script>addEventListener("load", () => {{{PROBE}}});</script>'
    )
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run(
        [BROWSER, *options, "--virtual-time-budget=2000", "--dump-dom", harness.as_uri()],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    return json.loads(html.unescape(found))


@pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1400, False)])
def test_a_browser_shows_sorts_and_filters_it(page, tmp_path, width, dark):
    found = shown(page, tmp_path, width, dark=dark)
    assert found["overflow"] <= 0
    assert found["title"] == "results"
    assert found["ground"] == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert found["up"] == found["down"][::-1]
    assert found["sorted"] == "ascending"
    assert found["popover"] == 1
    assert found["cards"] == 2
    assert found["said"] == "2"
