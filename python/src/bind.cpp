#include "bind.hpp"

#include "core/backend.hpp"
#include "scwarp/pp/regress_out.hpp"

#include <csignal>
#include <unistd.h>

#include <mutex>
#include <optional>

namespace scw::python {
namespace {

class PyLog final : public LogSink {
 public:
  explicit PyLog(nb::object f) : f_(std::move(f)) {}
  ~PyLog() override {
    const nb::gil_scoped_acquire gil;
    f_.reset();
  }
  void log(LogLevel level, std::string_view message) override {
    const nb::gil_scoped_acquire gil;
    f_(static_cast<int>(level), std::string(message));
  }

 private:
  nb::object f_;
};

class PyProgress final : public Progress {
 public:
  explicit PyProgress(nb::object f) : f_(std::move(f)) {}
  ~PyProgress() override {
    const nb::gil_scoped_acquire gil;
    f_.reset();
  }
  void update(std::string_view step, std::int64_t done, std::int64_t total) override {
    const nb::gil_scoped_acquire gil;
    f_(std::string(step), done, total);
  }

 private:
  nb::object f_;
};

/// What results in a stream of the caller's are allocated from. An array drops its resource after its memory, and with
/// the last one goes the stream.
class CallersStreamMemory final : public MemoryResource {
 public:
  CallersStreamMemory(std::shared_ptr<MemoryResource> upstream, nb::object owner)
      : upstream_(std::move(upstream)), owner_(std::move(owner)) {}
  ~CallersStreamMemory() override {
    const nb::gil_scoped_acquire gil;
    owner_.reset();
  }
  Device device() const override { return upstream_->device(); }
  void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) override {
    return upstream_->allocate(bytes, stream, tag);
  }
  void deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept override {
    upstream_->deallocate(p, bytes, stream);
  }

 private:
  std::shared_ptr<MemoryResource> upstream_;
  nb::object owner_;
};

std::atomic<std::atomic<bool>*> g_cancel{nullptr};
struct sigaction g_previous {};

void on_interrupt(int signal) {
  if (auto* flag = g_cancel.load()) flag->store(true);
  // Python's handler records the signal; KeyboardInterrupt is raised once the call has unwound.
  if ((g_previous.sa_flags & SA_SIGINFO) == 0 && g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN)
    g_previous.sa_handler(signal);
}

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, double>) return "float64";
  if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "int64";
  if constexpr (std::is_same_v<T, std::uint8_t>) return "uint8";
  return "?";
}

Device device_of(const nb::ndarray<nb::ro>& a) {
  const int type = a.device_type();
  if (type == nb::device::cpu::value) return {};
  if (type == nb::device::cuda::value || type == nb::device::cuda_managed::value)
    return {DeviceType::cuda, a.device_id()};
  throw nb::type_error("arrays must be in host or CUDA memory");
}

/// Any array, read-only or not; type, extent and device are checked by the caller.
nb::ndarray<nb::ro> import_array(const PyContext& py, nb::handle h, const char* name) {
  nb::ndarray<nb::ro> a;
  if (!nb::try_cast(h, a)) throw nb::type_error((std::string(name) + ": expected a NumPy or CuPy array").c_str());
  const Device d = device_of(a);
  if (py.host_data() && d.type == DeviceType::cpu) return a;  // the caller uploads or streams it
  if (!(d == py.context.device))
    throw DeviceMismatch(std::string(name) + ": the array is on " + to_string(d) + ", the operation runs on " +
                         to_string(py.context.device));
  return a;
}

void require_contiguous(const nb::ndarray<nb::ro>& a, std::size_t ndim, const char* name) {
  if (a.ndim() != ndim)
    throw ShapeMismatch(std::string(name) + ": got " + std::to_string(a.ndim()) + " dimensions, expected " +
                        std::to_string(ndim));
  if (a.size() == 0) return;  // strides of an empty array mean nothing
  std::int64_t expected = 1;
  for (std::size_t k = ndim; k-- > 0;) {
    if (a.shape(k) > 1 && a.stride(k) != expected)
      throw nb::type_error((std::string(name) + ": the array must be C-contiguous").c_str());
    expected *= static_cast<std::int64_t>(a.shape(k));
  }
}

