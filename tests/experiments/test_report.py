"""The report on synthetic records: its numbers against numpy's, what it says of schedules, commits and gaps."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_records import OTHER, OURS, SOME, SWEEP, make, record

from experiments.catalogue import catalogue
from experiments.report_curves import learning_curves
from experiments.report_figures import figure2, figure3, kind
from experiments.report_results import collect
from experiments.report_tables import differences, make_tables

pytest.importorskip("jinja2")

ROOT = Path(__file__).resolve().parents[2]
PAPER = json.loads((ROOT / "prototxt_gen" / "data" / "tables.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    make(folder, SOME)
    return folder


def cells(folder: Path, table: str, network: str, group: str = "") -> list[str]:
    """Of a row of report.md, found by its table, group and network."""
    text = (folder / "report.md").read_text()
    part = text.partition(f"## Table {table}:")[2].partition("\n## ")[0].partition(f"*{group}*" if group else "---|")[2]
    row = next(line for line in part.splitlines() if line.startswith(f"| {network} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_means_and_deviations_are_numpys(made):
    for network, accuracies in (("IGC-V2 (C64)", [51.25, 52.5, 50.125]), ("Xception (C35)", [49.5, 48.25])):
        expected = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
        row = cells(made, "4", network, "D = 8")
        assert row[6] == f"{expected} ({len(accuracies)} seeds, 10 of 400 epochs)"
        assert expected in (made / "report.html").read_text()
        assert row[8] == ""  # Tiny ImageNet: not trained


def test_the_longest_schedule_is_shown_and_not_mixed_with_others(made):
    page = (made / "report.html").read_text()
    assert "11.11" not in page and "b" * 10 not in page
    assert "<dt>Not shown</dt><dd>1 of runs that have longer trainings</dd>" in page


def test_one_seed_has_no_deviation_and_a_full_schedule_is_not_called_short(made):
    assert cells(made, "3", "IGC-V2* (C416)")[6] == "77.50 (1 seed, 400 epochs)"
    assert re.search(r"<b>77.50</b><small>1 seed, 400 epochs</small>", (made / "report.html").read_text())


def test_table_7_shows_the_error_of_table_3s_run(made):
    assert cells(made, "7", "IGC-V2*-C416, D = 20")[6] == "22.50 (1 seed, 400 epochs)"


def test_records_of_a_run_that_stands_in_two_tables_count_in_both():
    named = "table7/igcv2star_c416_d20_cifar100"
    results = collect([record(named, accuracy=70.0), record(catalogue()[named].trained, 2, accuracy=71.0)])
    assert results[named].accuracy == results[catalogue()[named].trained].accuracy == 70.5


@pytest.mark.parametrize("table", ["2", "3", "4", "5", "6"])
def test_every_printed_row_is_there_with_our_count_beside_it(made, table):
    paper, text = PAPER[f"table{table}"], (made / "report.md").read_text()
    part = text.partition(f"## Table {table}:")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if "±" in line]
    assert len(rows) == len(paper["rows"])
    for line, row in zip(rows, paper["rows"], strict=True):
        found = [cell.strip() for cell in line.strip("|").split("|")]
        assert f"(C{row['C']})" in found[0]
        printed = [f"{row[d][0]:.2f} ± {row[d][1]:.2f}" for d in ("cifar10", "cifar100", "tiny-imagenet") if d in row]
        assert [found[5], found[7]] == printed
        for place in (1, 3):
            ours, theirs = (float(cell.replace(",", "").strip("≈ ")) for cell in (found[place + 1], found[place]))
            assert ours == pytest.approx(theirs, rel=0.1)


def test_table_7_has_all_systems(made):
    for row in PAPER["table7"]["rows"]:
        found = cells(made, "7", f"{row['system']}, D = {row['depth']}")
        assert found[1] == str(row["params"]) or row["system"] == "DFN"
    assert "| 3.7 |" in (made / "report.md").read_text() and "| 3.9 |" in (made / "report.md").read_text()


def test_sizes_are_those_of_the_generators(made):
    row = cells(made, "4", "IGC-V2 (C64)", "D = 20")
    assert (row[2], row[4]) == ("0.149", "0.262")
    assert cells(made, "2", "IGC-V2 (C144)")[2] == f"{144 * (9 + 2 * 12):,}"  # equation 7


def test_differences_are_between_runs_of_one_schedule():
    found = list(differences(collect(SOME)))
    assert [(d.table, d.network, d.other) for d in found] == [("table4", "IGC-V2 (C64)", "Xception (C35)")]
    one, other = np.array([51.25, 52.5, 50.125]), np.array([49.5, 48.25])
    assert found[0].ours == pytest.approx(one.mean() - other.mean())
    assert found[0].error == pytest.approx(np.hypot(one.std(ddof=1) / 3**0.5, other.std(ddof=1) / 2**0.5))
    assert found[0].paper == pytest.approx(67.83 - 67.00)
    assert not list(differences(collect([record(OURS, epochs=10.0), record(OTHER, epochs=20.0)])))


def test_the_head_says_what_was_trained(made):
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", (made / "report.html").read_text().partition("<nav>")[0]))
    assert "Some of our trainings are shorter than the paper's" in page
    assert (
        "400 epochs : table 3 (1 run, 1 seed) 10 of 400 epochs : table 4 (1 run, 2 seeds), table 4 (1 run, 3 seeds), "
        in page
    )
    assert "A CPU, 2 threads of 4 cores, 8 GB" in page and "a" * 10 in page
    assert f"{sum(r.epochs != 2.0 for r in SOME)} trainings" in page


def test_each_training_is_listed_with_its_command(made):
    page = (made / "report.html").read_text()
    for one in SOME:
        if one.epochs != 2.0:
            assert f"<code>{' '.join(one.command)}</code>" in page
    rows = re.findall(r"<tr><td>(\S+)</td><td>(\d+)</td><td>(\S+) of 400</td><td>([\d.]+)</td>", page)
    assert set(rows) == {
        (r.name, str(r.seed), f"{r.epochs:g}", f"{r.test_accuracy:.2f}") for r in SOME if r.epochs != 2
    }


def test_colours_of_figure_2_follow_the_product_of_all_K():
    results = collect([])
    for layers in ("3", "4", "5"):
        sweep = [r for r in results.values() if r.run.table == "figure2" and r.run.L == layers]
        assert [kind(r) for r in sweep].count("red") == 1
        for result in sweep:
            dense = int(result.run.K) ** (int(layers) - 1) >= result.run.width
            assert kind(result) in (("blue", "red") if dense else ("green", "red"))


def test_figure_2_has_a_bar_for_each_trained_K_and_says_which_are_missing(made):
    pictures = {picture.title: picture for picture in figure2(collect(SOME))}
    assert [len(pictures[f"L = {n}"].tips) for n in (3, 4, 5)] == [0, 4, 0]
    assert (
        pictures["L = 4"].note == f"Trained for 1 seed, 10 of 400 epochs; {len(SWEEP) - 4} of {len(SWEEP)} not trained."
    )
    assert pictures["L = 3"].note == "Not trained yet."
    bars = re.findall(r"<g><title>([^<]*)</title>\s*<path [^>]*fill: var\(--(\w+)\)", pictures["L = 4"].svg)
    assert [colour for _, colour in bars] == ["green", "green", "green", "red"]
    assert bars[0][0] == f"{SWEEP[0]}: 30.00 % (1 seed, 10 of 400 epochs)"


def test_figure_2_warns_of_different_schedules():
    records = [record(SWEEP[0], epochs=10.0), record(SWEEP[1], epochs=20.0)]
    note = next(picture for picture in figure2(collect(records)) if picture.title == "L = 4").note
    assert "1 seed, 10 of 400 epochs / 1 seed, 20 of 400 epochs" in note and "do not compare" in note


def test_figure_3_has_widths_and_non_sparsities_of_theory(made):
    widths, densities = (picture.svg for picture in figure3(collect([]))[1:])
    for run in catalogue().values():
        if run.table == "figure3":
            per_branch = [int(k) for k in run.K.split("x")] * (1 if "x" in run.K else int(run.L) - 1)
            assert f">{run.width}</text>" in widths
            assert f">{(9 + sum(per_branch)) / (9 * run.width):.3f}</text>" in densities  # Q / (S C^2)


def test_pictures_are_files_that_the_markdown_shows(made):
    named = re.findall(r"\]\((pictures/\S+\.png)\)", (made / "report.md").read_text())
    assert len(named) == len(set(named)) == 3 + 3 + 3 + 6
    assert {str(path.relative_to(made)) for path in (made / "pictures").iterdir()} == set(named)
    for name in named:
        assert cv2.imread(str(made / name)).std() > 1


def test_the_page_needs_nothing_else(made):
    page = (made / "report.html").read_text()
    assert not re.search(r"\ssrc=|url\((?!#)|@import|<link|<script", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {h for h in re.findall(r'href="([^"]*)"', page) if h[0] == "#"}
    assert len(page) < 2_000_000
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', page))
    assert used <= set(re.findall(r' id="([\w-]+)"', page))


def test_empty_results_give_a_report_with_the_papers_numbers_alone(tmp_path):
    page = make(tmp_path / "results", [])
    assert "Nothing is trained yet" in page and "67.83 ± 0.35" in page
    assert "seed" not in re.sub(r"over\s+the seeds", "", re.sub(r"<[^>]*>", "", page.partition("</style>")[2]))
    assert "0.149" in page and 'id="curves"' not in page


def test_a_training_that_diverged_is_named(tmp_path, no_pictures):
    bad = record(OURS, 2, accuracy=1.0, test_loss=float("nan"))
    results = collect([record(OURS, 1, accuracy=51.0), bad])
    assert results[OURS].schedule == "2 seeds, 10 of 400 epochs, 1 of 2 diverged"
    table = next(table for table in make_tables(results) if table.name == "table4")
    assert table.rows[1].pairs[2].ours == f"26.00 ± {np.std([51, 1], ddof=1):.2f}"
    assert "1 of 2 diverged" in make(tmp_path / "results", [bad, record(OURS, 1)])


def test_losses_that_are_no_numbers_leave_gaps_in_the_curve():
    lost = [[0, 4.6], [2000, 4.5], [3906, float("nan")], [7812, float("inf")]]
    curve = {**SOME[0].curve, "train_loss": lost, "test_loss": [[0, float("nan")], [7812, float("nan")]]}
    (picture,) = learning_curves(collect([record(OURS, curve=curve)]))
    assert "nan" not in re.sub(r"<title>.*?</title>", "", picture.svg).lower() and picture.svg.count("<path") > 5


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FRAME = """<iframe id=f src=report.html style="width:{width}px;height:900px"></iframe><script>f.onload = () => {{
  const d = f.contentDocument, seen = e => e.getBoundingClientRect();
  const svgs = [...d.querySelectorAll("svg")].map(seen), table = seen(d.querySelector("#table4"));
  document.title = JSON.stringify({{page: d.documentElement.scrollWidth, table: table.width, svgs: svgs.length,
    narrowest: Math.min(...svgs.map(s => s.width)), lowest: Math.min(...svgs.map(s => s.height))}}) }}</script>"""


@pytest.mark.skipif(not BROWSER, reason="no chromium to show the page in")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_lays_the_page_out_within_its_width(made, tmp_path, width):
    shutil.copy(made / "report.html", tmp_path)
    (tmp_path / "frame.html").write_text(FRAME.format(width=width))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    profile = [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=10000", "--window-size=1400,1000"]
    dom = subprocess.run(
        [BROWSER, *options, *profile, f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120
    ).stdout
    found = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    assert found["page"] <= width and found["table"] > 0.8 * width
    assert found["svgs"] == 3 + 3 + 3 + 6 + 7 and found["narrowest"] > 250 and found["lowest"] > 150
