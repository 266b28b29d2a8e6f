#include "io/hdf5_range.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "test_folder.hpp"

namespace scw::io::h5 {
namespace {

namespace fs = std::filesystem;

class RangeReaderTest : public ::testing::Test {
 protected:
  TestFolder folder_;
  std::string path_ = (folder_ / "x.h5").string();
};

enum class Pack { contiguous, chunked, gzip, shuffled, lzf };
constexpr Pack kPacks[] = {Pack::contiguous, Pack::chunked, Pack::gzip, Pack::shuffled, Pack::lzf};

struct Layout {
  std::vector<hsize_t> dims, chunk;
  Pack pack = Pack::contiguous;
  bool new_format = false;  ///< lists chunks in a way that only the library knows
  bool big_endian = false;
};

template <class T>
std::vector<T> numbers(std::size_t n) {
  std::vector<T> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<T>((i * 2654435761U >> 7) % 120 + (i % 3 == 0 ? 0 : i % 7));
  return v;
}

template <class T>
void write(const std::string& path, const Layout& l, const std::vector<T>& values, std::size_t rows_written) {
  const Session session;
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  if (l.new_format) H5Pset_libver_bounds(access.get(), H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const Id file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()));
  const Id plist(H5Pcreate(H5P_DATASET_CREATE));
  if (l.pack != Pack::contiguous) {
    H5Pset_chunk(plist.get(), static_cast<int>(l.dims.size()), l.chunk.data());
    const T seven = 7;
    H5Pset_fill_value(plist.get(), native_type<T>(), &seven);
  }
  if (l.pack == Pack::shuffled) H5Pset_shuffle(plist.get());
  if (l.pack == Pack::gzip || l.pack == Pack::shuffled) H5Pset_deflate(plist.get(), 3);
  if (l.pack == Pack::lzf) H5Pset_filter(plist.get(), kLzf, H5Z_FLAG_OPTIONAL, 0, nullptr);
  Id type(H5Tcopy(native_type<T>()));
  if (l.big_endian) H5Tset_order(type.get(), H5T_ORDER_BE);
  const Id space(H5Screate_simple(static_cast<int>(l.dims.size()), l.dims.data(), nullptr));
  const Id d(H5Dcreate2(file.get(), "x", type.get(), space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT));
  ASSERT_TRUE(static_cast<bool>(d));
  std::vector<hsize_t> start(l.dims.size(), 0), count(l.dims);
  count[0] = rows_written;
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  const Id memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr));
  ASSERT_GE(H5Dwrite(d.get(), native_type<T>(), memory.get(), space.get(), H5P_DEFAULT, values.data()), 0);
}

struct Opened {
  std::shared_ptr<const Source> source;
  std::unique_ptr<RangeReader> reader;
};
Opened open(const std::string& path) {
  const Session session;
  Opened o;
  o.source = Source::open("test", path);
  o.reader = std::make_unique<RangeReader>(dataset(child(root(*o.source), "x")));
  return o;
}

template <class T, class Out>
void check(const std::string& path, const Layout& l, bool expect_library) {
  SCOPED_TRACE(static_cast<int>(l.pack));
  SCOPED_TRACE(l.dims.size());
  const std::size_t rows = l.dims[0], cols = l.dims.size() > 1 ? l.dims[1] : 1;
  auto values = numbers<T>(rows * cols);
  // The end is never written and holds the fill value.
  const std::size_t written =
      l.pack == Pack::contiguous ? rows : rows - std::min<std::size_t>(rows / 4, l.chunk[0] * 2);
  write(path, l, values, written);
  std::fill(values.begin() + static_cast<std::ptrdiff_t>(written * cols), values.end(), T{7});
  const Opened o = open(path);
  EXPECT_EQ(o.reader->needs_library(), expect_library);
  ASSERT_EQ(o.reader->n_rows(), static_cast<std::int64_t>(rows));
  ASSERT_EQ(o.reader->n_cols(), static_cast<std::int64_t>(cols));
  std::mt19937 random(1);
  for (int turn = 0; turn < 40; ++turn) {
    std::size_t first = 0, n = rows;
    if (turn > 0) {
      first = random() % (rows + 1);
      n = random() % (rows - first + 1);
      if (turn % 3 == 0 && !l.chunk.empty()) first = first / l.chunk[0] * l.chunk[0];
      if (turn % 4 == 0) n = std::min<std::size_t>(n, 5);
    }
    std::vector<Out> out(n * cols + 2, Out{99});
    ASSERT_TRUE(o.reader->read(Context::cpu(turn % 3 + 1), static_cast<std::int64_t>(first),
                               static_cast<std::int64_t>(n), out.data() + 1));
    EXPECT_EQ(out.front(), Out{99});
    EXPECT_EQ(out.back(), Out{99});
    for (std::size_t i = 0; i < n * cols; ++i)
      ASSERT_EQ(out[i + 1], static_cast<Out>(values[first * cols + i])) << first << " " << n << " " << i;
  }
}

