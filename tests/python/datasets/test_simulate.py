from __future__ import annotations

import numpy as np
import pytest

import scwarp as scw


def test_planted_structure_is_there():
    a = scw.datasets.simulate(800, 1000, n_clusters=4, n_batches=2, seed=1)
    assert a.shape == (800, 1000)
    assert a.obs["cluster"].nunique() == 4 and a.obs["batch"].nunique() == 2
    assert (a.X.data == np.round(a.X.data)).all() and a.X.data.min() >= 1
    total = np.asarray(a.X.sum(1)).ravel()
    mito = np.asarray(a.X[:, a.var_names.str.startswith("MT-")].sum(1)).ravel() / total
    damaged = a.obs["is_damaged"].to_numpy()
    assert mito[damaged].mean() > 2 * mito[~damaged].mean()
    intact = ~damaged & ~a.obs["is_doublet"].to_numpy()
    for k in a.obs["cluster"].cat.categories:
        inside = (a.obs["cluster"] == k).to_numpy() & intact
        x = a.X[:, (a.var["marker_of"] == k).to_numpy()].sum(1).A1 / total
        assert x[inside].mean() > 1.3 * x[intact & ~inside].mean()


def test_same_numbers_for_any_number_of_threads():
    results = []
    for threads in (1, 2, 3):
        with scw.settings.override(n_threads=threads):
            results.append(scw.datasets.simulate(300, 200, seed=5))
    for r in results[1:]:
        assert (r.X != results[0].X).nnz == 0
    assert (scw.datasets.simulate(300, 200, seed=6).X != results[0].X).nnz > 0


def test_errors():
    with pytest.raises(ValueError, match=r"datasets\.simulate"):
        scw.datasets.simulate(10, 10)
    with pytest.raises(ValueError, match="doublet_rate"):
        scw.datasets.simulate(10, 100, doublet_rate=2)
    for kwargs in ({"n_cells": 50.0}, {"n_genes": 1e4}, {"n_clusters": 2.0}, {"n_batches": None}, {"seed": None}):
        with pytest.raises(TypeError, match=f"{next(iter(kwargs))} must be an integer"):
            scw.datasets.simulate(**kwargs)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed must be from 0"):
            scw.datasets.simulate(60, 90, seed=seed)
    assert scw.datasets.simulate(np.int32(60), np.int64(90), seed=np.int64(3)).shape == (60, 90)
