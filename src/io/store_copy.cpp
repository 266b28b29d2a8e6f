#include "io/store_copy.hpp"

#include <cstring>

namespace scw::io {
namespace {

constexpr int kDeepest = 64;

std::string look(const Context& ctx, const Node& node, int depth) {
  if (depth > kDeepest) return fmt::format("{} is nested too deep", node.path);
  if (node.is_group) {
    for (const auto& link : node.links()) {
      if (!link.hard) return fmt::format("{}/{} leads out of the file", node.path, link.name);
      if (auto why = look(ctx, *node.child(link.name), depth + 1); !why.empty()) return why;
    }
    return {};
  }
  const auto a = node.array();
  switch (a->type.kind) {
    case Kind::integer:
    case Kind::boolean:
      return {};
    case Kind::floating:
      if (a->type.size <= 8) return {};
      break;
    case Kind::string:
      if (a->has_readable_texts()) return {};
      break;
    case Kind::compound:
      // Fields may be of types that records() does not know, such as arrays; it says so before it reads anything.
      if (a->is_null || a->records(ctx)) return {};
      return fmt::format("{} holds records that only its own format has", node.path);
    default:
      if (a->is_null || ((a->type.name == "complex64" || a->type.name == "complex128") && !a->dims.empty())) return {};
  }
  return fmt::format("{} is of type {}", node.path, a->type.name);
}

void scalar(const Context& ctx, GroupWriter& to, const std::string& name, const StoredArray& a,
            const Attributes& attributes) {
  const auto write = [&]<class T>(const char* dtype, T v) {
    to.numbers(
        name, dtype, {}, false, [v](std::int64_t, std::int64_t, std::byte* out) { std::memcpy(out, &v, sizeof v); },
        attributes);
  };
  if (a.type.kind == Kind::boolean) {
    std::uint8_t v = 0;
    a.read(ctx, 0, 1, &v);
    write("bool", v);
  } else if (a.type.kind == Kind::integer) {
    std::int64_t v = 0;
    if (!a.read(ctx, 0, 1, &v)) a.fail<NotSupported>("is above 2^63 and cannot be carried to another format");
    write("int64", v);
  } else {
    double v = 0;
    a.read(ctx, 0, 1, &v);
    write("float64", v);
  }
}

}  // namespace

std::string cannot_transcode(const Context& ctx, const Node& node) { return look(ctx, node, 0); }

void transcode(const Context& ctx, GroupWriter& to, const std::string& name, const Node& node) {
  ctx.check_cancelled(node.store->op());
  std::vector<std::string> dropped;
  const Attributes attributes = node.attributes(dropped);
  for (const auto& d : dropped)
    ctx.warn(fmt::format("'{}', object '{}': attribute '{}' has no form in the other format and is left out",
                         node.store->name(), node.path, d));
  if (node.is_group) {
    const auto g = to.group(name, attributes);
    for (const auto& link : node.links()) transcode(ctx, *g, link.name, *node.child(link.name));
    return;
  }
  const auto a = node.array();
  if (a->is_null) return to.null(name, attributes);
  if (a->type.kind == Kind::string) return to.texts(name, a->dims, a->texts(ctx), attributes);
  if (a->type.kind == Kind::compound) {
    if (const auto records = a->records(ctx)) return to.records(name, *records, attributes);
  } else if (a->dims.empty()) {
    return scalar(ctx, to, name, *a, attributes);
  }
  const auto rows = a->opaque(ctx);
  if (!rows || rows->dtype.empty())
    a->fail<NotSupported>("is of type {}, which cannot be carried to another format", a->type.name);
  to.opaque(name, *rows, attributes);
}

}  // namespace scw::io
