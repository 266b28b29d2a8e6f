// Seeded counts of single cells, one warp per cell: only IEEE add, multiply and divide and 32-bit integer hashing, so
// that every compiler and machine makes the same bits. Compiled at run time by peer_counts.py.
//
// Count of (cell i, gene g) = Geo(u1, q) + Geo(u2, q), q = h / (1 + h), h = lambda / 2: negative binomial of size 2 and
// mean lambda = library[i] * profile[cluster(i)][g] * batch[b(i)][g] * (1 + activity[i][program[g]] * weight[g]).

struct Tables {
  int n_cells, n_genes;
  unsigned seed;
  int n_clusters, n_batches;
  const unsigned* threshold;   // [n_clusters] cumulative share of each cluster, times 2^32
  const float* library;        // [4096]
  const float* profile;        // [n_clusters x n_genes]
  const float* batch;          // [n_batches x n_genes]
  const signed char* program;  // [n_genes], -1: in none of the four programmes
  const float* weight;         // [n_genes]
};

struct Cell {
  int cluster, batch;
  float library, activity[4];
  unsigned key;
};

extern "C" {
__constant__ Tables t;  // set before the first launch
}

__device__ unsigned mix(unsigned x) {  // the "lowbias32" integer hash
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  return x ^ (x >> 16);
}

__device__ float uniform(unsigned h) {
  return __fadd_rn(__fmul_rn(static_cast<float>(h >> 8), 5.9604644775390625e-8f), 2.98023223876953125e-8f);
}

__device__ int geometric(float u, float q) {
  int k = 0;
  for (float t = q; u < t; t = __fmul_rn(t, q)) ++k;
  return k;
}

__device__ Cell cell_of(unsigned i) {
  Cell c;
  const unsigned s = mix(i * 0x9E3779B9U + t.seed);
  const unsigned h = mix(s ^ 0x1b873593U);
  c.cluster = 0;
  while (c.cluster < t.n_clusters - 1 && h >= t.threshold[c.cluster]) ++c.cluster;
  c.batch = static_cast<int>(mix(s ^ 0xcc9e2d51U) % static_cast<unsigned>(t.n_batches));
  c.library = t.library[mix(s ^ 0xe6546b64U) & 4095U];
  for (unsigned k = 0; k < 4; ++k) {
    const float u = uniform(mix(s ^ (0x52dce729U * (k + 1))));
    c.activity[k] = __fmul_rn(u, u);
  }
  c.key = mix(s ^ 0x38495ab5U);
  return c;
}

__device__ int count_of(const Cell& c, int g) {
  const long long n = t.n_genes;
  float lambda = __fmul_rn(__fmul_rn(c.library, t.profile[c.cluster * n + g]), t.batch[c.batch * n + g]);
  const int p = t.program[g];
  if (p >= 0) lambda = __fmul_rn(lambda, __fadd_rn(1.0f, __fmul_rn(c.activity[p], t.weight[g])));
  const float half = __fmul_rn(lambda, 0.5f), q = __fdiv_rn(half, __fadd_rn(1.0f, half));
  const unsigned h1 = mix(static_cast<unsigned>(g) * 0x9E3779B9U + c.key), h2 = mix(h1 ^ 0x85EBCA6BU);
  return geometric(uniform(h1), q) + geometric(uniform(h2), q);
}

extern "C" __global__ void labels(int* cluster, int* batch) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= t.n_cells) return;
  const Cell c = cell_of(static_cast<unsigned>(i));
  cluster[i] = c.cluster;
  batch[i] = c.batch;
}

// Called twice: without indptr to count (indptr_out[i + 1]), then with it to write the entries.
extern "C" __global__ void entries(const long long* indptr, long long* indptr_out, int* indices, float* values) {
  const int i = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32);
  const int lane = static_cast<int>(threadIdx.x & 31);
  if (i >= t.n_cells) return;
  const Cell c = cell_of(static_cast<unsigned>(i));
  long long position = indptr ? indptr[i] : 0;
  for (int first = 0; first < t.n_genes; first += 32) {
    const int g = first + lane;
    const int count = g < t.n_genes ? count_of(c, g) : 0;
    const unsigned positive = __ballot_sync(0xffffffffu, count > 0);
    if (indptr && count > 0) {
      const long long k = position + __popc(positive & ((1u << lane) - 1));
      indices[k] = g;
      values[k] = static_cast<float>(count);
    }
    position += __popc(positive);
  }
  if (!indptr && lane == 0) indptr_out[i + 1] = position;
}
