"""The 2020 study's claims: its figures are restated right, and the page follows from them and from our run."""

from dataclasses import replace
from pathlib import Path

import pytest
from report_edits import GOLDEN

from bench.result import Part, Results, row_name
from bench.result_file import read_results, write_results
from models.errors import ArtifactError
from reports.study.__main__ import PUBLISHED, SENTENCES, main, read_evidence
from reports.study.claims import NOT_MEASURED, check_claims
from reports.study.evidence import Evidence, is_bleu_of, is_possible, reduction, same_scores
from reports.study.page import FIGURE, render_claims
from reports.study.runs import (
    DECODER_PARTS,
    ENCODER_PARTS,
    DecoderTechnique,
    EncoderTechnique,
    find_run,
    read_runs,
    remeasured,
)
from reports.study.sentences import FOUR_RUNS, read_sentences, score_sentences
from reports.text import SAME

ROOT = Path(__file__).parent.parent
REFERENCES = {
    "a.jpg": ("two dogs are running through the grass", "Dogs run ."),
    "b.jpg": ("a man is standing on the street", "A man in black stands on a street ."),
}


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence(read_runs(), read_sentences(ROOT / PUBLISHED / SENTENCES))


@pytest.fixture(scope="module")
def results() -> Results:
    """The golden run as if every row were one of the study's combinations."""
    golden = read_results(GOLDEN / "results.json")
    parts = [
        (Part("none", "fp32"), Part("none", "fp32")),
        (ENCODER_PARTS[EncoderTechnique.INT8], DECODER_PARTS[DecoderTechnique.QAT]),
        *((ENCODER_PARTS[EncoderTechnique.DENSE], DECODER_PARTS[technique]) for technique in DecoderTechnique),
    ]
    measured = [row for row in golden.rows if row.quality][: len(parts)]
    rows = [
        replace(row, captioner="vgg16-merge", encoder=encoder, decoder=decoder, runtime="tflite" if n else row.runtime)
        for n, (row, (encoder, decoder)) in enumerate(zip(measured, parts, strict=False))
    ]
    return replace(golden, rows=tuple(rows))


def test_all_results_of_the_study_are_there() -> None:
    runs = read_runs()
    assert len(runs) == len({run.name for run in runs}) == 34
    assert {run.encoder for run in runs} == {"vgg16", "resnet50"}
    assert sum(run.decoder_mib is not None for run in runs) == 12


def test_a_combination_that_was_not_run_is_told() -> None:
    with pytest.raises(LookupError, match="did not run vgg16, pruned50, post_training"):
        find_run(read_runs(), "vgg16", EncoderTechnique.PRUNED50, DecoderTechnique.POST_TRAINING)


def test_four_runs_print_the_score_of_one_sentence(evidence: Evidence) -> None:
    """On the 1000 test images; what is kept is scored by this project's own code from the public captions."""
    alike = [run for run in evidence.runs if is_bleu_of(run, evidence.sentences[FOUR_RUNS])]
    assert len(alike) == 4
    assert all(run.encoder_technique is EncoderTechnique.PRUNED50 for run in alike)
    assert evidence.sentences[FOUR_RUNS].images == 1000


def test_equal_scores_are_those_four_and_two_broken_ones(evidence: Evidence) -> None:
    assert len(same_scores(evidence.runs)) == 3 + 1


def test_impossible_scores_are_found(evidence: Evidence) -> None:
    doubtful = [run.name for run in evidence.runs if not is_possible(run)]
    assert "vgg16 dense + LSTM pruned90" in doubtful
    assert len(doubtful) == 4


def test_reduction_is_the_share_that_is_gone() -> None:
    assert reduction(578.4, 155.39) == pytest.approx(0.7313, abs=1e-4)
    assert reduction(5.68, 1.63) == pytest.approx(0.7130, abs=1e-4)


def test_sentences_are_scored_as_the_caption_of_every_image() -> None:
    scores = score_sentences(REFERENCES)
    assert scores[FOUR_RUNS].images == 2
    assert scores[FOUR_RUNS].distinct_captions == 1
    assert scores[FOUR_RUNS].paper_bleu_1 > scores["the in is on with and of"].paper_bleu_2


