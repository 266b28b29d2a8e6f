"""The package as a whole: import, settings, errors, interruption."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
import time

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import scwarp as scw

SEEDED = (scw.pp.pca, scw.pp.neighbors, scw.tl.leiden, scw.tl.umap, scw.tl.score_genes)


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_is_light():
    heavy = run_python(
        "import sys, scwarp\n"
        "print([m for m in ('pandas', 'scipy.sparse', 'anndata', 'cupy', 'dask') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_the_job_imports_nothing_beyond_anndata():
    """A fresh process pays for numpy, scipy and anndata, once."""
    more = run_python(
        "import sys, anndata, scwarp as scw\n"
        "a = scw.datasets.simulate(300, 200, seed=1)\n"
        "before = set(sys.modules)\n"
        "scw.settings.device = 'cpu'\n"
        "scw.pp.calculate_qc_metrics(a, inplace=True, percent_top=None)\n"
        "scw.pp.filter_cells(a, min_genes=1)\n"
        "scw.pp.normalize_total(a)\n"
        "scw.pp.log1p(a)\n"
        "scw.pp.highly_variable_genes(a, n_top_genes=50)\n"
        "scw.pp.scale(a)\n"
        "scw.pp.pca(a, n_comps=10)\n"
        "scw.pp.neighbors(a)\n"
        "scw.tl.umap(a)\n"
        "scw.tl.leiden(a)\n"
        "scw.tl.rank_genes_groups(a, 'batch')\n"
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('encodings')))"
    )
    assert more == "[]"


def test_import_takes_less_than_half_a_second():
    code = "import time; t = time.perf_counter(); import scwarp; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.5


def test_settings_check_their_values():
    with pytest.raises(ValueError, match="unknown device"):
        scw.settings.device = "tpu"
    with pytest.raises(ValueError, match="n_threads"):
        scw.settings.n_threads = -2
    with pytest.raises(ValueError, match="memory size"):
        scw.settings.memory_limit = "lots"
    with pytest.raises(ValueError, match="verbosity"):
        scw.settings.verbosity = 7
    with pytest.raises(ValueError, match="verbosity"):
        scw.settings.verbosity = "loud"
    with pytest.raises(AttributeError, match=r"no 'n_jobs' \(it has: device, n_threads"):
        scw.settings.n_jobs = 2
    with scw.settings.override(verbosity=3, N_PCS=30):
        assert (scw.settings.verbosity, scw.settings.N_PCS) == (2, 30)
    with scw.settings.override(verbosity="info"):
        assert scw.settings.verbosity == 1
    assert (scw.settings.verbosity, scw.settings.N_PCS) == (0, 50)
    before = scw.settings.device
    with scw.settings.override(n_threads=1, device="auto") as s:
        assert s.n_threads == 1
    assert scw.settings.n_threads == 0
    assert scw.settings.device == before
    assert run_python("import scwarp; print(scwarp.settings.device)") == "auto"


def test_seed_of_the_settings():
    """Counts where no seed is given, and is written down; a 0 that is given stays 0."""
    a = scw.datasets.simulate(300, 200, seed=1)
    a.obsm["X"] = a.X[:, :20].toarray()
    genes = list(a.var_names[:5])

    def results(**kwargs):
        b = a.copy()
        scw.pp.neighbors(b, use_rep="X", algorithm="nn_descent", **kwargs)
        scw.tl.leiden(b, 3, **kwargs)
        scw.tl.umap(b, maxiter=5, **kwargs)
        scw.tl.score_genes(b, genes, ctrl_size=3, **kwargs)
        told = [b.uns["neighbors"]["params"], b.uns["leiden"]["params"], b.uns["umap"]["params"]]
        return [p.get("random_state") for p in told], b

    def same(x, y):
        return [np.array_equal(x.obsm["X_umap"], y.obsm["X_umap"]), x.obs["score"].equals(y.obs["score"])]

    told0, zero = results()
    told7, seven = results(random_state=7)
    assert told0 == [0, 0, None] and told7 == [7, 7, 7]
    assert same(zero, seven) == [False, False]
    with scw.settings.override(seed=7):
        told, b = results()
        assert told == [7, 7, 7] and same(b, seven) == [True, True]
        told, b = results(random_state=0)
        assert told == [0, 0, None] and same(b, zero) == [True, True]
    with scw.settings.override(seed=2**40):
        results()
    for state in (None, np.random.RandomState(3), np.random.default_rng(3)):  # the seed that was drawn
        b = scw.tl.umap(zero, maxiter=5, random_state=state, copy=True)
        drawn = b.uns["umap"]["params"]["random_state"]
        assert type(drawn) is int and drawn > 0
        c = scw.tl.umap(zero, maxiter=5, random_state=drawn, copy=True)
        np.testing.assert_array_equal(b.obsm["X_umap"], c.obsm["X_umap"])
    shown = {f: str(inspect.signature(f).parameters["random_state"].default) for f in SEEDED}
    assert set(shown.values()) == {"0"}


def test_no_fraction_is_cut_off():
    a = scw.datasets.simulate(200, 60, seed=1)
    scw.pp.pca(a, np.int64(5))
    scw.pp.neighbors(a, np.int32(5), random_state=np.uint8(3))
    before = set(a.uns)
    for f, name, value in (
        (scw.pp.pca, "n_comps", 5.5),
        (scw.pp.neighbors, "n_neighbors", 5.5),
        (scw.pp.neighbors, "random_state", 1.5),
        (scw.tl.leiden, "random_state", 1.5),
        (scw.tl.leiden, "n_iterations", 2.5),
        (scw.tl.leiden, "n_starts", "x"),
        (scw.tl.umap, "n_components", 2.5),
        (scw.tl.umap, "random_state", "x"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be an integer .got '?{value}"):
            f(a, **{name: value})
    with pytest.raises(TypeError, match="n_genes must be an integer"):
        scw.tl.rank_genes_groups(a, "batch", n_genes=2.5)
    assert set(a.uns) == before


def test_memory_limit_is_an_error_that_names_the_holders():
    x = sp.random(2000, 500, 0.2, format="csr", dtype=np.float32, random_state=0)
    a = ad.AnnData(x.copy())
    with scw.settings.override(memory_limit=1000), pytest.raises(MemoryError, match=r"asked for .* bytes \(limit 1000"):
        scw.pp.calculate_qc_metrics(a, percent_top=None)
    assert (x != a.X).nnz == 0
    scw.pp.calculate_qc_metrics(a, percent_top=None)


def test_cuda_without_a_device_is_an_error(counts):
    if not scw._core.unavailable_reason("cuda"):
        pytest.skip("this machine has a CUDA device")
    for call in (
        lambda: scw.pp.log1p(counts, device="cuda"),
        lambda: scw.memory.configure(limit="1GB"),
        lambda: scw.memory.info(),
    ):
        with pytest.raises(scw.BackendUnavailable, match=r"cannot be used: .+"):
            call()
    with pytest.raises(scw.BackendUnavailable, match=r"no usable CUDA device: .+"):
        scw.get.anndata_to_GPU(counts)
    assert issubclass(scw.BackendUnavailable, RuntimeError)
    with scw.settings.override(device="cuda"):
        with pytest.raises(scw.BackendUnavailable):
            scw.pp.normalize_total(counts)
        scw.datasets.simulate(100, 60)  # functions without kernels run on the host
    with scw.settings.override(device="auto"):
        scw.pp.log1p(counts)  # the CPU, where there is nothing else


def test_host_data_pass_through_to_the_host(counts):
    x = counts.X
    scw.get.anndata_to_CPU(counts, convert_all=True)
    assert counts.X is x and scw.get.X_to_CPU(x) is x
    with pytest.warns(Warning, match="layer of text is a"):
        assert scw.get.X_to_GPU("x", warning="layer of text") == "x"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pool": "1GB", "managed": True}, "pool and managed exclude each other"),
        ({"allocator": "mine"}, "allocator must be"),
        ({"allocator": "rmm", "pool": "1GB"}, "are for allocator='driver'"),
        ({"limit": "much"}, "memory size"),
    ],
)
def test_memory_options_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=text):
        scw.memory.configure(**options)


def test_memory_of_the_host_and_estimates(counts):
    info = scw.memory.info("cpu")
    assert info["used"] >= 0 and info["peak"] >= info["used"] and isinstance(info["by_tag"], dict)
    scw.memory.free("cpu")
    plan = scw.memory.estimate(counts)
    assert next(iter(plan)) == "read" and all(p >= counts.X.data.nbytes for p in plan.values())


@pytest.mark.parametrize("bad", [[[1, 2]], "text", 3])
def test_other_containers_say_how_to_convert(bad):
    with pytest.raises(TypeError, match="convert it with"):
        scw.pp.log1p(bad)


def test_coo_says_how_to_convert(counts):
    with pytest.raises(TypeError, match="tocsr"):
        scw.pp.log1p(counts.X.tocoo())


def test_unsorted_and_duplicate_indices_are_summed_in_a_copy():
    x = sp.csr_matrix((np.array([1, 2, 3], np.float32), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 2))
    assert not x.has_canonical_format
    _, number = scw.pp.filter_genes(x, min_counts=1)
    np.testing.assert_array_equal(number, [2, 4])
    assert x.nnz == 3


def test_interrupt_stops_within_200_ms():
    x = np.random.default_rng(0).random((6000, 4000), dtype=np.float32)
    a = ad.AnnData(x)
    seen = {}

    def interrupt():
        time.sleep(0.3)
        seen["sent"] = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), scw.settings.override(n_threads=1):
        thread.start()
        while True:
            scw.pp.calculate_qc_metrics(a, percent_top=(50, 100, 200, 500))
    elapsed = time.perf_counter() - seen["sent"]
    thread.join()
    assert elapsed < 0.2
    scw.pp.calculate_qc_metrics(a[:10].copy(), percent_top=None)  # works again
