#include "io/codecs.hpp"

#include <blosc.h>
#include <libdeflate.h>
#include <lz4.h>
#include <zstd.h>

#include <climits>

namespace scw::io {

struct Codecs::State {
  libdeflate_decompressor* deflate = nullptr;
  ZSTD_DCtx* zstd = nullptr;
};

Codecs::Codecs() : state_(std::make_unique<State>()) {}
Codecs::~Codecs() {
  if (state_->deflate != nullptr) libdeflate_free_decompressor(state_->deflate);
  ZSTD_freeDCtx(state_->zstd);
}

bool Codecs::zlib(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  if (state_->deflate == nullptr) state_->deflate = libdeflate_alloc_decompressor();
  std::size_t got = 0;
  return state_->deflate != nullptr &&
         libdeflate_zlib_decompress(state_->deflate, in, n, out, bytes, &got) == LIBDEFLATE_SUCCESS && got == bytes;
}

bool Codecs::gzip(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  if (state_->deflate == nullptr) state_->deflate = libdeflate_alloc_decompressor();
  std::size_t got = 0;
  return state_->deflate != nullptr &&
         libdeflate_gzip_decompress(state_->deflate, in, n, out, bytes, &got) == LIBDEFLATE_SUCCESS && got == bytes;
}

bool Codecs::zstd(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  if (state_->zstd == nullptr) state_->zstd = ZSTD_createDCtx();
  return state_->zstd != nullptr && ZSTD_decompressDCtx(state_->zstd, out, bytes, in, n) == bytes;
}

bool lz4_block(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  return n <= INT_MAX && bytes <= INT_MAX &&
         LZ4_decompress_safe(reinterpret_cast<const char*>(in), reinterpret_cast<char*>(out), static_cast<int>(n),
                             static_cast<int>(bytes)) == static_cast<int>(bytes);
}

bool blosc(const std::byte* in, std::size_t n, std::byte* out, std::size_t bytes) {
  if (n < BLOSC_MIN_HEADER_LENGTH || bytes > BLOSC_MAX_BUFFERSIZE) return false;
  std::size_t declared = 0;
  if (blosc_cbuffer_validate(in, n, &declared) < 0 || declared != bytes) return false;
  return blosc_decompress_ctx(in, out, bytes, 1) == static_cast<int>(bytes);
}

}  // namespace scw::io
