from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import _UNSET, DEFAULT_SEED, make_context, require_integer, resolve_seed, to_host
from .._matrix import is_sparse, pack
from .._representation import choose_representation
from .._settings import logger
from .._slots import make_actual, require_anndata

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "pp.neighbors"
_METHODS = ("umap", "gauss", "jaccard")
_OURS = ("auto", "brute", "nn_descent")
# Names of rapids-singlecell for approximate searches: what runs here has at least their recall.
_APPROXIMATE = ("cagra", "ivfflat", "ivfpq", "all_neighbors", "mg_ivfflat", "mg_ivfpq")
_TRANSFORMERS = {"sklearn": "brute", "pynndescent": "auto", "rapids": "auto"}
# scikit-learn's names of metrics that we know by others too.
_SCIKIT = {"lp": "minkowski", "linf": "chebyshev", "taxicab": "manhattan"}
_DESCENT_KWDS = ("min_recall", "recall_sample", "n_trees", "max_rounds")


def neighbors(
    adata: AnnData,
    n_neighbors: int = 15,
    n_pcs: int | None = None,
    *,
    distances: Any = None,
    use_rep: str | None = None,
    knn: bool = True,
    method: str | None = "umap",
    transformer: Any = None,
    metric: str | Callable[..., float] = "euclidean",
    metric_kwds: Mapping[str, Any] = MappingProxyType({}),
    random_state: Any = DEFAULT_SEED,
    rng: Any = _UNSET,
    algorithm: str = "auto",
    algorithm_kwds: Mapping[str, Any] = MappingProxyType({}),
    key_added: str | None = None,
    copy: bool = False,
    device: str | None = None,
) -> AnnData | None:
    """The nearest neighbours of every cell, and the weighted graph of them.

    Parameters
    ----------
    adata
        Read: ``obsm[use_rep]``, or the stored PCA (computed if there is none), or ``X`` if it has at most
        ``settings.N_PCS`` columns or ``n_pcs=0``. Dense (in ``obsm`` also a data frame) or CSR/CSC.
    n_neighbors
        Neighbours per cell, the cell itself counted. Above the number of cells: ``1 + n / 2``.
    n_pcs
        Use the first columns of the representation only.
    distances
        Distances between all cells (square, dense or sparse) instead of a search; ``use_rep``, ``n_pcs``, ``knn``,
        ``transformer``, ``metric`` and ``random_state`` are then ignored. Stored entries of a sparse matrix are the
        candidates; every row needs ``n_neighbors - 1`` of them.
    knn
        ``False`` (method ``"gauss"`` only): dense distances and weights between all cells, for small data.
    method
        ``"umap"``, ``"gauss"``, ``"jaccard"``; ``None``: distances only; an earlier graph stays in ``obsp``, unused.
    transformer
        ``"sklearn"`` (exact search), ``"pynndescent"`` (our ``"auto"``) or an object with scikit-learn's
        ``KNeighborsTransformer`` interface, whose ``n_neighbors`` and metric count. What it finds beyond
        ``n_neighbors - 1`` others is kept in the distances, as in scanpy, and with ``"gauss"`` in the weights (as many
        as every cell has).
    metric
        euclidean, l2, sqeuclidean, l1, cityblock, manhattan, taxicab, linf, chebyshev, canberra, cosine, correlation,
        inner_product, jensenshannon, hellinger, lp, minkowski, haversine, hamming, jaccard, braycurtis; other names of
        scikit-learn and functions of two rows are left to scikit-learn. Sparse data: no correlation, jensenshannon,
        haversine, hamming, braycurtis. Values are not changed first.
    metric_kwds
        ``{"p": 3}`` for minkowski; below 1, infinite, or with weights ``"w"`` it is left to scikit-learn too.
    random_state, rng
        Seed of nn_descent (default ``settings.seed``); exact search does not use it.
    algorithm
        ``"brute"``: exact. ``"nn_descent"``: approximate; its recall is measured against the exact neighbours of
        sample cells, repaired below 0.98, and written to ``params``. ``"auto"``: exact where that is fast, which with
        50 columns is up to 200 000 cells. The names of rapids-singlecell's approximate searches mean ``"auto"``.
    algorithm_kwds
        nn_descent: ``min_recall`` (0.98), ``recall_sample`` (1000), ``n_trees``, ``max_rounds``.
    key_added
        ``uns[key_added]``, ``obsp[f"{key_added}_distances"]``, ``obsp[f"{key_added}_connectivities"]``.
    copy
        Return a changed copy.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Writes
    ------
    ``obsp["distances"]``
        CSR float32, ``n_neighbors - 1`` entries per row, nearest first, the cell itself left out (``inner_product``:
        similarities). Ties go to the lower index.
    ``obsp["connectivities"]``
        CSR float32, symmetric, no diagonal.
    ``uns["neighbors"]``
        ``connectivities_key``, ``distances_key``, ``params``: n_neighbors, method, random_state, metric, algorithm;
        recall and recall_cells after nn_descent; metric_kwds, use_rep, n_pcs if given.

    Notes
    -----
    The same bits for any number of threads (tier A).
    """
    require_anndata(adata, _OP)
    if method is not None and method not in _METHODS:
        raise ValueError(f"{_OP}: method must be one of {list(_METHODS)} or None (got {method!r})")
    n_neighbors = require_integer(_OP, "n_neighbors", n_neighbors)
    if n_neighbors < 1:
        raise ValueError(f"{_OP}: n_neighbors must be positive (got {n_neighbors})")
    if distances is None and not knn and (method != "gauss" or transformer is not None):
        raise ValueError(f"{_OP}: knn=False needs method='gauss' and no transformer (got {method!r}, {transformer!r})")
    seed = resolve_seed(_OP, random_state, rng)
    if copy:
        adata = adata.copy()

    params: dict[str, Any] = {"n_neighbors": n_neighbors, "method": method}
    if rng is _UNSET:
        params["random_state"] = seed
    params["metric"] = metric
    if distances is not None:
        stored, lists = _from_distances(adata, distances, n_neighbors)
        k = lists[0].shape[1]
        params["metric"] = "precomputed"
        ctx = make_context(op=_OP, device=device, seed=seed)
    else:
        k = _lowered(n_neighbors, adata.n_obs)
        # Before the representation, which may be a PCA that is written first.
        name, search, kwds = _searcher(transformer, metric, metric_kwds, algorithm, algorithm_kwds, k)
        x = choose_representation(adata, _OP, use_rep=use_rep, n_pcs=n_pcs)
        ctx = make_context(x, op=_OP, device=device, seed=seed)
        if not knn:
            stored, connectivities = _all_pairs(ctx, x, k, metric, metric_kwds)
            lists = None
        else:
            if search is None:
                lists = None
                packed = pack(x, _OP, name="the representation")
                distance_parts, weight_parts, info = _core.pp.neighbor_graphs(
                    ctx, packed.arg, k, str(metric), _p(metric_kwds), name, method or "", **kwds
                )
                stored = _csr(distance_parts[0], distance_parts[1], distance_parts[2], adata.n_obs)
                if method is not None:
                    connectivities = _csr(weight_parts[0], weight_parts[1], weight_parts[2], adata.n_obs)
                    connectivities.has_canonical_format = True
                params["algorithm"] = info["algorithm"]
                if info["algorithm"] == "nn_descent":
                    params["recall"], params["recall_cells"] = info["recall"], info["recall_cells"]
            else:
                theirs = transformer is search
                if theirs:
                    k = int(search.get_params()["n_neighbors"])
                stored, lists = _transform(search, x, k, whole=theirs, long_lists=theirs and method == "gauss")
                params["algorithm"] = type(search).__name__
    params["n_neighbors"] = k
    if metric_kwds and distances is None:
        params["metric_kwds"] = dict(metric_kwds)
    if use_rep is not None and distances is None:
        params["use_rep"] = use_rep
    if n_pcs is not None and distances is None:
        params["n_pcs"] = n_pcs

    if lists is not None and method is not None:
        kind = "inner_product" if metric == "inner_product" and distances is None else "euclidean"
        parts = _core.pp.connectivities(
            ctx, lists[0].reshape(-1), lists[1].reshape(-1), adata.n_obs, lists[0].shape[1], method, kind
        )
        connectivities = _csr(parts[0], parts[1], parts[2], adata.n_obs)
        connectivities.has_canonical_format = True
    key = "neighbors" if key_added is None else key_added
    prefix = "" if key_added is None else f"{key_added}_"
    entry: dict[str, Any] = {"distances_key": f"{prefix}distances", "params": params}
    if method is not None:
        entry = {"connectivities_key": f"{prefix}connectivities", **entry}
    make_actual(adata, _OP)
    adata.obsp[f"{prefix}distances"] = stored
    if method is not None:
        adata.obsp[f"{prefix}connectivities"] = connectivities
    adata.uns[key] = entry
    return adata if copy else None


