// Files that the build puts into the library.
#pragma once

#include <string_view>

namespace scw::pipeline {

struct ReportAssets {
  std::string_view html, css, js, plotly;  // plotly: empty if the build had none
};
const ReportAssets& report_assets();

}  // namespace scw::pipeline
