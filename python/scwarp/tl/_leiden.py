from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import _UNSET, DEFAULT_SEED, is_cupy, make_context, require_integer, resolve_seed
from .._matrix import is_sparse, pack
from .._settings import logger
from .._slots import make_actual, require_anndata

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "tl.leiden"


def leiden(
    adata: AnnData,
    resolution: float | Sequence[float] = 1,
    *,
    restrict_to: tuple[str, Sequence[str]] | None = None,
    random_state: Any = DEFAULT_SEED,
    rng: Any = _UNSET,
    theta: float = 0.05,
    n_starts: int = 0,
    key_added: str = "leiden",
    adjacency: Any = None,
    directed: bool | None = None,
    use_weights: bool = True,
    n_iterations: int = -1,
    partition_type: Any = None,
    neighbors_key: str | None = None,
    obsp: str | None = None,
    dtype: Any = "float32",
    use_dask: bool = False,
    copy: bool = False,
    flavor: str | None = "igraph",
    device: str | None = None,
    **clustering_args: Any,
) -> AnnData | None:
    """Cluster cells by modularity with the Leiden algorithm (Traag, Waltman & van Eck 2019).

    Parameters
    ----------
    adata
        Read: ``obsp["connectivities"]``, or the graph that ``neighbors_key``, ``obsp`` or ``adjacency`` names. Weights
        must be finite and not negative. Stored values are undirected edges; a graph that is not symmetric is clustered
        as A + A^T.
    resolution
        Larger values give more clusters. A sequence gives one column per value, ``"{key_added}_{resolution}"``.
    restrict_to
        ``(obs_key, categories)``: cluster only the cells in these categories of ``obs[obs_key]``. The column is
        ``"leiden_R"`` for the default ``key_added``; other cells keep their category, the clustered ones get
        ``"{categories joined by -},{cluster}"``.
    random_state, rng
        Seed of the refinement (default ``settings.seed``). A sequence of resolutions uses one seed for all.
    theta
        Temperature of the refinement in units of edge weight (igraph calls it ``beta``, which is accepted too).
    n_starts
        Independent runs of which the best is kept; 0: 1 to 4, more on small graphs.
    use_weights
        ``False``: every edge counts 1.
    n_iterations
        Passes over all levels; negative: until a pass moves no cell.
    directed, partition_type, flavor
        Modularity of the undirected graph is what is optimised, whatever the ``flavor`` (``"igraph"``, ``"leidenalg"``,
        ``None``): ``directed=True`` or a ``partition_type`` is a ``ValueError``.
    dtype
        ``"float32"`` or ``"float64"``, accepted for rapids-singlecell's sake: weights become 41-bit integers.
    use_dask
        Only ``False``.
    copy
        Return a changed copy.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.
    **clustering_args
        ``beta`` and ``objective_function="modularity"`` of igraph.

    Writes
    ------
    ``obs[key_added]``
        Categorical of strings, naturally sorted; ``"0"`` is the largest cluster.
    ``uns[key_added]``
        ``params`` (resolution, random_state, n_iterations), ``modularity`` (with the resolution; a list for a sequence
        of resolutions), ``cluster_sizes`` (cells per cluster; for a sequence of resolutions a dict by column).

    Notes
    -----
    Every cluster is connected. The same bits for any number of threads, and on CPU and GPU (tier A). A CuPy graph is
    clustered on its GPU.
    """
    require_anndata(adata, _OP)
    _check_options(flavor, directed, partition_type, dtype, use_dask)
    theta = _pop_clustering_args(theta, clustering_args)
    scalar = resolution is None or np.ndim(resolution) == 0
    asked: list[Any] = [1 if resolution is None else resolution] if scalar else list(resolution)  # type: ignore[arg-type]
    if not asked:
        raise ValueError(f"{_OP}: resolution is an empty sequence, expected at least one value")
    if len(set(map(str, asked))) < len(asked):
        raise ValueError(f"{_OP}: resolution has equal values, which would share a column (got {asked})")
    if copy:
        adata = adata.copy()
    graph = choose_graph(adata, _OP, obsp, neighbors_key) if adjacency is None else adjacency
    if not is_sparse(graph) and (isinstance(graph, np.ndarray) or is_cupy(graph)):
        if is_cupy(graph):
            import cupyx.scipy.sparse as sparse
        else:
            import scipy.sparse as sparse

        graph = sparse.csr_matrix(graph)
    if graph.shape != (adata.n_obs, adata.n_obs):
        raise ValueError(f"{_OP}: the graph is {graph.shape}, expected {(adata.n_obs, adata.n_obs)}")
    chosen = None
    if restrict_to is not None:
        key, categories = restrict_to
        chosen = _restricted(adata, key, categories)
        rows = np.flatnonzero(chosen)
        graph = graph.tocsr()[rows, :][:, rows]
    seed = resolve_seed(_OP, random_state, rng)
    ctx = make_context(graph, op=_OP, device=device, seed=seed)
    packed = pack(graph, _OP, name="the graph")
    n_iterations = require_integer(_OP, "n_iterations", n_iterations)
    results = _core.tl.leiden(
        ctx,
        packed.arg,
        [float(r) for r in asked],
        -1 if n_iterations < 0 else n_iterations,
        use_weights,
        float(theta),
        require_integer(_OP, "n_starts", n_starts),
    )

    one = len(asked) == 1
    base = f"{key_added}_R" if restrict_to is not None and key_added == "leiden" else key_added
    columns = [base] if one else [f"{base}_{r}" for r in asked]
    params: dict[str, Any] = {"resolution": asked[0] if one else [float(r) for r in asked]}
    if rng is _UNSET:
        params["random_state"] = seed
    params["n_iterations"] = n_iterations
    make_actual(adata, _OP)
    for column, (labels, modularity, sizes, passes, converged) in zip(columns, results, strict=True):
        codes = labels.get() if is_cupy(labels) else labels
        if restrict_to is None:
            adata.obs[column] = _clusters(codes, len(sizes))
        else:
            adata.obs[column] = _categorical(_renamed(adata, *restrict_to, chosen, codes.astype(str)))
        logger.info(
            "%s: %s: %d clusters, modularity %.4f, %d passes%s",
            _OP, column, len(sizes), modularity, passes, "" if converged else " (not converged)",
        )  # fmt: skip
    adata.uns[base] = {
        "params": params,
        "modularity": results[0][1] if one else [r[1] for r in results],
        "cluster_sizes": results[0][2] if one else {c: r[2] for c, r in zip(columns, results, strict=True)},
    }
    return adata if copy else None