def _host(x: Any) -> np.ndarray:
    return np.asarray(to_host(x))


def _csr(indptr: Any, indices: Any, data: Any, n: int) -> Any:
    from scipy.sparse import csr_matrix

    indptr, indices, data = _host(indptr), _host(indices), _host(data)
    if data.size <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32, copy=False)
    else:
        indices = indices.astype(np.int64)
    return csr_matrix((data, indices, indptr), shape=(n, n), copy=False)


def _without_self(indices: Any, distances: Any) -> Any:
    n, k = indices.shape
    indptr = np.arange(0, n * (k - 1) + 1, k - 1, dtype=np.int64) if k > 1 else np.zeros(n + 1, np.int64)
    return _csr(indptr, _host(indices)[:, 1:].ravel(), _host(distances)[:, 1:].ravel(), n)


def _lowered(n_neighbors: int, n: int) -> int:
    if n_neighbors <= n or n == 0:
        return n_neighbors
    k = 1 + n // 2
    logger.warning("%s: only %d cells: n_neighbors is lowered to %d", _OP, n, k)
    return k


def _is_ours(metric: Any, metric_kwds: Mapping[str, Any]) -> bool:
    """Whether our search has the metric with these options; all else is scikit-learn's."""
    p = metric_kwds.get("p", 2.0)
    if metric in ("minkowski", "lp") and not p > 0:
        raise ValueError(f"{_OP}: p of the minkowski metric must be positive (got {p})")
    if not isinstance(metric, str) or not _core.pp.knows_metric(metric) or "w" in metric_kwds:
        return False
    _p(metric_kwds)
    return metric not in ("minkowski", "lp") or 1 <= p < np.inf