template <class T>
void check_all(const std::string& path) {
  for (const Pack pack : kPacks) {
    check<T, T>(path, {{1003}, {100}, pack}, false);
    check<T, T>(path, {{97, 23}, {10, 8}, pack}, false);
    check<T, T>(path, {{50, 30}, {7, 30}, pack}, false);
    check<T, double>(path, {{1003}, {100}, pack}, false);
    check<T, float>(path, {{64, 20}, {16, 20}, pack}, false);
  }
}

TEST_F(RangeReaderTest, Floats) { check_all<float>(path_); }
TEST_F(RangeReaderTest, Doubles) { check_all<double>(path_); }
TEST_F(RangeReaderTest, Int32) {
  check_all<std::int32_t>(path_);
  check<std::int32_t, std::int64_t>(path_, {{1003}, {100}, Pack::gzip}, false);
}
TEST_F(RangeReaderTest, Int64) {
  check_all<std::int64_t>(path_);
  check<std::int64_t, std::int32_t>(path_, {{1003}, {100}, Pack::shuffled}, false);
}
TEST_F(RangeReaderTest, SmallIntegers) {
  for (const Pack pack : kPacks) {
    check<std::uint8_t, std::uint8_t>(path_, {{1003}, {100}, pack}, false);
    check<std::int8_t, std::int32_t>(path_, {{1003}, {64}, pack}, false);
    check<std::int16_t, float>(path_, {{1003}, {64}, pack}, false);
    check<std::uint16_t, std::int64_t>(path_, {{55, 9}, {8, 4}, pack}, false);
    check<std::uint32_t, std::int32_t>(path_, {{1003}, {64}, pack}, false);
    check<std::uint64_t, double>(path_, {{1003}, {64}, pack}, false);
  }
}

TEST_F(RangeReaderTest, ThroughTheLibrary) {
  for (const Pack pack : kPacks) {
    Layout l{{1003}, {100}, pack};
    l.big_endian = true;
    check<float, float>(path_, l, true);
    check<std::int64_t, std::int32_t>(path_, l, true);
    l = {{97, 23}, {10, 8}, pack};
    l.new_format = true;
    check<float, double>(path_, l, pack != Pack::contiguous);
    check<std::int32_t, std::int32_t>(path_, l, pack != Pack::contiguous);
  }
}

