"""The command line: verbs over models, convert, bench and reports, imported only when a verb needs them."""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130  # what a shell calls a process that Ctrl-C ended

app = typer.Typer(
    help="Compress a Keras image captioner, run it on TensorFlow, TFLite and ONNX Runtime, and read what it cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SuiteOption = Annotated[str, typer.Option("--suite", "-s", help="A suite's name, or the path of a suite's TOML file.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data set (flickr8k, folder).", envvar="CAPTIONBENCH_DATA")
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where built things are kept. [default: .captionbench]")
]
PythonOption = Annotated[
    list[str] | None,
    typer.Option("--python", help="RUNTIME=INTERPRETER: run a runtime in another environment. Repeatable."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder of the report. [default: reports/runs/SUITE]")]


@app.command(epilog="Example: captionbench train --suite scenes")
def train(suite: SuiteOption = "scenes", data: DataOption = None, store: StoreOption = None) -> None:
    """Train the captioners of a suite, or say where they are."""
    from bench.building import open_suite_dataset
    from bench.quality import cider_mean
    from bench.suite import load_suite
    from convert.build import train as train_captioner

    loaded = load_suite(suite)
    dataset = open_suite_dataset(loaded, data)
    for spec in loaded.table.captioners:
        typer.echo(train_captioner(_store(store), spec, dataset, cider_mean).path)


@app.command(epilog="Example: captionbench compress scenes --technique prune80+cluster32 --out small")
def compress(
    captioner: Annotated[str, typer.Argument(help="A captioner of the suite, or the folder of a trained one.")],
    technique: Annotated[
        str, typer.Option("--technique", "-t", help="prune80, prune80+cluster32+qat, or ENCODER/DECODER chains.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the compressed captioner (Keras).")],
    suite: SuiteOption = "scenes",
    data: DataOption = None,
    store: StoreOption = None,
) -> None:
    """Compress a captioner in Keras, fine-tune it, and say what it reached."""
    from bench.compressing import compress_to_folder

    for line in compress_to_folder(_store(store), captioner, technique, out, suite, data):
        typer.echo(line)


@app.command(epilog="Example: captionbench techniques")
def techniques() -> None:
    """List the techniques and their options."""
    from models.compression.registry import TECHNIQUES

    for name, technique in TECHNIQUES.items():
        number = "N" if technique.amounts else ""
        typer.echo(f"{name + number:22} {technique.summary}; options {', '.join(technique.options) or 'none'}")


@app.command(epilog="Example: captionbench tune scenes --runtime onnxruntime --max-size 3MB --max-cider-drop 1%")
def tune(
    captioner: Annotated[str, typer.Argument(help="A captioner of the suite, or the folder of a trained one.")],
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="onnxruntime or tflite.")],
    max_cider_drop: Annotated[str, typer.Option("--max-cider-drop", help="1% or 0.01 of fp32's CIDEr.")] = "1%",
    max_size: Annotated[str, typer.Option("--max-size", help="3MB, 500kB, 3MiB. [default: any]")] = "",
    images: Annotated[
        int, typer.Option("--images", min=0, help="Validation images. [default: as many as the interval needs]")
    ] = 0,
    suite: SuiteOption = "scenes",
    data: DataOption = None,
    store: StoreOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of what it writes. [default: reports/runs/tuned-RUNTIME]")
    ] = None,
) -> None:
    """Find the smallest mixed precision that keeps the captions: layers go back to float only where it matters.

    Ends with status 1 when nothing passes.
    """
    from bench.tuning import Request, tune
    from bench.tuning_files import write_tuning
    from bench.tuning_gate import Gate, parse_share, parse_size
    from reports.tuning_text import print_tuning

    gate = Gate(parse_share(max_cider_drop), parse_size(max_size) if max_size else None)
    tuning = tune(_store(store), Request(captioner, runtime, gate, suite, data, images))
    folder = out or Path("reports/runs") / f"tuned-{tuning.runtime}"
    write_tuning(tuning, folder)
    print_tuning(tuning)
    typer.echo(folder)
    raise typer.Exit(tuning.winner is None)