template <class T>
void require_type(const nb::ndarray<nb::ro>& a, const char* name) {
  if (a.dtype() != nb::dtype<T>())
    throw nb::type_error((std::string(name) + ": expected an array of " + type_name<T>()).c_str());
}

void require_writable(nb::handle h, const char* name) {
  if (nb::hasattr(h, "flags") && nb::hasattr(h.attr("flags"), "writeable") &&
      !nb::cast<bool>(h.attr("flags").attr("writeable")))
    throw nb::type_error((std::string(name) + ": the array is read-only").c_str());
}

/// How an argument reaches the operation.
enum class Want : std::uint8_t {
  on_device,  // where the context is: uploaded from the host
  in_place,   // where it is
};

template <class T>
T* placed(const PyContext& py, const nb::ndarray<nb::ro>& a, Want want) {
  // The caller of the Python function keeps the array alive for the length of the call.
  T* const p = const_cast<T*>(static_cast<const T*>(a.data()));
  if (want == Want::in_place || a.size() == 0 || device_of(a) == py.context.device) return p;
  const std::size_t bytes = a.size() * sizeof(T);
  if constexpr (std::is_const_v<T>)
    return static_cast<T*>(py.upload(p, bytes));
  else
    return static_cast<T*>(py.upload_changed(p, bytes));
}

template <class T>
Span<T> span_of(const PyContext& py, const nb::ndarray<nb::ro>& a, const char* name, Want want) {
  require_contiguous(a, 1, name);
  require_type<std::remove_const_t<T>>(a, name);
  return {placed<T>(py, a, want), static_cast<std::int64_t>(a.shape(0))};
}
template <class T>
Span<T> span_of(const PyContext& py, nb::handle h, const char* name, Want want = Want::on_device) {
  return span_of<T>(py, import_array(py, h, name), name, want);
}

template <class Any, template <class> class Constness>
Any any_matrix(const PyContext& py, nb::handle packed, Want want = Want::on_device) {
  using F = typename Constness<float>::type;
  using D = typename Constness<double>::type;
  if (nb::isinstance<nb::tuple>(packed)) {
    const auto parts = nb::cast<nb::tuple>(packed);
    const auto indptr = span_of<const std::int64_t>(py, parts[0], "indptr", want);
    const auto indices = span_of<const std::int32_t>(py, parts[1], "indices", want);
    const auto n_cols = nb::cast<std::int32_t>(parts[3]);
    const auto data = import_array(py, parts[2], "data");
    if (indptr.size < 1) throw ShapeMismatch("indptr: got no entry, expected n_rows + 1");
    const std::int64_t n_rows = indptr.size - 1;
    const auto check = [&](std::int64_t n) {
      if (n != indices.size)
        throw ShapeMismatch("data has " + std::to_string(n) + " entries, indices " + std::to_string(indices.size));
    };
    if (data.dtype() == nb::dtype<float>()) {
      const auto values = span_of<F>(py, data, "data", want);
      check(values.size);
      return CsrView<F>(n_rows, n_cols, indptr, indices, values);
    }
    const auto values = span_of<D>(py, data, "data", want);
    check(values.size);
    return CsrView<D>(n_rows, n_cols, indptr, indices, values);
  }
  const auto a = import_array(py, packed, "X");
  require_contiguous(a, 2, "X");
  const auto rows = static_cast<std::int64_t>(a.shape(0)), cols = static_cast<std::int64_t>(a.shape(1));
  if (a.dtype() == nb::dtype<float>()) return MatrixView<F>(placed<F>(py, a, want), rows, cols);
  require_type<double>(a, "X");
  return MatrixView<D>(placed<D>(py, a, want), rows, cols);
}

}  // namespace