def _check_options(flavor: str | None, directed: bool | None, partition_type: Any, dtype: Any, use_dask: bool) -> None:
    if flavor not in ("igraph", "leidenalg", None):
        raise ValueError(f"{_OP}: flavor must be 'igraph' or 'leidenalg' (got {flavor!r}); both run the same algorithm")
    if directed:
        raise ValueError(f"{_OP}: directed=True is not supported: the graph is taken as undirected")
    if partition_type is not None:
        raise ValueError(f"{_OP}: partition_type is not supported: modularity is optimised (got {partition_type!r})")
    if dtype not in ("float32", "float64", np.float32, np.float64):
        raise ValueError(f"{_OP}: dtype must be float32 or float64 (got {dtype!r})")
    if use_dask:
        raise NotImplementedError(f"{_OP}: use_dask=True is not supported: the graph is clustered on one device")


def _pop_clustering_args(theta: float, args: dict[str, Any]) -> float:
    """theta, or igraph's name for it."""
    args = dict(args)
    objective = args.pop("objective_function", "modularity")
    if str(objective).lower() != "modularity":
        raise ValueError(f"{_OP}: objective_function must be 'modularity' (got {objective!r})")
    theta = args.pop("beta", theta)
    if args:
        raise TypeError(
            f"{_OP}: unexpected arguments {sorted(args)} "
            "(of igraph's, beta and objective_function='modularity' are accepted)"
        )
    return theta


def choose_graph(adata: AnnData, op: str, obsp: str | None, neighbors_key: str | None) -> Any:
    """The connectivities that ``obsp`` or ``neighbors_key`` (default ``"neighbors"``) names."""
    if obsp is not None and neighbors_key is not None:
        raise ValueError(f"{op}: give obsp or neighbors_key, not both")
    if obsp is not None:
        if obsp not in adata.obsp:
            raise KeyError(f"{op}: no obsp {obsp!r} (there are: {list(adata.obsp)})")
        return adata.obsp[obsp]
    key = "neighbors" if neighbors_key is None else neighbors_key
    if key not in adata.uns:
        raise ValueError(f"{op}: no uns[{key!r}]: run pp.neighbors first to compute a neighborhood graph")
    entry = adata.uns[key]
    if "distances_key" in entry and not {"connectivities_key", "connectivities"} & set(entry):
        # There may be an obsp["connectivities"], but from an earlier call.
        raise ValueError(f"{op}: uns[{key!r}] has distances only: run pp.neighbors with a method other than None")
    name = entry.get("connectivities_key", "connectivities")
    if name in adata.obsp:
        return adata.obsp[name]
    if "connectivities" in entry:  # as scanpy wrote it before 1.5
        return entry["connectivities"]
    raise ValueError(f"{op}: no obsp[{name!r}]: run pp.neighbors first to compute a neighborhood graph")


def _restricted(adata: AnnData, key: str, categories: Sequence[str]) -> np.ndarray:
    if key not in adata.obs:
        raise KeyError(f"{_OP}: restrict_to: no obs column {key!r}")
    column = adata.obs[key].astype("category")
    if isinstance(categories, str) or not all(isinstance(c, str) for c in categories):
        raise ValueError(f"{_OP}: restrict_to: categories must be a list of strings, e.g. ['1'] (got {categories!r})")
    for c in categories:
        if c not in column.cat.categories:
            raise ValueError(f"{_OP}: restrict_to: {c!r} is not a category of obs[{key!r}]")
    return column.isin(list(categories)).to_numpy()


def _renamed(adata: AnnData, key: str, categories: Sequence[str], chosen: Any, names: np.ndarray) -> np.ndarray:
    out = adata.obs[key].astype(str).to_numpy(dtype=object, copy=True)
    out[chosen] = [f"{'-'.join(categories)},{name}" for name in names]
    return out


def _clusters(codes: np.ndarray, n: int) -> Any:
    """0 to n - 1 as a categorical of strings; without a million strings."""
    import pandas as pd

    return pd.Categorical.from_codes(codes, categories=np.arange(n).astype(str).astype(object))


def _categorical(names: np.ndarray) -> Any:
    import pandas as pd

    def natural(name: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return pd.Categorical(names, categories=sorted(map(str, np.unique(names.astype(str))), key=natural))
