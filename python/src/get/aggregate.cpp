#include "scwarp/get/aggregate.hpp"

#include "bind.hpp"

namespace scw::python {

SCW_PYTHON(get, aggregate) {
  m.def(
      "aggregate",
      [](PyContext& py, nb::handle x, nb::handle codes, int n_groups, const std::vector<std::string>& functions,
         int dof) {
        const auto blocks = blocks_arg(py, x);
        const auto groups = host_vector_arg<std::int32_t>(codes, "codes");
        get::AggregateOptions o;
        o.dof = dof;
        for (const std::string& f : functions) {
          bool* const wanted = f == "sum"             ? &o.sum
                               : f == "mean"          ? &o.mean
                               : f == "var"           ? &o.var
                               : f == "sq_sum"        ? &o.sq_sum
                               : f == "count_nonzero" ? &o.count_nonzero
                               : f == "median"        ? &o.median
                                                      : nullptr;
          if (wanted == nullptr) throw InvalidArgument("get.aggregate: unknown func '" + f + "'");
          *wanted = true;
        }
        auto r = run(py, [&](const Context& ctx) { return get::aggregate(ctx, *blocks, groups, n_groups, o); });
        nb::dict out;
        if (o.sum) out["sum"] = to_array(std::move(r.sum));
        if (o.mean) out["mean"] = to_array(std::move(r.mean));
        if (o.var) out["var"] = to_array(std::move(r.var));
        if (o.sq_sum) out["sq_sum"] = to_array(std::move(r.sq_sum));
        if (o.count_nonzero) out["count_nonzero"] = to_array(std::move(r.count_nonzero));
        if (o.median) out["median"] = to_array(std::move(r.median));
        return out;
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("codes"), nb::arg("n_groups"), nb::arg("functions"), nb::arg("dof"),
      "Returns {function: groups x columns}.");
}

}  // namespace scw::python