template <class T>
Span<const T> vector_arg(const PyContext& py, nb::handle h, const char* name) {
  return span_of<const T>(py, h, name);
}
template <class T>
Span<T> mutable_vector_arg(const PyContext& py, nb::handle h, const char* name) {
  require_writable(h, name);
  return span_of<T>(py, h, name);
}
template <class T>
MatrixView<const T> matrix2d_arg(const PyContext& py, nb::handle h, const char* name) {
  const auto a = import_array(py, h, name);
  require_contiguous(a, 2, name);
  require_type<T>(a, name);
  return {placed<const T>(py, a, Want::on_device), static_cast<std::int64_t>(a.shape(0)),
          static_cast<std::int64_t>(a.shape(1))};
}

#define SCW_INSTANTIATE(T)                                                           \
  template Span<const T> vector_arg<T>(const PyContext&, nb::handle, const char*);   \
  template Span<T> mutable_vector_arg<T>(const PyContext&, nb::handle, const char*); \
  template MatrixView<const T> matrix2d_arg<T>(const PyContext&, nb::handle, const char*);
SCW_INSTANTIATE(float)
SCW_INSTANTIATE(double)
SCW_INSTANTIATE(std::int32_t)
SCW_INSTANTIATE(std::int64_t)
SCW_INSTANTIATE(std::uint8_t)
#undef SCW_INSTANTIATE

AnyMatrixView matrix_arg(const PyContext& py, nb::handle packed) {
  return any_matrix<AnyMatrixView, std::add_const>(py, packed);
}

namespace {

void require_writable_matrix(nb::handle packed) {
  require_writable(nb::isinstance<nb::tuple>(packed) ? nb::handle(nb::cast<nb::tuple>(packed)[2]) : packed, "X");
}

std::int64_t bytes_of(const AnyMatrixView& x) {
  return std::visit(
      [](const auto& v) {
        if constexpr (requires { v.indptr; })
          return v.values.size * std::int64_t{sizeof(*v.values.data) + 4} + v.indptr.size * 8;
        else
          return v.n_rows * v.n_cols * std::int64_t{sizeof(*v.data)};
      },
      x);
}

}  // namespace

AnyMutableMatrixView mutable_matrix_arg(const PyContext& py, nb::handle packed) {
  require_writable_matrix(packed);
  return any_matrix<AnyMutableMatrixView, std::type_identity>(py, packed);
}

namespace {

/// A resident matrix, or one that is streamed.
AnyMatrixView rows_arg(const PyContext& py, nb::handle packed, Passes passes) {
  const auto view = any_matrix<AnyMatrixView, std::add_const>(py, packed, Want::in_place);
  if (!py.host_data() || is_resident(py.context, view)) return view;
  const bool fits = py.context.block_bytes == 0 && bytes_of(view) < available_bytes(py.context) / 2;
  return passes == Passes::several && fits ? matrix_arg(py, packed) : view;
}

/// Row blocks that a Python callable yields.
class PyRowBlocks final : public RowBlocks {
 public:
  PyRowBlocks(const PyContext& py, const nb::tuple& source)
      : py_(py),
        n_rows_(nb::cast<std::int64_t>(source[0])),
        n_cols_(nb::cast<std::int64_t>(source[1])),
        sparse_(nb::cast<bool>(source[2])),
        double_(nb::cast<bool>(source[3])),
        open_(source[4]) {}
  std::int64_t n_rows() const override { return n_rows_; }
  std::int64_t n_cols() const override { return n_cols_; }
  bool is_sparse() const override { return sparse_; }
  bool is_double(const Context&) const override { return double_; }

