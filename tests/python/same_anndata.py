"""Equality of AnnData, key by key, dtype by dtype; and a way through the C++ reader and writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scwarp import _core
from scwarp._context import make_context


def copy(source: Path, target: Path, **kwargs: Any) -> None:
    _core.io.copy_h5ad(make_context(op="test"), str(source), str(target), **kwargs)


def check_same(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, obj=path)
    elif sp.issparse(a):
        assert a.format == b.format and a.dtype == b.dtype and a.shape == b.shape, path
        np.testing.assert_array_equal(a.toarray(), b.toarray(), err_msg=path)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape, (path, a.dtype, b.dtype, a.shape, b.shape)
        if a.dtype.names:
            for name in a.dtype.names:
                np.testing.assert_array_equal(a[name], b[name], err_msg=path)
        else:
            np.testing.assert_array_equal(a, b, err_msg=path)
    elif isinstance(a, (pd.Categorical, pd.api.extensions.ExtensionArray)):
        pd.testing.assert_extension_array_equal(a, b)
    elif hasattr(a, "keys"):
        assert list(a.keys()) == list(b.keys()), path
        for k in a:
            check_same(a[k], b[k], f"{path}/{k}")
    else:
        assert type(a) is type(b), (path, type(a), type(b))
        assert a == b or (a != a and b != b), (path, a, b)


def check_same_adata(a: ad.AnnData, b: ad.AnnData) -> None:
    assert a.shape == b.shape
    check_same(a.obs, b.obs, "obs")
    check_same(a.var, b.var, "var")
    assert (a.X is None) == (b.X is None)
    if a.X is not None:
        check_same(a.X, b.X, "X")
    for slot in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
        check_same(dict(getattr(a, slot)), dict(getattr(b, slot)), slot)
    assert (a.raw is None) == (b.raw is None)
    if a.raw is not None:
        check_same(a.raw.X, b.raw.X, "raw/X")
        check_same(a.raw.var, b.raw.var, "raw/var")
        check_same(dict(a.raw.varm), dict(b.raw.varm), "raw/varm")


def sort(tree: Any) -> Any:
    """Folders have no order, and zarr-python reads texts as another type than h5py."""
    if isinstance(tree, dict):
        return {k: sort(tree[k]) for k in sorted(tree)}
    if isinstance(tree, np.ndarray) and tree.dtype.kind == "T":
        return tree.astype(object)
    return tree


def ordered(a: ad.AnnData) -> ad.AnnData:
    a.uns = sort(dict(a.uns))
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        elements = getattr(a, slot)
        items = dict(elements)
        for k in items:
            del elements[k]
        for k in sorted(items):
            elements[k] = items[k]
    return a


def check_same_in_any_order(a: ad.AnnData, b: ad.AnnData) -> None:
    check_same_adata(ordered(a), ordered(b))