@app.command(epilog="Example: captionbench build --suite scenes")
def build(suite: SuiteOption = "scenes", data: DataOption = None, store: StoreOption = None) -> None:
    """Build the artifacts of a suite, or say where they are."""
    from bench.building import build_suite, open_suite_dataset
    from bench.suite import load_suite
    from convert.artifact import Artifact

    loaded = load_suite(suite)
    built = build_suite(loaded, _store(store), open_suite_dataset(loaded, data))
    for recipe, artifact in built.artifacts.items():
        typer.echo(f"{recipe.name}\t{artifact.path if isinstance(artifact, Artifact) else f'failed: {artifact}'}")


@app.command(epilog="Example: captionbench bench --suite flickr8k --data ~/flickr8k")
def bench(
    suite: SuiteOption = "scenes",
    data: DataOption = None,
    store: StoreOption = None,
    out: OutOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer rows, images and samples; timings are marked quick.")
    ] = False,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Threads of every runtime. [default: the suite's]")
    ] = 0,
    cpus: Annotated[str, typer.Option("--cpus", help="Logical CPUs to time on: 0 or 0,1. [default: all]")] = "",
    python: PythonOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print verdict and rows as JSON.")] = False,
) -> None:
    """Build what is missing, measure it on every runtime, and write the report."""
    from bench.launcher import Launcher
    from bench.preparing import Options
    from bench.result_file import read_results
    from bench.run import run_suite
    from bench.suite import load_suite, quick_suite
    from reports.report import make_report
    from reports.summary import render_json
    from reports.terminal import print_report
    from reports.write import PAGE_NAME, write_report

    loaded = quick_suite(load_suite(suite)) if quick else load_suite(suite)
    folder = out or Path("reports/runs") / loaded.name
    command = _reproduce(suite, quick=quick, threads=threads, cpus=cpus)
    options = Options(data, quick, threads=threads, cpus=_numbers(cpus), command=command)
    results = run_suite(loaded, _store(store), Launcher(_pythons(python or [])), folder, options)
    written, report = write_report(results), make_report(read_results(results))
    if as_json:
        typer.echo(render_json(report), nl=False)
        return
    print_report(report)
    typer.echo(f"report: {written}\npage: {written.with_name(PAGE_NAME)}")


@app.command(epilog="Example: captionbench parity --suite scenes")
def parity(
    suite: SuiteOption = "scenes",
    data: DataOption = None,
    store: StoreOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of what it writes. [default: reports/runs/SUITE-parity]")
    ] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="RECIPE @ RUNTIME. Repeatable. [default: all]")] = None,
    reference: Annotated[
        str, typer.Option("--reference", help="The row to compare with. [default: fp32 Keras, or a row's fp32 twin]")
    ] = "",
    images: Annotated[int, typer.Option("--images", min=0, help="Test images. [default: all]")] = 0,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="Threads of every runtime. [default: the suite's]")
    ] = 0,
    save: Annotated[
        Path | None, typer.Option("--save", help="Leave the reference's tensors and captions here for other machines.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Check --artifact against what --save left; needs no TensorFlow.")
    ] = None,
    artifact: Annotated[
        str, typer.Option("--artifact", help="With --against: an artifact's folder, or its name.")
    ] = "",
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="With --against. [default: by format]")] = "",
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Find the first layer of --row that leaves the tolerance of --reference.")
    ] = False,
    python: PythonOption = None,
) -> None:
    """Do captions match across runtimes, on the same file and on the same tensor, and where they don't, why?

    \b
    Ends with status
      0  every fp32 and fp16 row says what its reference says, but for proven ties
      1  one of them differs otherwise, or --bisect found a layer
      2  bad input: unknown rows, or rows that can't be compared
    """
    from bench.launcher import Launcher
    from bench.parity.command import Selection, check_against, run_parity, save_golden
    from bench.parity.shown import parity_status
    from bench.preparing import Options
    from bench.suite import load_suite
    from reports.parity_page import print_parity, write_parity_page

    launcher, kept = Launcher(_pythons(python or [])), _store(store)
    command = _reproduce_parity(suite, row or [], reference, images)
    if against:
        found = check_against(kept, launcher, against, artifact, runtime, threads or 1, "")
    else:
        loaded = load_suite(suite)
        options = Options(data, images=images, threads=threads, command=command)
        if save:
            save_golden(loaded, kept, launcher, save, options, reference)
            typer.echo(f"saved: {save}")
            return
        selection = Selection(tuple(dict.fromkeys(row or ())), reference)
        if bisect:
            raise typer.Exit(_bisect(loaded, kept, launcher, out, options, selection))
        folder = out or Path("reports/runs") / f"{loaded.name}-parity"
        found = run_parity(loaded, kept, launcher, folder, options, selection)
        typer.echo(f"page: {write_parity_page(found, folder)}")
    print_parity(found)
    raise typer.Exit(parity_status(found.rows))