TEST_F(RangeReaderTest, ValuesThatDoNotFitAreReported) {
  const Context ctx = Context::cpu(1);
  const auto one = [&]<class T, class Out>(T value, Out) {
    std::vector<T> values(1000, T{1});
    values[777] = value;
    write(path_, {{1000}, {100}, Pack::gzip}, values, values.size());
    const Opened o = open(path_);
    std::vector<Out> out(1000);
    EXPECT_TRUE(o.reader->read(ctx, 0, 777, out.data()));
    EXPECT_TRUE(o.reader->read(ctx, 778, 222, out.data()));
    return o.reader->read(ctx, 700, 100, out.data());
  };
  EXPECT_FALSE(one(std::int64_t{1} << 31, std::int32_t{}));
  EXPECT_FALSE(one(-(std::int64_t{1} << 31) - 1, std::int32_t{}));
  EXPECT_TRUE(one(-(std::int64_t{1} << 31), std::int32_t{}));
  EXPECT_TRUE(one((std::int64_t{1} << 31) - 1, std::int32_t{}));
  EXPECT_FALSE(one(std::uint32_t{1} << 31, std::int32_t{}));
  EXPECT_FALSE(one(std::uint64_t{1} << 63, std::int64_t{}));
  EXPECT_FALSE(one(std::uint64_t{1} << 40, std::int32_t{}));
  EXPECT_TRUE(one(std::uint32_t{4000000000U}, std::int64_t{}));
  EXPECT_FALSE(one(std::int8_t{-1}, std::uint8_t{}));
  EXPECT_FALSE(one(std::int32_t{-1}, std::uint8_t{}));
  EXPECT_FALSE(one(std::int32_t{256}, std::uint8_t{}));
  EXPECT_TRUE(one(std::int32_t{255}, std::uint8_t{}));
  EXPECT_TRUE(one(std::int32_t{1 << 24}, float{}));
  EXPECT_TRUE(one(-std::int32_t{1 << 24}, float{}));
  EXPECT_FALSE(one(std::int32_t{(1 << 24) + 1}, float{}));
  EXPECT_FALSE(one(-std::int32_t{(1 << 24) + 1}, float{}));
  EXPECT_FALSE(one(std::uint32_t{1U << 31}, float{}));
  EXPECT_TRUE(one(std::int32_t{INT32_MIN}, double{}));
  EXPECT_FALSE(one((std::int64_t{1} << 53) + 1, double{}));
  EXPECT_FALSE(one(std::uint64_t{1} << 63, double{}));
}

TEST_F(RangeReaderTest, SeveralThreadsAtOnce) {
  const auto values = numbers<std::int32_t>(200000);
  write(path_, {{200000}, {999}, Pack::shuffled}, values, values.size());
  const Opened o = open(path_);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::vector<float> out(30000);
      for (int k = 0; k < 30; ++k) {
        const auto first = static_cast<std::int64_t>(random() % 170000);
        o.reader->read(Context::cpu(2), first, 30000, out.data());
        for (std::int64_t i = 0; i < 30000; ++i)
          wrong[static_cast<std::size_t>(t)] +=
              out[static_cast<std::size_t>(i)] != static_cast<float>(values[static_cast<std::size_t>(first + i)]);
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST_F(RangeReaderTest, NeedsNoLibrary) {
  const auto values = numbers<float>(5000);
  write(path_, {{5000}, {100}, Pack::gzip}, values, values.size());
  const Opened o = open(path_);
  std::vector<float> out(5000);
  {
    const Session held;  // by this thread; the other one must not wait for it
    std::thread([&] { o.reader->read(Context::cpu(1), 0, 5000, out.data()); }).join();
  }
  EXPECT_EQ(out, values);
}

TEST_F(RangeReaderTest, AFileThatShrinksIsAnError) {
  for (const Pack pack : kPacks) {
    const auto values = numbers<double>(100000);
    write(path_, {{100000}, {1000}, pack}, values, values.size());
    const Opened o = open(path_);
    fs::resize_file(path_, fs::file_size(path_) / 2);
    std::vector<double> out(100000);
    EXPECT_THROW(o.reader->read(Context::cpu(2), 0, 100000, out.data()), IoError);
  }
}

TEST_F(RangeReaderTest, DamagedChunksAreErrors) {
  const auto values = numbers<double>(100000);
  for (const Pack pack : {Pack::gzip, Pack::shuffled, Pack::lzf}) {
    write(path_, {{100000}, {1000}, pack}, values, values.size());
    const auto bytes = static_cast<std::streamoff>(fs::file_size(path_));
    {
      std::fstream f(path_, std::ios::in | std::ios::out | std::ios::binary);
      f.seekp(bytes / 2);
      f.write(std::string(4096, '\xff').data(), 4096);
    }
    const Opened o = open(path_);
    std::vector<double> out(100000);
    EXPECT_THROW(o.reader->read(Context::cpu(2), 0, 100000, out.data()), FormatError);
    EXPECT_TRUE(o.reader->read(Context::cpu(2), 0, 1000, out.data()));
  }
}

TEST_F(RangeReaderTest, Empty) {
  write<float>(path_, {{0}, {100}, Pack::gzip}, {}, 0);
  const Opened o = open(path_);
  float out = 3;
  EXPECT_TRUE(o.reader->read(Context::cpu(1), 0, 0, &out));
  EXPECT_EQ(out, 3);
}

}  // namespace
}  // namespace scw::io::h5
