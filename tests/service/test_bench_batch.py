"""`endcap bench batch` on a real deployment, and its plot."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ranking.batching import Curve, Policy
from service.batch_plot import nice, page, picture
from service.cli import main
from service.commands import bench_batch
from service.commands.bench_batch import Measured, verdict
from service.config import read_config
from tests.ranking.test_batching import CPU, CROWDED, GPU, device, learned

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script src="x">&'


def made(name: str = "home", policy: Policy | None = None) -> Measured:
    figures = (policy or learned(device(2.0, 0.1), most=48)).figures()
    return Measured(name, "default@3", tuple(took * 1.01 for took in figures.seconds), figures)


def test_every_placement_is_measured_up_to_the_most_and_fitted(
    deployment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each query of a batch has a history of its own; the files hold the same figures as the tables."""
    kept: list[Measured] = []
    show = bench_batch.show
    monkeypatch.setattr(bench_batch, "show", lambda one: (kept.append(one), show(one)))
    svg, html = tmp_path / "plot.svg", tmp_path / "plot.html"
    assert (
        main(["bench", "batch", "--dir", str(deployment), "--tries", "1", "--svg", str(svg), "--html", str(html)]) == 0
    )
    assert [one.placement for one in kept] == list(read_config(deployment).placements)
    for one in kept:
        assert one.figures.sizes == (1, 2, 4, 8, 16, 32) and all(took > 0 for took in one.seconds)
        assert one.figures.size in one.figures.sizes and (one.figures.typical_rows > 0) == (one.placement == "home")
    charts = ElementTree.fromstring(svg.read_text()).findall(f"{SVG}g")
    assert [len(one.findall(f"{SVG}circle[@class='dot']")) for one in charts] == [6] * len(kept)
    assert html.read_text().count("<caption>") == len(kept) and sorted(tmp_path.iterdir()) == [html, svg]


@pytest.mark.parametrize("option", ["--svg", "--html"])
def test_a_file_in_no_directory_is_one_line_before_anything_is_measured(
    deployment: Path, tmp_path: Path, option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "batch", "--dir", str(deployment), option, str(tmp_path / "none" / "plot")]) == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and "its directory does not exist" in said.err and said.out == ""
    assert not list(tmp_path.iterdir())
    assert main(["bench", "batch", "--dir", str(deployment), option, str(tmp_path)]) == 2
    assert "is a directory" in capfd.readouterr().err


def test_no_deployment_is_one_line_and_exit_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "batch", "--dir", str(tmp_path)]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_knee_and_choice_are_told_in_words() -> None:
    assert "half of a batch's time is fixed at 20.0 queries" in verdict(made().figures)
    assert "nothing of a batch's time is fixed; one at a time is best" in verdict(learned(CROWDED).figures())
    assert "batches of 64 are worth having within 50 ms" in verdict(learned(GPU).figures())
    free = Policy(Curve([(1, 0, 1e-3), (2, 0, 1e-3), (4, 0, 1e-3)]), most=4, slo_s=0.02)
    assert "batches of 4 are worth having" in verdict(free.figures())


def test_the_size_worth_having_and_the_knee_are_marked_in_the_plot() -> None:
    svg = picture([made()], "CPU")
    (chart,) = ElementTree.fromstring(svg).findall(f"{SVG}g")
    (ring,) = chart.findall(f"{SVG}circle[@class='ring']")
    dots = {one.get("cx"): one.get("cy") for one in chart.findall(f"{SVG}circle[@class='dot']")}
    assert dots[ring.get("cx")] == ring.get("cy") and ring.get("cx") == max(dots, key=lambda x: float(x or 0))
    words = [one.text for one in chart.findall(f"{SVG}text")]
    assert "48 worth having" in words and "knee 20.0" in words
    assert {"1", "2", "4", "8", "16", "32", "48"} <= set(words)


def test_a_plot_needs_nothing_from_elsewhere_and_a_name_is_text() -> None:
    both = page([made(HOSTILE), made("other", learned(CPU))], 'a "CPU" & more')
    assert HOSTILE not in both and "&lt;script" in both
    assert not re.search(r"<[^>]*(src|href)=", both) and "url(" not in both and "@import" not in both
    ElementTree.fromstring(picture([made(HOSTILE)], 'a "CPU" & more'))


def test_one_query_a_batch_is_a_plot_too() -> None:
    one = learned(CPU, most=1)
    ElementTree.fromstring(picture([made(policy=one)], "CPU"))


@pytest.mark.parametrize(("least", "step"), [(0.7, 1.0), (1.0, 1.0), (1.2, 2.0), (230.0, 500.0), (5001.0, 10_000.0)])
def test_ticks_are_round_numbers(least: float, step: float) -> None:
    assert nice(least) == pytest.approx(step)