@app.command(epilog="Example: captionbench contract scenes.onnx.fp32 photo.jpg tensor.npy")
def contract(
    artifact: Annotated[str, typer.Argument(help="An artifact's folder, or the name of a recipe that was built.")],
    picture: Annotated[Path, typer.Argument(help="The image file that the tensor was made of.")],
    tensor: Annotated[Path, typer.Argument(help="The encoder's input in your program, saved with numpy.save.")],
    store: StoreOption = None,
) -> None:
    """Say by name what your own program does otherwise than the artifact when it prepares images.

    Ends with status 1 when it does anything otherwise.
    """
    from bench.contract_command import check_tensor

    told = check_tensor(_store(store), artifact, picture, tensor)
    typer.echo(told or "the same, bit for bit")
    raise typer.Exit(bool(told))


@app.command(epilog="Example: captionbench matrix --out docs/matrix.md")
def matrix(
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("docs/matrix.md"),
    store: StoreOption = None,
) -> None:
    """Build and caption every technique x precision x format x runtime, tiny, and write what works with what.

    Needs every runtime in one environment. Ends with status 1 when a cell failed that is not known to be impossible.
    """
    from bench.building import open_suite_dataset
    from bench.matrix import Outcome, run_matrix
    from bench.suite import load_suite
    from models.datasets.base import Split
    from models.files import write_text_atomic
    from reports.matrix import render_matrix

    suite = load_suite("matrix")
    dataset = open_suite_dataset(suite, None)
    cells = run_matrix(suite, _store(store), dataset)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(out, render_matrix(cells, len(dataset.images(Split.TEST))))
    failed = [cell for cell in cells if cell.outcome is Outcome.FAILED]
    for cell in failed:
        typer.echo(f"failed: {cell.cell.name}: {cell.reason}", err=True)
    typer.echo(f"{len(cells)} cells, {len(failed)} failed: {out}")
    raise typer.Exit(bool(failed))