def test_missing_scores_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no scores of sentences.*python -m reports\.study --data DIR"):
        read_sentences(tmp_path / "absent.json")


def test_row_stands_for_a_run_by_captioner_and_both_halves(results: Results) -> None:
    best = find_run(read_runs(), "vgg16", EncoderTechnique.INT8, DecoderTechnique.QAT)
    row = remeasured(best, results.rows, "tflite")
    assert row is not None
    assert (row.encoder.precision, row.decoder.technique) == ("int8_dynamic", "qat")
    assert remeasured(best, results.rows, "onnxruntime") is None
    assert remeasured(replace(best, encoder="resnet50"), results.rows, "tflite") is None


def test_how_a_half_learned_is_the_suites_but_not_what_was_pruned(results: Results) -> None:
    best = find_run(read_runs(), "vgg16", EncoderTechnique.INT8, DecoderTechnique.QAT)
    pruned = replace(best, encoder_technique=EncoderTechnique.PRUNED50_INT8)
    row = remeasured(best, results.rows, "tflite")
    assert row is not None
    assert remeasured(pruned, results.rows, "tflite") is None
    quick = replace(row, encoder=replace(row.encoder, technique="prune50(images=1000,epochs=1)"))
    assert remeasured(pruned, [quick], "tflite") == quick
    pruned = find_run(read_runs(), "vgg16", EncoderTechnique.INT8, DecoderTechnique.PRUNED80)
    for options, stands in (("layers=embedding|lstm|words,train=step", True), ("layers=lstm,train=step", False)):
        quick = replace(row, decoder=Part(f"prune80({options})", "fp32"))
        assert (remeasured(pruned, [quick], "tflite") == quick) is stands


def test_claims_without_a_run_say_what_is_missing_and_still_judge(evidence: Evidence) -> None:
    claims = check_claims(evidence)
    assert any(NOT_MEASURED in claim.honest for claim in claims)
    assert all(claim.verdict.startswith("**") for claim in claims)
    assert all(claim.prints and claim.says for claim in claims)


def test_claims_take_our_figures_from_the_run(evidence: Evidence, results: Results) -> None:
    ours = Evidence(evidence.runs, evidence.sentences, results)
    base, row = ours.keras_row, ours.row(ours.best)
    assert base is not None
    assert row is not None
    assert base.size_bytes is not None
    assert row.size_bytes is not None
    page = render_claims(ours)
    share = 100 * (1 - row.size_bytes.total / base.size_bytes.total)
    assert f"{base.size_bytes.total / 1e6:.2f} MB become {row.size_bytes.total / 1e6:.2f} MB, {share:.1f} %" in page
    assert f"| {row.size_bytes.total / 1e6:.2f} |" in page


def test_page_parts_the_gain_of_the_studys_captioner_into_steps(evidence: Evidence, results: Results) -> None:
    page = render_claims(Evidence(evidence.runs, evidence.sentences, results))
    way = page.partition("## From its Keras loop to INT8, step by step")[2].partition("## Its 34 results")[0]
    assert f"]({FIGURE})" in way
    assert "| baseline |" in way
    assert "| **all steps** |" in way
    assert FIGURE not in render_claims(evidence)  # no run, no way


def test_a_step_within_noise_is_given_no_factor(evidence: Evidence, results: Results) -> None:
    def way(noise_floor: float) -> str:
        page = render_claims(Evidence(evidence.runs, evidence.sentences, replace(results, noise_floor=noise_floor)))
        return page.partition("whole captions, pixels to words: ")[2].partition(";")[0]

    assert SAME not in way(0.0)
    assert set(way(1e6).replace(",", "").split()[1::2]) == {SAME}