 protected:
  void visit(const Context& ctx, RowParts parts, const Body& body) const override {
    const nb::gil_scoped_acquire gil;
    std::int64_t first = 0;
    for (const nb::handle packed : open_()) {
      ctx.check_cancelled("row blocks");
      const AnyMatrixView block = rows_arg(py_, packed, Passes::one);
      const std::int64_t rows = scw::n_rows(block);
      const ResidentBlocks blocks(block);
      if (rows > n_rows_ - first || blocks.n_cols() != n_cols_ || blocks.is_sparse() != sparse_ ||
          blocks.is_double(ctx) != double_)
        throw ShapeMismatch("row blocks: a block does not have the shape and type that were announced");
      const nb::gil_scoped_release release;
      blocks.for_each(ctx, [&](std::int64_t row, const AnyMatrixView& part) { body(first + row, part); }, parts);
      first += rows;
    }
    if (first != n_rows_)
      throw ShapeMismatch("row blocks: they end early (got " + std::to_string(first) + " rows, expected " +
                          std::to_string(n_rows_) + ")");
  }

 private:
  const PyContext& py_;
  std::int64_t n_rows_, n_cols_;
  bool sparse_, double_;
  nb::object open_;
};

/// What pp.regress_out leaves of other blocks: ("residuals", x, keys or codes, coefficients or means, gene mask or
/// None).
class PyResidualBlocks final : public RowBlocks {
 public:
  PyResidualBlocks(const PyContext& py, const nb::tuple& parts) : x_(blocks_arg(py, parts[1])) {
    const PyContext host("cpu", 1, 0, 0, nb::none(), nb::none());
    const auto fit = matrix2d_arg<double>(host, parts[3], "coefficients");
    const auto mask = parts[4].is_none() ? Span<const std::uint8_t>{} : host_vector_arg<std::uint8_t>(parts[4], "mask");
    if (nb::cast<int>(parts[2].attr("ndim")) == 1)
      residuals_.emplace(*x_, host_vector_arg<std::int32_t>(parts[2], "codes"), fit, mask);
    else
      residuals_.emplace(*x_, matrix2d_arg<double>(host, parts[2], "keys"), fit, mask);
  }
  std::int64_t n_rows() const override { return residuals_->n_rows(); }
  std::int64_t n_cols() const override { return residuals_->n_cols(); }
  bool is_sparse() const override { return residuals_->is_sparse(); }
  bool is_double(const Context& ctx) const override { return residuals_->is_double(ctx); }

 protected:
  void visit(const Context& ctx, RowParts parts, const Body& body) const override {
    residuals_->for_each(ctx, body, parts);
  }

 private:
  std::shared_ptr<const RowBlocks> x_;
  std::optional<pp::ResidualBlocks> residuals_;
};

}  // namespace

std::shared_ptr<const RowBlocks> blocks_arg(const PyContext& py, nb::handle x, Passes passes) {
  if (nb::isinstance<RowSource>(x)) return nb::cast<const RowSource&>(x).rows;
  if (nb::isinstance<nb::tuple>(x)) {
    const auto parts = nb::cast<nb::tuple>(x);
    if (parts.size() == 5 && nb::isinstance<nb::str>(parts[0])) return std::make_shared<PyResidualBlocks>(py, parts);
    if (parts.size() == 5) return std::make_shared<PyRowBlocks>(py, parts);
  }
  return std::make_shared<ResidentBlocks>(rows_arg(py, x, passes));
}

AnyMutableMatrixView mutable_rows_arg(const PyContext& py, nb::handle packed) {
  require_writable_matrix(packed);
  return any_matrix<AnyMutableMatrixView, std::type_identity>(py, packed, Want::in_place);
}

void copy_home(const PyContext& py, void* host, const void* device, std::size_t bytes, std::shared_ptr<void> owner) {
  const nb::gil_scoped_release release;
  copy_bytes(py.context, host, Device{}, device, py.context.device, bytes);
  DeviceCache::instance().add(py.context, *py.group(), host, bytes, device, std::move(owner));
}

