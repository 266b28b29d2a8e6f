from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._context import _UNSET, DEFAULT_SEED, is_cupy, make_context, require_integer, resolve_seed
from .._matrix import is_sparse, pack
from .._settings import logger
from .._slots import make_actual, require_anndata
from ._leiden import choose_graph

if TYPE_CHECKING:
    from anndata import AnnData

_OP = "tl.umap"


def umap(
    adata: AnnData,
    *,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_components: int = 2,
    maxiter: int | None = None,
    alpha: float = 1.0,
    gamma: float = 1.0,
    negative_sample_rate: int = 5,
    init_pos: Any = "spectral",
    random_state: Any = DEFAULT_SEED,
    rng: Any = _UNSET,
    a: float | None = None,
    b: float | None = None,
    method: str = "umap",
    key_added: str | None = None,
    neighbors_key: str | None = None,
    copy: bool = False,
    device: str | None = None,
) -> AnnData | None:
    """Embed cells in a few dimensions by UMAP (McInnes, Healy & Melville 2018).

    Parameters
    ----------
    adata
        Read: the connectivities of ``uns[neighbors_key]``. They alone (with the seed) decide the result. Of a graph
        that is not symmetric ``(A + A^T) / 2`` is embedded: an edge pulls both of its ends.
    min_dist, spread
        How tightly cells may be packed, and the scale of the embedding; ignored if ``a`` and ``b`` are given.
    n_components
        Dimensions of the embedding.
    maxiter
        Epochs; ``None``: 500 up to 10 000 cells, 200 above.
    alpha, gamma, negative_sample_rate
        Initial step length, weight of the repulsion, random cells that push for each sampled edge.
    init_pos
        ``"spectral"``, ``"random"``, ``"auto"`` (spectral below a million cells, else random), ``"paga"`` (the
        result then has 2 columns, as in scanpy), ``"pca"`` (the first columns of ``obsm["X_pca"]``), a key of ``obsm``,
        or an array with ``n_components`` columns.
    random_state, rng
        Seed (default ``settings.seed``). The same seed gives the same bits on every run and for any number of threads.
    a, b
        The curve ``1 / (1 + a d^2b)``; unless both are given, fitted to ``min_dist`` and ``spread``.
    method
        Only ``"umap"``.
    key_added
        Name of the entries in ``obsm`` and ``uns``; ``None``: ``"X_umap"`` and ``"umap"``.
    neighbors_key
        Key of ``uns`` that says which graph; default ``"neighbors"``.
    copy
        Return a changed copy.
    device
        ``"cpu"`` or ``"cuda"``; default where the data are, else ``settings.device``.

    Writes
    ------
    ``obsm["X_umap"]``
        float32, cells x ``n_components``.
    ``uns["umap"]``
        ``{"params": {"a", "b"}}``, with ``"random_state"`` if it is not 0.
    """
    require_anndata(adata, _OP)
    if method != "umap":
        raise ValueError(f"{_OP}: method must be 'umap' (got {method!r})")
    if copy:
        adata = adata.copy()
    graph = choose_graph(adata, _OP, None, neighbors_key)
    kernel = adata.uns[neighbors_key or "neighbors"].get("params", {}).get("method")
    if kernel not in (None, "umap"):
        logger.warning("%s: the connectivities have not been computed by method='umap' (but %r)", _OP, kernel)
    if not is_sparse(graph) and isinstance(graph, np.ndarray):
        import scipy.sparse as sparse

        graph = sparse.csr_matrix(graph)
    if graph.shape != (adata.n_obs, adata.n_obs):
        raise ValueError(f"{_OP}: the graph is {graph.shape}, expected {(adata.n_obs, adata.n_obs)}")
    if graph.dtype != np.float32:
        graph = graph.astype(np.float32)
    seed = resolve_seed(_OP, random_state, rng)
    n_components = require_integer(_OP, "n_components", n_components)
    if isinstance(init_pos, str) and init_pos == "paga" and "paga" not in adata.obsm and n_components != 2:
        logger.warning("%s: init_pos='paga' has 2 columns, and so has the result (n_components=%d)", _OP, n_components)
        n_components = 2
    init = _start(adata, init_pos, n_components, seed)
    ctx = make_context(graph, op=_OP, device=device, seed=seed)
    if is_cupy(graph) and not isinstance(init, str):
        import cupy

        init = cupy.asarray(init)
    embedding, a, b, n_epochs, symmetric = _core.tl.umap(
        ctx, pack(graph, _OP, name="the graph").arg, float(min_dist), float(spread), n_components,
        None if maxiter is None else int(maxiter), float(alpha), float(gamma), int(negative_sample_rate), init,
        None if a is None else float(a), None if b is None else float(b),
    )  # fmt: skip
    if not symmetric:
        logger.info("%s: the graph is not symmetric: (A + A^T) / 2 is embedded", _OP)
    if is_cupy(embedding):
        embedding = embedding.get()  # embeddings live on the host
    params: dict[str, Any] = {"a": a, "b": b}
    if rng is _UNSET and seed != 0:
        params["random_state"] = seed
    key_obsm, key_uns = ("X_umap", "umap") if key_added is None else (key_added, key_added)
    make_actual(adata, _OP)
    adata.obsm[key_obsm] = embedding
    adata.uns[key_uns] = {"params": params}
    logger.info("%s: obsm[%r]: %d cells in %d dimensions, %d epochs", _OP, key_obsm, *embedding.shape, n_epochs)
    return adata if copy else None