def test_picture_of_the_steps_is_written_beside_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Results
) -> None:
    loop = replace(
        results, suite="flickr8k", dataset="flickr8k", baseline="vgg16-merge.keras.fp32.prefix @ keras_predict"
    )
    base = next(row for row in results.rows if row_name(row) == results.baseline)
    keras = replace(base, recipe="vgg16-merge.keras.fp32.prefix", runtime="keras_predict")
    rows = tuple(keras if row is base else row for row in results.rows)
    write_results(replace(loop, rows=rows), tmp_path / PUBLISHED / "flickr8k" / "results.json")
    (tmp_path / PUBLISHED / SENTENCES).write_bytes((ROOT / PUBLISHED / SENTENCES).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    assert (tmp_path / PUBLISHED / FIGURE).read_text().startswith("<?xml")


def test_another_captioner_is_no_compression(evidence: Evidence, results: Results) -> None:
    keras = Evidence(evidence.runs, evidence.sentences, results).keras_row
    assert keras is not None
    assert keras.size_bytes is not None
    tiny = replace(keras.size_bytes, encoder=1, decoder=1, total=2)
    other = replace(keras, captioner="tiny-attention", size_bytes=tiny)
    ours = Evidence(evidence.runs, evidence.sentences, replace(results, rows=(*results.rows, other)))
    assert ours.report is not None
    assert ours.own_terms is not None
    assert any(item.row.captioner == "tiny-attention" for item in ours.report.rows)
    assert {item.row.captioner for item in ours.own_terms.rows} == {"vgg16-merge"}
    assert "; with another captioner, " in render_claims(ours)
    assert "another captioner" not in render_claims(Evidence(evidence.runs, evidence.sentences, results))


def test_page_shows_every_result_and_marks_the_doubtful(evidence: Evidence) -> None:
    page = render_claims(evidence)
    table = page.partition("## Its 34 results and ours")[2].partition("## Sentences")[0]
    lines = [line for line in table.splitlines() if line.startswith(("| vgg16", "| resnet50"))]
    assert len(lines) == 34
    assert sum("| same |" in line for line in lines) == 4
    assert sum("| impossible |" in line for line in lines) == 4


def test_published_page_is_that_of_the_published_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) == 0


def test_an_old_page_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / PUBLISHED).mkdir(parents=True)
    (tmp_path / PUBLISHED / SENTENCES).write_bytes((ROOT / PUBLISHED / SENTENCES).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == 1
    assert "python -m reports.study" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert read_evidence(PUBLISHED).results is None


def test_runs_over_the_studys_loop_on_photographs_are_taken(results: Results, tmp_path: Path) -> None:
    def publish(suite: str, run: Results) -> None:
        write_results(replace(run, suite=suite), tmp_path / suite / "results.json")

    def found() -> tuple[str | None, str | None]:
        evidence = read_evidence(tmp_path)
        return evidence.results.suite if evidence.results else None, evidence.grid.suite if evidence.grid else None

    (tmp_path / SENTENCES).write_bytes((ROOT / PUBLISHED / SENTENCES).read_bytes())
    loop = replace(results, dataset="flickr8k", baseline="vgg16-merge.keras.fp32.prefix @ keras_predict")
    publish("flickr8k", replace(loop, baseline="vgg16-merge.onnx.fp32 @ onnxruntime"))
    assert found() == (None, None)
    publish("paper", replace(loop, dataset="scenes"))
    assert found() == (None, None)
    publish("paper", loop)
    assert found() == ("paper", "paper")
    publish("flickr8k", loop)
    assert found() == ("flickr8k", "paper")
    assert "([report](paper/report.md))" in render_claims(read_evidence(tmp_path))


def test_combinations_come_from_the_grid_and_headlines_from_what_was_timed_at_length(
    evidence: Evidence, results: Results
) -> None:
    marked = tuple(replace(row, sha256="of the grid") for row in results.rows)
    ours = Evidence(evidence.runs, evidence.sentences, results, replace(results, suite="paper", rows=marked))
    combined = ours.combination(evidence.best)
    assert combined is not None
    assert combined.sha256 == "of the grid"
    assert ours.keras_row in results.rows
    assert ours.row(evidence.best) in results.rows  # ratios are of one run
    page = render_claims(ours)
    assert "Ours are of suite `paper` ([report](paper/report.md))" in page
    assert "Ours are of suite" in render_claims(replace(ours, grid=None))