def _p(metric_kwds: Mapping[str, Any]) -> float:
    unknown = set(metric_kwds) - {"p"}
    if unknown:
        raise ValueError(f"{_OP}: metric_kwds has {sorted(unknown)}; 'p' and 'w' are known")
    return float(metric_kwds.get("p", 2.0))


def _searcher(
    transformer: Any,
    metric: Any,
    metric_kwds: Mapping[str, Any],
    algorithm: str,
    algorithm_kwds: Mapping[str, Any],
    k: int,
) -> tuple[str, Any, dict[str, Any]]:
    """(our algorithm, None, its options), or a transformer object that searches instead."""
    if transformer is not None and not isinstance(transformer, str):
        return algorithm, transformer, {}
    if transformer is not None:
        if transformer not in _TRANSFORMERS:
            raise ValueError(f"{_OP}: unknown transformer {transformer!r} (expected one of {list(_TRANSFORMERS)})")
        algorithm = _TRANSFORMERS[transformer]
        logger.info("%s: transformer=%r: runs our %s search", _OP, transformer, algorithm)
    if algorithm in _APPROXIMATE:
        logger.info("%s: algorithm=%r: runs our 'auto' search; algorithm_kwds are not used", _OP, algorithm)
        algorithm, algorithm_kwds = "auto", {}
    if algorithm not in _OURS:
        raise ValueError(f"{_OP}: unknown algorithm {algorithm!r} (expected one of {[*_OURS, *_APPROXIMATE]})")
    unknown = set(algorithm_kwds) - set(_DESCENT_KWDS) - {"intermediate_graph_degree"}
    if unknown:
        raise ValueError(f"{_OP}: algorithm_kwds has {sorted(unknown)}; known are {list(_DESCENT_KWDS)}")
    kwds = {key: value for key, value in algorithm_kwds.items() if key in _DESCENT_KWDS}
    if _is_ours(metric, metric_kwds):
        return algorithm, None, kwds
    from sklearn.neighbors import VALID_METRICS, KNeighborsTransformer

    if not callable(metric) and _SCIKIT.get(metric, metric) not in VALID_METRICS["brute"]:
        raise ValueError(f"{_OP}: unknown metric {metric!r} (scikit-learn has: {', '.join(VALID_METRICS['brute'])})")
    logger.info("%s: metric %r: distances by scikit-learn", _OP, metric)
    return (
        algorithm,
        KNeighborsTransformer(
            algorithm="brute",
            n_neighbors=max(k - 1, 1),
            metric=_SCIKIT.get(metric, metric),
            metric_params=dict(metric_kwds),
        ),
        {},
    )