@app.command(epilog="Example: captionbench report reports/runs/scenes --export csv")
def report(
    results: Annotated[list[Path], typer.Argument(help="A results.json, or the folder that holds one. Repeatable.")],
    out: OutOption = None,
    export: Annotated[
        list[str] | None, typer.Option("--export", help="csv or jsonl: the rows as data beside the report. Repeatable.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="One page of how all these runs moved.")] = False,
) -> None:
    """Write the report of a results file again, its rows as data, or the history of several."""
    from bench.result_file import results_path
    from reports.exporters import export_rows
    from reports.history import write_history
    from reports.write import write_report

    paths = [results_path(path) for path in results]
    if history:
        typer.echo(write_history(paths, out or paths[-1].parent))
        return
    for path in paths:
        typer.echo(write_report(path, out))
        for name in export or []:
            typer.echo(export_rows(path, name, out))


@app.command(epilog="Example: captionbench compare before/results.json after/ --confirm again/")
def compare(
    before: Annotated[Path, typer.Argument(help="A results.json, or the folder that holds one.")],
    after: Annotated[Path, typer.Argument(help="Another run of the same suite.")],
    confirm: Annotated[
        Path | None, typer.Option("--confirm", help="A second fresh run of what AFTER measured, for slower times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what changed significantly between two runs, and whether that may pass.

    \b
    Ends with status
      0  no significant change, or none for the worse
      1  worse: captions, bytes, integer share, quality, or a row that broke
      2  bad input: no results, or runs that can't be compared
      3  slower, and the run given with --confirm says so too
      4  perhaps slower: run once more and pass that with --confirm
    """
    from bench.changes import find_changes
    from bench.result_file import read_results, results_path
    from reports.changes_text import changes_json, print_changes

    first, second, *third = (read_results(results_path(path)) for path in (before, after, confirm) if path)
    changes = find_changes(first, second, *third)
    if as_json:
        typer.echo(changes_json(changes))
    else:
        print_changes(changes)
    raise typer.Exit(changes.outcome)


@app.command(epilog="Example: captionbench recommend reports/runs/scenes --max-size 6MB --max-latency 20ms")
def recommend(
    results: Annotated[Path, typer.Argument(help="A results.json, or the folder that holds one.")],
    max_size: Annotated[str, typer.Option("--max-size", help="6MB, 500kB, 3MiB. [default: any]")] = "",
    max_latency: Annotated[str, typer.Option("--max-latency", help="20ms, 0.5s, 800us. [default: any]")] = "",
    max_cider_drop: Annotated[str, typer.Option("--max-cider-drop", help="1% or 0.01 of the baseline's CIDEr.")] = "1%",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what to ship within limits, and why not the others.

    Ends with status 1 when nothing keeps the limits.
    """
    from bench.result_file import read_results, results_path
    from bench.tuning_gate import parse_share, parse_size
    from reports.recommend import Limits, describe, parse_latency
    from reports.recommend import recommend as choose

    limits = Limits(
        parse_size(max_size) if max_size else None,
        parse_latency(max_latency) if max_latency else None,
        parse_share(max_cider_drop),
    )
    found = choose(read_results(results_path(results)), limits)
    typer.echo(found.to_json() if as_json else "\n".join(describe(found)))
    raise typer.Exit(not found.answers)


@app.command(epilog="Example: captionbench caption scenes.onnx.fp32 photo.jpg holidays/ https://example.org/a.jpg")
def caption(
    artifact: Annotated[str, typer.Argument(help="An artifact's folder, or the name of a recipe that was built.")],
    pictures: Annotated[list[str], typer.Argument(help="Image files, folders of images, or http(s) addresses.")],
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="Default: the first that reads the format.")] = "",
    search: Annotated[
        str, typer.Option("--search", help="greedy or beam3. [default: beam3, greedy where the loop is in the file]")
    ] = "",
    threads: Annotated[int, typer.Option("--threads", min=1)] = 2,
    store: StoreOption = None,
) -> None:
    """Caption pictures with any artifact on any runtime. A picture that can't be read does not stop the others."""
    from bench.pictures import caption_pictures

    failures = 0
    for name, said, error in caption_pictures(_store(store), artifact, pictures, runtime, search, threads):
        failures += bool(error)
        typer.echo(f"error: {error}" if error else f"{name}\t{said}", err=bool(error))
    raise typer.Exit(2 if failures else 0)


@app.command(epilog="Example: captionbench inspect step.onnx encoder.tflite --profile")
def inspect(
    files: Annotated[list[Path], typer.Argument(help=".onnx and .tflite files of any origin, or artifact folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Run it, and say where time and memory go.")] = False,
    resident: Annotated[bool, typer.Option("--resident", help="Measure the memory that loading takes.")] = False,
    saturation: Annotated[
        bool, typer.Option("--saturation", help="Say which INT8 ONNX layers could overflow on x86 without VNNI.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", min=1)] = 2,
) -> None:
    """Say what of a model really is stored and computed in integers. A file that can't be read does not stop others."""
    from bench.inspecting import inspect_files
    from models.errors import CaptionbenchError
    from reports.ledger_text import inspection_json, print_inspection

    found, failures = [], 0
    for file in files:
        try:
            for inspection in inspect_files(
                file,
                threads=threads,
                with_profile=profile,
                with_resident=profile or resident,
                with_saturation=saturation,
            ):
                found.append(inspection)
                if not as_json:
                    print_inspection(inspection)
        except CaptionbenchError as error:
            failures += 1
            typer.echo(f"error: {error}", err=True)
    if as_json:
        typer.echo(inspection_json(found))
    raise typer.Exit(2 if failures else 0)


@app.command(epilog="Example: captionbench sensitivity --comparisons 40 --slowed 20")
def sensitivity(
    row: Annotated[
        str, typer.Option("--row", help="RECIPE @ RUNTIME of the suite.")
    ] = "scenes.tflite.int8_static.fused @ tflite",
    comparisons: Annotated[int, typer.Option("--comparisons", min=1, help="Of the artifact against itself.")] = 40,
    slowed: Annotated[int, typer.Option("--slowed", min=0, help="Of them also against itself slowed down.")] = 20,
    suite: SuiteOption = "fused",
    data: DataOption = None,
    store: StoreOption = None,
    out: Annotated[Path, typer.Option("--out", help="The JSON to write.")] = Path("reports/runs/sensitivity.json"),
    python: PythonOption = None,
) -> None:
    """Check the harness: how often one artifact differs from itself, and whether 5 % and 10 % slower are found.

    Ends with status 1 when a bar is missed.
    """
    from bench.launcher import Launcher
    from bench.sensitivity import check_suite_row
    from reports.sensitivity_text import print_checks

    checks = check_suite_row(
        _store(store),
        Launcher(_pythons(python or [])),
        suite,
        data,
        row,
        comparisons=comparisons,
        slowed=slowed,
        out=out,
    )
    print_checks(checks)
    raise typer.Exit(not all(check.holds for check in checks))


@app.command(epilog="Example: captionbench suites")
def suites() -> None:
    """List the suites that come with the project."""
    from bench.suite import load_suite, suite_names

    for name in suite_names():
        suite = load_suite(name)
        typer.echo(f"{name:12} {suite.table.title} ({len(suite.cells)} rows, data set {suite.table.dataset})")


@app.command(epilog="Example: captionbench runtimes")
def runtimes() -> None:
    """List the runtimes, the formats they read, and their versions in this environment."""
    from bench.runtimes import RUNTIMES, runtime_version

    for runtime in RUNTIMES.values():
        version = runtime_version(runtime) or "not installed here"
        typer.echo(f"{runtime.name:14} {version:20} reads {', '.join(runtime.formats)}")


def _store(root: Path | None):  # type: ignore[no-untyped-def]
    """The store, without importing it before a verb runs."""
    from convert.store import Store, default_root

    return Store(root.absolute() if root else default_root())


def _pythons(pairs: list[str]) -> dict[str, Path]:
    """RUNTIME=INTERPRETER pairs. Raises ConfigError."""
    from bench.runtimes import find_runtime
    from models.errors import ConfigError

    pythons = {}
    for pair in pairs:
        runtime, equals, path = pair.partition("=")
        if not equals:
            raise ConfigError(f"--python takes RUNTIME=INTERPRETER; received '{pair}'.")
        pythons[find_runtime(runtime).name] = Path(path)
    return pythons


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas. Raises ConfigError."""
    from models.errors import ConfigError

    try:
        return tuple(int(number) for number in text.split(",") if text)
    except ValueError:
        raise ConfigError(f"--cpus takes numbers of CPUs, as in 0,1; received '{text}'.") from None


def _reproduce(suite: str, *, quick: bool, threads: int, cpus: str) -> str:
    """The command that makes this run again; paths of this machine stay out of it."""
    options = ([] if suite == "scenes" else ["--suite", suite]) + ["--quick"] * quick
    options += ["--threads", str(threads)] if threads else []
    options += ["--cpus", cpus] if cpus else []
    return "nox -s bench" + (f" -- {' '.join(options)}" if options else "")


def _bisect(suite, store, launcher, out, options, selection) -> int:  # type: ignore[no-untyped-def]
    """Print both bisections; 1 when a layer was found."""
    from bench.parity.bisect_command import run_bisect
    from reports.bisect_text import print_bisection

    folder = out or Path("reports/runs") / f"{suite.name}-bisect"
    found = run_bisect(suite, store, launcher, folder, options, selection)
    for bisection, reproduction in found:
        print_bisection(bisection, reproduction)
    return int(any(bisection.suspect for bisection, _ in found))


def _reproduce_parity(suite: str, rows: list[str], reference: str, images: int) -> str:
    """The command that compares these rows again; paths of this machine stay out of it."""
    options = [] if suite == "scenes" else ["--suite", suite]
    options += [part for row in rows for part in ("--row", f"'{row}'")]
    options += ["--reference", f"'{reference}'"] if reference else []
    options += ["--images", str(images)] if images else []
    return "nox -s parity" + (f" -- {' '.join(options)}" if options else "")


def main() -> None:
    """The console script: errors a user can cause are one sentence and exit status 2."""
    from models.errors import CaptionbenchError

    try:
        app()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            print("interrupted; run the same command again: it goes on where it stopped.", file=sys.stderr)
        raise
    except CaptionbenchError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(
            _fail("the disk is full; free some space and run the same command again: it goes on where it stopped.")
        )


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