def _start(adata: AnnData, init_pos: Any, n_components: int, seed: int) -> Any:
    """What the C++ side takes: "spectral", "random", or a float32 array."""
    name = "the array" if not isinstance(init_pos, str) else repr(init_pos)
    if isinstance(init_pos, str):
        if init_pos in adata.obsm:
            init_pos = adata.obsm[init_pos]
        elif init_pos == "auto":
            return "spectral" if adata.n_obs < 1_000_000 else "random"
        elif init_pos in ("spectral", "random"):
            return init_pos
        elif init_pos == "paga":
            init_pos = _paga_positions(adata, seed)
        elif init_pos == "pca":
            scores = adata.obsm.get("X_pca", adata.obsm.get("pca"))
            if scores is None:
                raise ValueError(f"{_OP}: init_pos='pca': no obsm['X_pca']: run pp.pca first")
            init_pos = np.asarray(scores)[:, :n_components]
        else:
            raise ValueError(
                f"{_OP}: init_pos must be 'spectral', 'random', 'auto', 'paga', 'pca', a key of obsm "
                f"({list(adata.obsm)}) or an array (got {init_pos!r})"
            )
    if is_sparse(init_pos):
        raise ValueError(f"{_OP}: init_pos: {name} is sparse, expected a dense array")
    array = np.asarray(init_pos.to_numpy() if hasattr(init_pos, "to_numpy") else init_pos)
    if array.shape != (adata.n_obs, n_components):
        raise ValueError(f"{_OP}: init_pos: {name} has shape {array.shape}, expected {(adata.n_obs, n_components)}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _paga_positions(adata: AnnData, seed: int) -> np.ndarray:
    """Cells at random in the box between their group's position and that of its strongest neighbour, as in scanpy."""
    paga = adata.uns.get("paga", {})
    if "pos" not in paga:
        raise ValueError(f"{_OP}: init_pos='paga': plot PAGA first, so that uns['paga']['pos'] exists")
    groups = adata.obs[paga["groups"]]
    positions = np.asarray(paga["pos"], dtype=np.float64)
    coarse = paga["connectivities"].tocsr()
    random = np.random.RandomState(seed)
    out = np.ones((adata.n_obs, 2))
    for i, at in enumerate(positions):
        members = np.flatnonzero((groups == groups.cat.categories[i]).to_numpy())
        row = coarse[[i]].toarray().ravel()
        if row.any():
            span = at - positions[row.argmax()]
            out[members] = at - 0.5 * span + random.random_sample((len(members), 2)) * span
        else:
            out[members] = at
    return out