def _all_pairs(ctx: _core.Context, x: Any, k: int, metric: Any, metric_kwds: Mapping[str, Any]) -> tuple[Any, Any]:
    if is_sparse(x):
        x = x.toarray()
    if _is_ours(metric, metric_kwds):
        packed = pack(x, _OP, name="the representation")
        distances = _core.pp.pairwise_distances(ctx, packed.arg, metric, _p(metric_kwds))
    else:
        from sklearn.metrics import pairwise_distances

        x = _host(x)
        distances = pairwise_distances(x, metric=_SCIKIT.get(metric, metric), **metric_kwds).astype(np.float32)
        np.fill_diagonal(distances, 0)
        if not np.isfinite(distances).all():
            raise _core.DataError(f"{_OP}: distances must be finite (metric {metric!r})")
    return _host(distances), _host(_core.pp.gauss_kernel(ctx, distances, k))


def _nearest_of_dense(d: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    n = d.shape[0]
    d = np.array(d, dtype=np.float64)
    np.fill_diagonal(d, -np.inf)  # the cell itself first, also among duplicates
    order = np.argsort(d, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(d, order, axis=1)
    values[:, 0] = 0
    assert (order[:, 0] == np.arange(n)).all()
    return np.ascontiguousarray(order, np.int32), np.ascontiguousarray(values, np.float32)


def _others(d: Any) -> tuple[Any, Any, Any]:
    """(offsets, columns, values) of a sparse matrix without its diagonal: rows by value, ties by column."""
    n = d.shape[0]
    d = d.tocsr()
    rows = np.repeat(np.arange(n), np.diff(d.indptr))
    others = rows != d.indices
    rows, columns, values = rows[others], d.indices[others], d.data[others]
    order = np.lexsort((columns, values, rows))
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return start, columns[order], values[order]


def _nearest_of_sparse(others: tuple[Any, Any, Any], k: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    start, columns, values = others
    n, count = len(start) - 1, np.diff(start)
    if n and count.min() < k - 1:
        raise ValueError(
            f"{_OP}: {what}: row {int(count.argmin())} has {int(count.min())} neighbours, n_neighbors={k} needs {k - 1}"
        )
    take = (start[:-1, None] + np.arange(k - 1)[None, :]).astype(np.int64)
    indices = np.empty((n, k), np.int32)
    distances = np.zeros((n, k), np.float32)
    indices[:, 0] = np.arange(n)
    indices[:, 1:] = columns[take]
    distances[:, 1:] = values[take]
    return indices, distances


def _from_distances(adata: AnnData, distances: Any, n_neighbors: int) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    n = adata.n_obs
    if distances.shape != (n, n):
        raise ValueError(f"{_OP}: distances are {distances.shape}, expected {(n, n)}")
    if hasattr(distances, "tocsr"):  # of any format
        distances = distances.tocsr()
    k = _lowered(n_neighbors, n)
    values = distances.data if is_sparse(distances) else np.asarray(distances)
    if not np.isfinite(values).all() or (values < 0).any():
        raise _core.DataError(f"{_OP}: distances must be finite and not negative")
    lists = (
        _nearest_of_sparse(_others(distances), k, "distances")
        if is_sparse(distances)
        else _nearest_of_dense(np.asarray(distances), k)
    )
    return _without_self(*lists), lists


def _transform(
    transformer: Any, x: Any, k: int, *, whole: bool, long_lists: bool
) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    """The graph of a scikit-learn transformer without the cells themselves (cut to the lists unless ``whole``), and
    lists of the nearest k (``long_lists``: of more, where every cell has them)."""
    graph = transformer.fit_transform(x)
    if not is_sparse(graph):
        raise TypeError(f"{_OP}: {type(transformer).__name__}.fit_transform gave {type(graph).__name__}, expected CSR")
    start, columns, values = _others(graph)
    if long_lists and len(start) > 1:
        k = max(k, 1 + int(np.diff(start).min()))
    lists = _nearest_of_sparse((start, columns, values), k, type(transformer).__name__)
    if not whole:
        return _without_self(*lists), lists
    return _csr(start, columns.astype(np.int32), values.astype(np.float32), len(start) - 1), lists