namespace detail {

nb::object wrap(void* data, std::vector<std::size_t> shape, nb::dlpack::dtype dtype, Device device, nb::capsule owner) {
  if (device.type == DeviceType::cpu)
    return nb::cast(nb::ndarray<nb::numpy>(data, shape.size(), shape.data(), owner, nullptr, dtype));
  return nb::cast(nb::ndarray<nb::cupy>(data, shape.size(), shape.data(), owner, nullptr, dtype,
                                        nb::device::cuda::value, device.id));
}

}  // namespace detail

PyContext::PyContext(const std::string& device, int n_threads, std::uint64_t seed, std::uintptr_t stream,
                     nb::object log, nb::object progress, bool host_data, std::int64_t block_bytes,
                     nb::object stream_owner)
    : context(Context::on(parse_device(device), n_threads)),
      host_data_(host_data && context.device.type != DeviceType::cpu) {
  context.stream.handle = reinterpret_cast<void*>(stream);
  context.rng = {seed, 0};
  context.cancelled = &cancelled_;
  context.block_bytes = block_bytes;
  if (context.device.type != DeviceType::cpu) device_memory(context.device)->reset_peak();
  if (host_data_) {
    context.stream =
        scw::detail::backend_hooks(context.device.type).stream(context.device.id, scw::detail::OwnStream::compute);
    context.memory = std::make_shared<HostBoundMemory>(context.memory, *this);
  } else if (!stream_owner.is_none()) {
    context.memory = std::make_shared<CallersStreamMemory>(context.memory, std::move(stream_owner));
  }
  if (!log.is_none()) {
    log_ = std::make_unique<PyLog>(std::move(log));
    context.log = log_.get();
  }
  if (!progress.is_none()) {
    progress_ = std::make_unique<PyProgress>(std::move(progress));
    context.progress = progress_.get();
  }
}

void* PyContext::upload(const void* host, std::size_t bytes) const {
  const nb::gil_scoped_release release;
  auto& cache = DeviceCache::instance();
  if (auto hit = cache.find(context, host, bytes); hit.device != nullptr) {
    copies_.push_back(std::move(hit.owner));
    return const_cast<void*>(hit.device);
  }
  return upload_changed(const_cast<void*>(host), bytes, false);
}

void* PyContext::upload_changed(void* host, std::size_t bytes) const {
  const nb::gil_scoped_release release;
  return upload_changed(host, bytes, true);
}

void* PyContext::upload_changed(void* host, std::size_t bytes, bool back) const {
  auto copy = std::make_shared<Array<unsigned char>>(context.workspace, static_cast<std::int64_t>(bytes), "uploaded",
                                                     context.stream);
  void* const device = copy->data();
  copy_bytes(context, device, context.device, host, Device{}, bytes);
  DeviceCache::instance().count_upload(bytes);
  copies_.push_back(std::move(copy));
  if (back) changed_.push_back({host, device, bytes});
  return device;
}

void PyContext::end_call(bool succeeded) const {
  const auto copies = std::exchange(copies_, {});  // freed last
  const auto changed = std::exchange(changed_, {});
  if (!host_data_ || !succeeded) return;
  for (const Changed& c : changed) copy_bytes(context, c.host, Device{}, c.device, context.device, c.bytes);
  context.synchronize();
}

const std::shared_ptr<DeviceCache::Group>& PyContext::group() const {
  if (!group_) group_ = DeviceCache::make_group();
  return group_;
}

InterruptScope::InterruptScope(PyContext& py) {
  std::atomic<bool>* none = nullptr;
  if (getpid() != gettid() || !g_cancel.compare_exchange_strong(none, &py.cancelled_)) return;
  active_ = true;
  struct sigaction action {};
  action.sa_handler = &on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, nullptr, &g_previous);
  sigaction(SIGINT, &action, nullptr);
}

InterruptScope::~InterruptScope() {
  if (!active_) return;
  sigaction(SIGINT, &g_previous, nullptr);
  g_cancel = nullptr;
}

}  // namespace scw::python
