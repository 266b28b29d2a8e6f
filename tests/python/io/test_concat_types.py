"""concat_on_disk beside anndata.concat where types meet: fill values, columns of several kinds, names, uns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scwarp as scw

pytestmark = pytest.mark.filterwarnings("ignore")


def concat(folder: Path, parts: Sequence[ad.AnnData], **options: Any) -> ad.AnnData:
    files = []
    for k, a in enumerate(parts):
        files.append(folder / f"{k}.h5ad")
        a.write_h5ad(files[-1])
    scw.io.concat_on_disk(files, folder / "out.h5ad", overwrite=True, **options)
    return ad.read_h5ad(folder / "out.h5ad")


def dense(dtype: Any, genes: Sequence[str]) -> ad.AnnData:
    return ad.AnnData(np.ones((2, len(genes)), dtype), var=pd.DataFrame(index=list(genes)))


NUMBERS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("fill", [None, 0, 2, -1, 200, 300, -200, 70000, 2.5, 0.1, 1e300, np.inf])
@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
def test_fill_value_is_never_cut(tmp_path: Path, dtype: str, fill: Any) -> None:
    parts = [dense(dtype, "xy"), dense(dtype, "yz")]
    parts[0].layers["only one"] = parts[0].X.copy()
    expected = ad.concat(parts, join="outer", fill_value=fill)
    got = concat(tmp_path, parts, join="outer", fill_value=fill)
    for e, g in ((expected.X, got.X), (expected.layers["only one"], got.layers["only one"])):
        if e.dtype == object:  # anndata cannot write those
            e = e.astype(g.dtype if g.dtype != bool else int)
        elif dtype != "bool":
            assert e.dtype == g.dtype
        # anndata rounds to float32 before it widens, scwarp fills with the number given
        np.testing.assert_allclose(g, e, rtol=1e-7 if dtype == "float32" else 0)


@pytest.mark.parametrize("other", NUMBERS)
@pytest.mark.parametrize("dtype", NUMBERS)
def test_fill_value_widens_only_where_it_is_put(tmp_path: Path, dtype: str, other: str) -> None:
    for fill in (-1, 300):
        parts = [dense(dtype, "x"), dense(other, "xy")]
        expected = ad.concat(parts, join="outer", fill_value=fill).X
        got = concat(tmp_path, parts, join="outer", fill_value=fill).X
        if expected.dtype != object:
            assert expected.dtype == got.dtype
        np.testing.assert_array_equal(expected.astype(float), got)
