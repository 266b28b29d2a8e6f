"""The main job as a Python script, and a comparison of two h5ad files down to the last bit and attribute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def python_pipeline(path: Path, output: Path, options: dict[str, Any], write: Any = None) -> None:
    """What ``scwarp run`` does, written with the Python package. ``options`` are flags of the program."""
    import scwarp as scw

    def get(name: str, default: Any) -> Any:
        return options.get(name, default)

    a = scw.io.read_h5ad(path)
    seed = get("seed", 0)
    prefixes = tuple(get("mt_prefix", ["MT-", "mt-"]))
    a.var["mt"] = a.var_names.str.startswith(prefixes)
    top = [n for n in (50, 100, 200, 500) if n <= a.n_vars]
    scw.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=top, inplace=True)
    scw.pp.filter_cells(a, min_genes=get("min_genes", 200))
    a = a[a.obs["pct_counts_mt"] <= get("max_pct_mt", 20)].copy()
    scw.pp.filter_genes(a, min_cells=get("min_cells", 3))

    flavor = get("flavor", "seurat")
    variable = {"n_top_genes": get("n_top_genes", 2000), "flavor": flavor, "batch_key": get("batch_key", None)}
    if flavor.startswith("seurat_v3"):
        scw.pp.highly_variable_genes(a, **variable)
    if get("keep_counts", True):
        a.layers["counts"] = a.X.copy()
    scw.pp.normalize_total(a, target_sum=get("target_sum", None))
    scw.pp.log1p(a)
    if not flavor.startswith("seurat_v3"):
        scw.pp.highly_variable_genes(a, **variable)

    scaling, regress = get("scaling", "implicit"), get("regress_out", [])
    max_value = get("max_value", 10)
    if scaling == "explicit":
        a.raw = a
        a = a[:, a.var["highly_variable"]].copy()
    if regress:
        scw.pp.regress_out(a, regress, lazy=scaling != "explicit")
    if scaling == "explicit":
        scw.pp.scale(a, max_value=max_value)
    implicit = scaling == "implicit"
    n_comps = get("n_comps", 50)
    scw.pp.pca(a, n_comps=n_comps, scale=implicit, max_value=max_value if implicit else None, random_state=seed)
    scw.pp.neighbors(
        a,
        n_neighbors=get("n_neighbors", 15),
        n_pcs=get("n_pcs", None),
        metric=get("metric", "euclidean"),
        method=get("connectivities", "umap"),
        algorithm=get("knn", "auto"),
        random_state=seed,
    )
    scw.tl.umap(a, maxiter=get("umap_epochs", None), init_pos=get("umap_init", "spectral"), random_state=seed)
    resolution = get("resolution", [1.0])
    one = len(resolution) == 1
    scw.tl.leiden(a, resolution=resolution[0] if one else resolution, random_state=seed)
    groups = "leiden" if one else f"leiden_{min(resolution, key=lambda r: abs(r - 1))}"
    scw.tl.rank_genes_groups(
        a,
        get("groupby", groups),
        method=get("markers", "wilcoxon"),
        tie_correct=get("tie_correct", False),
        pts=get("pts", True),
        n_genes=get("n_marker_genes", None),
        skip_empty_groups=True,
    )
    (write or scw.io.write_h5ad)(a, output)


def flags(options: dict[str, Any]) -> list[str]:
    """``options`` on the command line."""
    out = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            out.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            out += [f"--{flag}", ",".join(map(str, value))]
        else:
            out += [f"--{flag}", "none" if value is None else str(value)]
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [_plain(v) for v in value.ravel().tolist()]
    return value


def _type(dtype: np.dtype) -> str:
    """Names and numbers; that a text has a fixed or variable length is not content."""
    if dtype.names:
        return str([(name, _type(dtype[name])) for name in dtype.names])
    if h5py.check_enum_dtype(dtype):
        return "bool"
    return "text" if dtype.kind in "OS" else dtype.str


def _equal(x: Any, y: Any) -> bool:
    x, y = _plain(x), _plain(y)
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        if x.dtype.names:
            return all(_equal(x[name], y[name]) for name in x.dtype.names)
        return bool(x.shape == y.shape and x.tobytes() == y.tobytes())
    if isinstance(x, (float, np.floating)) and isinstance(y, (float, np.floating)):
        return np.asarray(x, np.float64).tobytes() == np.asarray(y, np.float64).tobytes()
    return bool(np.all(x == y))


def elements(path: Path) -> Iterator[tuple[str, Any]]:
    """(path, attributes) of every group, (path, (attributes, type, shape, values)) of every data set."""
    with h5py.File(path, "r") as f:
        found: list[tuple[str, Any]] = []

        def add(name: str, node: h5py.Group | h5py.Dataset) -> None:
            attributes = {k: _plain(v) for k, v in node.attrs.items()}
            if isinstance(node, h5py.Dataset):
                found.append((name, (attributes, _type(node.dtype), node.shape, node[()])))
            else:
                found.append((name, (attributes, "group", (), None)))

        f.visititems(add)
        yield from found


def differences(left: Path, right: Path) -> list[str]:
    """What differs between two h5ad files: elements, attributes (encodings, column order), types, shapes, bits."""
    a, b = dict(elements(left)), dict(elements(right))
    out = [f"only in {left.name}: {k}" for k in sorted(a.keys() - b.keys())]
    out += [f"only in {right.name}: {k}" for k in sorted(b.keys() - a.keys())]
    for name in sorted(a.keys() & b.keys()):
        (attrs_a, type_a, shape_a, x), (attrs_b, type_b, shape_b, y) = a[name], b[name]
        for key in sorted(attrs_a.keys() | attrs_b.keys()):
            v, w = attrs_a.get(key), attrs_b.get(key)
            if v is None or w is None or not _equal(v, w):
                out.append(f"{name}: attribute {key}: {v!r} | {w!r}")
        if (type_a, shape_a) != (type_b, shape_b):
            out.append(f"{name}: {type_a} {shape_a} | {type_b} {shape_b}")
        elif x is not None and not _equal(x, y):
            detail = ""
            if isinstance(x, np.ndarray) and x.dtype.kind in "fiu":
                apart = x != y
                detail = f": {int(apart.sum())} of {x.size}, by up to {np.abs(x - y).max()}"
            out.append(f"{name}: values differ{detail}")
    return out


def contents_digest(path: Path) -> str:
    """SHA-256 over names, attributes, types, shapes and values."""
    import hashlib

    h = hashlib.sha256()

    def feed(value: Any) -> None:
        value = _plain(value)
        if isinstance(value, np.ndarray) and value.dtype.names:
            for name in value.dtype.names:
                feed(value[name])
        else:
            h.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())

    for name, (attributes, kind, shape, values) in sorted(elements(path), key=lambda e: e[0]):
        h.update(f"{name}|{kind}|{shape}|".encode())
        for key in sorted(attributes):
            h.update(key.encode())
            feed(attributes[key])
        feed(values)
    return h.hexdigest()
