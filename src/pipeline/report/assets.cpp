#include "pipeline/report/assets.hpp"

// The assembler reads the files: the compiler never sees their megabytes. Paths come from cmake/ScwarpReport.cmake.
#define SCW_EMBED(symbol, path)                                                 \
  asm(".pushsection .rodata\n"                                                  \
      ".balign 16\n" #symbol                                                    \
      "_begin:\n"                                                               \
      ".incbin \"" path "\"\n" #symbol                                          \
      "_end:\n"                                                                 \
      ".byte 0\n"                                                               \
      ".popsection\n");                                                         \
  extern "C" __attribute__((visibility("hidden"))) const char symbol##_begin[]; \
  extern "C" __attribute__((visibility("hidden"))) const char symbol##_end[]

SCW_EMBED(scw_report_html, SCW_REPORT_DIR "/template.html");
SCW_EMBED(scw_report_css, SCW_REPORT_DIR "/style.css");
SCW_EMBED(scw_report_js, SCW_REPORT_DIR "/app.js");
#ifdef SCW_PLOTLY_JS
SCW_EMBED(scw_plotly_js, SCW_PLOTLY_JS);
#endif

namespace scw::pipeline {

const ReportAssets& report_assets() {
  const auto text = [](const char* begin, const char* end) {
    return std::string_view(begin, static_cast<std::size_t>(end - begin));
  };
  static const ReportAssets assets{text(scw_report_html_begin, scw_report_html_end),
                                   text(scw_report_css_begin, scw_report_css_end),
                                   text(scw_report_js_begin, scw_report_js_end),
#ifdef SCW_PLOTLY_JS
                                   text(scw_plotly_js_begin, scw_plotly_js_end)
#else
                                   {}
#endif
  };
  return assets;
}

}  // namespace scw::pipeline
