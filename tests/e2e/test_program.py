"""Options, exit codes, interruption and output of the program."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from program import Run

STEPS = ("read", "PCA", "UMAP", "markers")
FAST = ("--umap-epochs", 30, "--n-top-genes", 500, "--n-comps", 20)


def test_run_writes_what_scanpy_reads(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    import anndata

    out = scwarp("run", simulated, "-o", tmp_path / "out.h5ad", *FAST)
    assert re.search(r"^step +seconds +memory +what it did$", out.stdout, re.MULTILINE)
    assert re.search(r"^Leiden +[\d.]+ .* clusters, modularity 0\.\d+$", out.stdout, re.MULTILINE)
    a = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert {"X_pca", "X_umap"} <= set(a.obsm)
    assert {"connectivities", "distances"} <= set(a.obsp)
    assert {"counts"} == set(a.layers)
    assert {"log1p", "hvg", "pca", "neighbors", "umap", "leiden", "rank_genes_groups"} <= set(a.uns)
    assert a.obs["pct_counts_mt"].max() <= 20
    assert (a.layers["counts"].data % 1 == 0).all()
    assert a.var["highly_variable"].sum() == 500
    for cluster in a.obs["leiden"].cat.categories:
        cells = a.obs.loc[(a.obs["leiden"] == cluster) & ~a.obs["is_doublet"], "cluster"]
        if len(cells) < 20:
            continue
        planted = cells.mode()[0]
        names = list(a.uns["rank_genes_groups"]["names"][cluster])
        ranks = sorted(names.index(g) for g in a.var_names[a.var["marker_of"].astype(object) == planted])
        assert ranks[len(ranks) // 2] < 150


@pytest.mark.parametrize("flags", [(), ("--zarr-format", "3", "--compression", "zstd"), ("--shards",)], ids=str)
def test_zarr_output(scwarp: Run, simulated: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    import sys

    import anndata

    sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
    from same_anndata import check_same_in_any_order

    store = tmp_path / "out.zarr"
    scwarp("convert", simulated, tmp_path / "in.zarr")
    for source in (simulated, tmp_path / "in.zarr"):  # the second one replaces the store
        scwarp("run", source, "--force", "-o", store, *FAST, *flags)
        scwarp("run", source, "--force", "-o", tmp_path / "out.h5ad", *FAST)
        check_same_in_any_order(anndata.read_h5ad(tmp_path / "out.h5ad"), anndata.read_zarr(store))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr", "out.h5ad", "out.zarr"]
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr/file").write_text("precious")
    done = scwarp("run", simulated, "-o", tmp_path / "folder.zarr", check=1)
    assert "no Zarr store" in done.stderr
    assert "no known format" in scwarp("run", simulated, "-o", tmp_path / "out.loom", check=2).stderr
    assert scwarp("run", simulated, "-o", tmp_path / "out.h5ad", "--compression", "lz4", check=2)


def test_tenx_output(scwarp: Run, tmp_path: Path) -> None:
    import anndata
    import scanpy

    scwarp("simulate", "-o", tmp_path / "a.h5", "--n-cells", 200, "--n-genes", 300)
    assert "200 x 300" in scwarp("info", tmp_path / "a.h5").stdout
    scwarp("convert", tmp_path / "a.h5", tmp_path / "b.h5ad")
    scwarp("convert", tmp_path / "b.h5ad", tmp_path / "c.h5")
    a, b, c = (
        scanpy.read_10x_h5(tmp_path / "a.h5"),
        anndata.read_h5ad(tmp_path / "b.h5ad"),
        scanpy.read_10x_h5(tmp_path / "c.h5"),
    )
    assert (a.X != b.X).nnz == (a.X != c.X).nnz == 0 and a.X.nnz > 0
    assert list(a.var_names) == list(c.var_names) and list(a.obs_names) == list(c.obs_names)
    done = scwarp("run", tmp_path / "a.h5", "-o", tmp_path / "out.h5", check=2)
    assert "10x HDF5 has no place for results" in done.stderr


def test_same_output_for_any_number_of_threads(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    outputs = []
    for threads in (1, 2, 3, 2):
        scwarp("run", simulated, "-f", "-o", tmp_path / "out.h5ad", "--threads", threads, "-r", "0.5,1.0", *FAST)
        outputs.append((tmp_path / "out.h5ad").read_bytes())
    assert all(o == outputs[0] for o in outputs)


def test_options_change_the_result(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    import anndata

    flags = ("--scaling", "explicit", "--regress-out", "total_counts", "--flavor", "seurat_v3", "--no-keep-counts")
    flags += ("--no-umap", "-r", "0.3,1.5", "--markers", "t-test", "--n-marker-genes", 50, "--no-pts")
    scwarp("run", simulated, "-o", tmp_path / "out.h5ad", *FAST, *flags)
    a = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert a.n_vars == 500 and a.raw is not None and a.raw.n_vars > 1000
    assert abs(a.X.mean(axis=0)).max() < 0.05 and abs(a.X).max() <= 10
    assert not a.layers and "X_umap" not in a.obsm
    assert {"leiden_0.3", "leiden_1.5"} <= set(a.obs)
    assert a.obs["leiden_0.3"].nunique() < a.obs["leiden_1.5"].nunique()
    assert "variances_norm" in a.var and a.uns["hvg"]["flavor"] == "seurat_v3"
    markers = a.uns["rank_genes_groups"]
    assert len(markers["names"]) == 50 and markers["params"]["method"] == "t-test" and "pts" not in markers


def test_outputs_are_not_overwritten(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    cells, result, page = tmp_path / "cells.h5ad", tmp_path / "result.h5ad", tmp_path / "page.html"
    cells.write_bytes(simulated.read_bytes())
    (tmp_path / "soft.h5ad").symlink_to("cells.h5ad")
    (tmp_path / "hard.h5ad").hardlink_to(cells)
    (tmp_path / "sub").mkdir()
    for same in ("cells.h5ad", "soft.h5ad", "hard.h5ad", "sub/../cells.h5ad"):  # not even with --force
        for flags in ((), ("--force",), ("--force", "-o", result, "--report", tmp_path / same)):
            out = () if "-o" in flags else ("-o", tmp_path / same)
            assert "the input itself" in scwarp("run", cells, *out, *flags, check=2).stderr
    assert "one file" in scwarp("run", cells, "-o", result, "--report", result, check=2).stderr
    assert cells.read_bytes() == simulated.read_bytes() and not result.exists()
    fast = ("--umap-epochs", 5, "--n-top-genes", 100, "--markers", "none", "--no-umap")
    page.write_text("old page")
    assert "page.html' is there" in scwarp("run", cells, "-o", result, "--report", page, *fast, check=2).stderr
    result.write_text("old result")
    done = scwarp("run", cells, "-o", result, *fast, check=2)
    assert "result.h5ad' is there already" in done.stderr and "--force" in done.stderr
    assert result.read_text() == "old result" and page.read_text() == "old page"
    scwarp("run", cells, "-o", result, "--report", page, "--force", *fast)
    assert result.stat().st_size > 10_000 and "old page" not in page.read_text()
    size = ("--n-cells", 50, "--n-genes", 60)
    for name in ("s.h5ad", "s.zarr", "s.h5", "s/"):
        scwarp("simulate", "-o", f"{tmp_path}/{name}", *size)
        assert "is there already" in scwarp("simulate", "-o", f"{tmp_path}/{name}", *size, check=2).stderr
        scwarp("simulate", "-f", "-o", f"{tmp_path}/{name}", *size)


def test_config_round_trip(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    flags = ("-r", "0.4,0.8", "--min-genes", "none", "--max-pct-mt", 7.5, "--no-umap", "--seed", 3)
    flags += ("--mt-prefix", "MT-", "--regress-out", "total_counts,pct_counts_mt", "--batch-key", "batch")
    first = scwarp("run", simulated, "-o", tmp_path / "a b.h5ad", *flags, "--write-config").stdout
    options = tomllib.loads(first)["run"]
    assert options["resolution"] == [0.4, 0.8]
    assert options["min-genes"] == "none" and options["max-pct-mt"] == 7.5
    assert options["umap"] is False and options["seed"] == 3
    assert options["output"] == str(tmp_path / "a b.h5ad")
    (tmp_path / "c.toml").write_text(first)
    assert scwarp("run", "--config", tmp_path / "c.toml", "--write-config").stdout == first
    changed = scwarp("run", "--config", tmp_path / "c.toml", "--seed", 9, "--write-config").stdout
    assert tomllib.loads(changed)["run"] == options | {"seed": 9}
    default = scwarp("run", "--write-config").stdout
    (tmp_path / "d.toml").write_text(default)
    assert scwarp("run", "--config", tmp_path / "d.toml", "--write-config").stdout == default


def test_plan_runs_nothing(scwarp: Run, simulated: Path) -> None:
    out = scwarp("run", simulated, "--plan").stdout
    for step in ("read", "QC", "PCA", "neighbours", "UMAP", "Leiden", "markers", "largest"):
        assert re.search(rf"^{step} .*\d [kMG]B$", out, re.MULTILINE), step
    events = [json.loads(line) for line in scwarp("run", simulated, "--plan", "--json").stdout.splitlines()]
    assert all(e["peak_bytes"] >= e["held_bytes"] for e in events if e["event"] == "plan")


def test_plan_is_an_upper_bound(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    plan = [json.loads(line) for line in scwarp("run", simulated, "--plan", "--json").stdout.splitlines()]
    planned = {e["step"]: e["peak_bytes"] for e in plan if e["event"] == "plan"}
    lines = scwarp("run", simulated, "-o", tmp_path / "o.h5ad", "--json", "--umap-epochs", 10).stdout.splitlines()
    used = {e["step"]: e["peak_bytes"] for e in map(json.loads, lines) if e["event"] == "done"}
    for step, estimate in planned.items():
        assert used[step] <= 1.2 * estimate + 4e6, step


def test_json_events(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    out = scwarp("run", simulated, "-o", tmp_path / "out.h5ad", "--json", *FAST)
    events = [json.loads(line) for line in out.stdout.splitlines()]
    done = [e["step"] for e in events if e["event"] == "done"]
    assert done[0] == "read" and done[-1] == "write"
    assert all(e["seconds"] >= 0 and e["summary"] for e in events if e["event"] == "done")
    assert events[-1]["event"] == "result" and events[-1]["output"] == str(tmp_path / "out.h5ad")


def test_quiet(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    out = scwarp("run", simulated, "-o", tmp_path / "out.h5ad", "-q", "--markers", "none", *FAST)
    assert out.stdout == "" and out.stderr == ""


@pytest.mark.parametrize(
    ("code", "args", "text"),
    [
        (2, ["run", "--no-such-option"], "no-such-option"),
        (2, ["run", "IN", "-o", "OUT", "--metric", "nonsense"], "nonsense"),
        (2, ["run", "IN", "-o", "OUT", "--n-neighbors", "1"], "n_neighbors"),
        (2, ["run", "IN", "-o", "OUT", "--batch-key", "nonsense"], "nonsense"),
        (2, ["run", "IN"], "-o"),
        (2, ["run", "IN", "-o", "OUT", "--memory-limit", "many"], "8GB"),
        (2, [], "subcommand"),
        (2, ["foo", "IN"], "no command 'foo' (commands: run, info"),
        (2, ["--foo", "run"], "--foo"),
        (2, ["run", "IN", "-o", "OUT", "--threads", "-1"], "got '-1', expected 0 or more"),
        (3, ["run", "missing.h5ad", "-o", "OUT"], "missing.h5ad"),
        (3, ["run", "TEXT", "-o", "OUT"], "text.h5ad"),
        (3, ["info", "TEXT"], "text.h5ad"),
        (3, ["run", ".", "-o", "OUT"], "neither a Zarr store nor has a matrix.mtx"),
        (3, ["info", "."], "neither a Zarr store nor has a matrix.mtx"),
        (3, ["convert", ".", "OUT"], "neither a Zarr store nor has a matrix.mtx"),
        (4, ["run", "IN", "-o", "OUT", "--memory-limit", "1MB"], "memory"),
        (1, ["run", "IN", "-o", "no/such/folder/out.h5ad"], "folder"),
    ],
)
def test_exit_codes(scwarp: Run, simulated: Path, tmp_path: Path, code: int, args: list[str], text: str) -> None:
    (tmp_path / "text.h5ad").write_text("this is no HDF5 file")
    names = {"IN": simulated, "OUT": tmp_path / "out.h5ad", "TEXT": tmp_path / "text.h5ad"}
    done = scwarp(*[names.get(a, a) for a in args], check=code, cwd=tmp_path)
    assert text in done.stdout + done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["text.h5ad"]


@pytest.mark.parametrize(
    "args",
    [
        ["run", "", "-o", "OUT"],
        ["run", "", "--plan"],
        ["run", "IN", "-o", "", "--report", "r.html"],
        ["run", "IN", "-o", "OUT", "--report", ""],
        ["run", "--config", "empty.toml", "-o", "OUT"],
        ["info", ""],
        ["simulate", "-o", ""],
        ["convert", "", "OUT"],
        ["convert", "IN", ""],
        ["concat", "OUT", "IN", ""],
    ],
)
def test_an_empty_name_is_no_file(scwarp: Run, simulated: Path, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "empty.toml").write_text('[run]\ninput = ""\n')
    names = {"IN": simulated, "OUT": tmp_path / "out.h5ad"}
    done = scwarp(*[names.get(a, a) for a in args], check=2, cwd=tmp_path)
    assert "name of the file is empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["empty.toml"]


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999999", "9223372036854775808", "1.5", "x", ""])
def test_seeds_that_are_none(scwarp: Run, tmp_path: Path, seed: str) -> None:
    done = scwarp("simulate", "-o", tmp_path / "s.h5ad", "--seed", seed, check=2)
    assert "from 0 to 9223372036854775807" in done.stderr
    assert "from 0 to 9223372036854775807" in scwarp("run", "--seed", seed, "--write-config", check=2).stderr
    (tmp_path / "c.toml").write_text(f'[run]\nseed = "{seed}"\n')
    scwarp("run", "--config", tmp_path / "c.toml", "--write-config", check=2)
    assert not (tmp_path / "s.h5ad").exists()


def test_large_seed(scwarp: Run, tmp_path: Path) -> None:
    assert "seed = 9223372036854775807" in scwarp("run", "--seed", 2**63 - 1, "--write-config").stdout


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--groupby", "nonsense"], "nonsense"),
        (["--groupby", "log1p_total_counts"], "obs['log1p_total_counts'] has no groups"),
        (["--groupby", "leiden_0.5"], "leiden_0.5"),
        (["--batch-key", "nonsense"], "nonsense"),
        (["--batch-key", "pct_counts_mt"], "obs['pct_counts_mt'] has no groups"),
        (["--regress-out", "total_counts,nonsense"], "nonsense"),
        (["--regress-out", "total_counts,cluster"], "obs['cluster'] is not numeric"),
        (["--n-pcs", 60], "n_pcs"),
        (["--n-comps", 20, "--n-pcs", 21], "n_pcs"),
        (["--leiden-iterations", 0], "leiden_iterations"),
        (["--metric", "haversine"], "haversine"),
        (["--knn", "nn_descent", "--metric", "canberra"], "nn_descent"),
    ],
)
def test_what_cannot_work_is_said_before_the_steps(
    scwarp: Run, simulated: Path, tmp_path: Path, flags: list[object], text: str
) -> None:
    done = scwarp("run", simulated, "-o", tmp_path / "o.h5ad", "--json", *flags, check=2)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert text in events[-1]["message"]
    assert {e["step"] for e in events if e["event"] == "step"} <= {"read"}


def test_places_that_cannot_be_written_are_said_before_reading(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    def refused(*flags: object) -> str:
        done = scwarp("run", simulated, "--force", "--json", *flags, check=1)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert not any(e["event"] == "step" for e in events)
        return str(events[-1]["message"])

    (tmp_path / "file.zarr").write_text("precious")
    assert "not a folder" in refused("-o", tmp_path / "file.zarr")
    assert (tmp_path / "file.zarr").read_text() == "precious"
    for name in ("pipe.h5ad", "pipe.html"):
        os.mkfifo(tmp_path / name)
        flag = "--report" if name.endswith("html") else "-o"
        assert "not a regular file" in refused(flag, tmp_path / name)
        assert (tmp_path / name).is_fifo()
    for name in (300 * "x" + ".h5ad", 300 * "x" + ".zarr"):
        assert "File name too long" in refused("-o", tmp_path / name)
    long = tmp_path / (245 * "x" + ".h5ad")
    long.write_text("old")
    assert "File name too long" in refused("-o", long)  # nothing can stand beside it for a moment
    (tmp_path / "folder.html").mkdir()
    assert "folder" in refused("--report", tmp_path / "folder.html")
    if os.geteuid() != 0:  # root may write everywhere
        long.chmod(0o444)
        (tmp_path / "read-only.h5ad").touch(0o444)
        assert "denied" in refused("-o", tmp_path / "read-only.h5ad")


@pytest.mark.parametrize(
    "args", [["--version"], ["run", "--help"], ["run", "--write-config"], ["info", "IN"], ["run", "IN", "--plan"]]
)
def test_standard_output_that_is_closed(program: Path, simulated: Path, args: list[str]) -> None:
    args = [str(simulated) if a == "IN" else a for a in args]
    done = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', program, *args], capture_output=True, text=True)
    assert done.returncode == 1
    assert "standard output cannot be written" in done.stderr


def test_closed_streams_are_not_taken_for_files(program: Path, simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.h5ad"
    command = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', program, "convert", simulated, out]
    assert subprocess.run(command).returncode == 1  # the line about it could not be printed
    command[-2:] = [out, tmp_path / "o.zarr", "-q"]
    assert subprocess.run(command).returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5ad", "o.zarr"]


def test_options_that_do_nothing_are_said(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    done = scwarp("convert", simulated, tmp_path / "a.h5ad", "--genome", "GRCh38", "--rows", "genes")
    assert re.search("warning: .*h5ad file.*genome", done.stderr) and re.search("warning: .*rows", done.stderr)
    (tmp_path / "t.csv").write_text("name,a,b\nx,1,2\ny,3,4\n")
    done = scwarp("convert", tmp_path / "t.csv", tmp_path / "b.h5ad", "--rows", "genes")
    assert done.stderr == ""


def test_memory_limit_of_convert(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    """It is of what is held; the help says that chunks are not."""
    import anndata

    anndata.read_h5ad(simulated)[:200].to_df().to_csv(tmp_path / "t.csv")
    done = scwarp("convert", tmp_path / "t.csv", tmp_path / "t.h5ad", "--memory-limit", "100kB", check=4)
    assert "memory limit" in done.stderr
    scwarp("convert", simulated, tmp_path / "a.zarr", "--memory-limit", "100kB")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "t.csv"]
    for command in ("convert", "concat"):
        assert "is not counted" in re.sub(r"\s+", " ", scwarp(command, "--help").stdout)


def test_pipes_hold_tables_only(program: Path, simulated: Path, tmp_path: Path) -> None:
    command = f"cat '{simulated}' | '{program}' convert /dev/stdin '{tmp_path}/a.h5ad'"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 3 and "HDF5" in done.stderr and "pipe" in done.stderr
    (tmp_path / "t.csv").write_text("name,a,b\nx,1,2\ny,3,4\n")
    command = f"cat '{tmp_path}/t.csv' | '{program}' convert /dev/stdin '{tmp_path}/a.h5ad'"
    assert subprocess.run(command, shell=True).returncode == 0


def test_device_that_is_not_there(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    if json.loads(scwarp("doctor", "--json").stdout)["facts"]["CUDA"].startswith("usable"):
        pytest.skip("there is a CUDA device")
    done = scwarp("run", simulated, "-o", tmp_path / "o.h5ad", "--device", "cuda", check=5)
    assert "cuda" in done.stderr.lower() and not (tmp_path / "o.h5ad").exists()


def test_truncated_input_names_the_file(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(simulated.read_bytes()[: simulated.stat().st_size // 2])
    done = scwarp("run", cut, "-o", tmp_path / "o.h5ad", check=3)
    assert "cut.h5ad" in done.stderr


@pytest.mark.parametrize(("name", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("step", "ending"), [(s, "h5ad") for s in (*STEPS, "write")] + [("PCA", "zarr"), ("write", "zarr")]
)
def test_signals_stop_cleanly(
    program: Path, simulated: Path, tmp_path: Path, name: int, code: int, step: str, ending: str
) -> None:
    old = tmp_path / f"old.{ending}"
    if ending == "h5ad":
        old.write_text("old")
    else:
        old.mkdir()
        (old / ".zgroup").write_text("old")
    process = subprocess.Popen(
        [program, "run", simulated, "--force", "-o", old, "--report", tmp_path / "r.html", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "step" and event["step"] == step:
            break
    start = time.monotonic()
    process.send_signal(name)
    process.stdout.read()
    stopped = process.wait(timeout=20)
    seconds = time.monotonic() - start
    if stopped == 0:  # the last step was over before the signal came
        assert step == "write"
        return
    assert stopped == code
    assert seconds < 1.5
    assert [p.name for p in tmp_path.iterdir()] == [old.name]
    if step != "write":
        assert (old if ending == "h5ad" else old / ".zgroup").read_text() == "old"


def test_info(scwarp: Run, simulated: Path) -> None:
    text = scwarp("info", simulated).stdout
    assert re.search(r"^/X +csr +800 x 2 000 +float32 .* values \(\d+\.\d+ %\)$", text, re.MULTILINE)
    data = json.loads(scwarp("info", simulated, "--json").stdout)
    by_path = {e["path"]: e for e in data["elements"]}
    assert by_path["/X"]["shape"] == [800, 2000] and by_path["/X"]["nnz"] > 0
    assert by_path["/obs/cluster"]["n_categories"] == 4


def test_info_of_a_10x_folder(scwarp: Run, tmp_path: Path) -> None:
    import gzip

    scwarp("simulate", "-o", f"{tmp_path}/mtx/", "--n-cells", 50, "--n-genes", 60)
    matrix = tmp_path / "mtx/matrix.mtx.gz"
    assert re.search(r"^X +10x counts +50 x 60 +integer ", scwarp("info", tmp_path / "mtx").stdout, re.MULTILINE)
    (element,) = json.loads(scwarp("info", tmp_path / "mtx", "--json").stdout)["elements"]
    assert element["stored_bytes"] == matrix.stat().st_size and element["nnz"] > 500
    header = gzip.decompress(matrix.read_bytes()).split(b"\n")[:4]
    matrix.write_bytes(gzip.compress(b"\n".join(header) + b"\nno numbers\n"))  # its values are not read
    assert "50 x 60" in scwarp("info", tmp_path / "mtx").stdout


def test_info_and_run_on_a_table(scwarp: Run, simulated: Path, tmp_path: Path) -> None:
    import anndata

    table = tmp_path / "counts.csv"
    anndata.read_h5ad(simulated)[:150].to_df().to_csv(table)
    assert re.search(r"150 x 2 000 ", scwarp("info", table).stdout)
    out = scwarp("run", table, "-o", tmp_path / "o.h5ad", *FAST).stdout
    assert "150 cells x 2 000 genes" in out


@pytest.mark.parametrize("n_cells", [0, 1, 2, 3, 7])
def test_few_cells(scwarp: Run, simulated: Path, tmp_path: Path, n_cells: int) -> None:
    """A result, or an error that says what is wrong: never a crash."""
    import anndata

    anndata.read_h5ad(simulated)[:n_cells].copy().write_h5ad(tmp_path / "few.h5ad")
    flags = ("--report", tmp_path / "few.html", "--min-genes", "none", "--min-cells", 1, "--max-pct-mt", "none")
    done = scwarp("run", tmp_path / "few.h5ad", "-o", tmp_path / "o.h5ad", *flags, check=None)
    assert done.returncode in (0, 2, 3), done.stderr
    assert (tmp_path / "o.h5ad").exists() == (done.returncode == 0)
    if done.returncode != 0:
        assert re.search(r"scwarp: .+: .+", done.stderr)
    assert n_cells > 1 or done.returncode == 3
    assert n_cells > 0 or "empty" in done.stderr


def test_doctor(scwarp: Run) -> None:
    data = json.loads(scwarp("doctor", "--json").stdout)
    assert data["facts"]["scwarp"] and all(c["ok"] for c in data["checks"])
    assert any(o["name"] == "tl.leiden" and o["cpu"] for o in data["operations"])


def test_simulate_equals_python(scwarp: Run, simulated: Path) -> None:
    import anndata

    scw = pytest.importorskip("scwarp")
    a = anndata.read_h5ad(simulated)
    b = scw.datasets.simulate(800, 2000, n_clusters=4, mean_counts=1500)
    assert (a.X != b.X).nnz == 0
    assert a.obs.equals(b.obs) and a.var.equals(b.var)


def test_run_without_input_uses_simulated_data(scwarp: Run, tmp_path: Path) -> None:
    config = "[run]\nn-top-genes = 300\numap-epochs = 10\n[simulate]\nn-cells = 300\nn-genes = 1000\n"
    (tmp_path / "c.toml").write_text(config)
    out = scwarp("run", "-o", tmp_path / "o.h5ad", "--config", tmp_path / "c.toml").stdout
    assert "300 cells x 1 000 genes" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(scwarp: Run, shell: str) -> None:
    script = scwarp("completion", shell).stdout
    for word in ("run", "doctor", "n-top-genes", "cell_ranger", "completion"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        probe = script + '\nCOMP_WORDS=(scwarp run --flavor se); COMP_CWORD=3; _scwarp; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["seurat", "seurat_v3", "seurat_v3_paper"]
