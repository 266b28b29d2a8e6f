// The report: one self-contained HTML file (no network) about a finished analysis. Draws with Plotly.js, which is
// embedded into the library at build time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "scwarp/core/config.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/core/views.hpp"

namespace scw::pipeline {

/// A number per cell or a label per cell to colour the embedding by.
struct ReportColouring {
  std::string name;                     ///< shown in the menu
  std::vector<std::string> categories;  ///< labels; empty: a number per cell
  std::vector<std::int32_t> codes;      ///< [n_cells] index into categories, -1: none
  std::vector<float> values;            ///< [n_cells] numbers (stored with 16 bits)
};

/// Expression of one gene (stored with 8 bits, so 1 part in 255 of the maximum).
struct ReportGene {
  std::string name;
  std::vector<float> values;  ///< [n_cells]
};

struct ReportThreshold {
  double value = 0;
  bool minimum = true;  ///< cells below it were removed; false: cells above it
};

/// One QC metric before filtering.
struct ReportHistogram {
  std::string name;
  double low = 0, high = 0;          ///< the range that `counts` divides evenly
  std::vector<std::int64_t> counts;  ///< cells per bin
  std::vector<ReportThreshold> thresholds;
  std::string note;  ///< "12 of 2 700 cells removed"
};

struct ReportVariableGenes {
  std::string x_label, y_label;
  std::vector<std::string> names;  ///< [n_genes], as x, y, selected
  std::vector<float> x, y;
  std::vector<std::uint8_t> selected;
  bool log_x = false, log_y = false;
};

struct ReportMarker {
  std::string gene;
  double score = 0, log_fold_change = 0, p_value = 1, adjusted_p_value = 1;
  double fraction_in = -1, fraction_out = -1;  ///< -1: not known
};

/// Mean expression and expressing fraction, group x gene.
struct ReportDotPlot {
  std::vector<std::string> groups, genes;
  std::vector<std::int32_t> group_of_gene;  ///< whose marker it is
  std::vector<float> mean, fraction;        ///< [groups x genes], row-major
};

struct ReportStep {
  std::string name, summary;
  double seconds = 0;
  std::int64_t peak_bytes = 0;
};

struct ReportData {
  std::string title, subtitle;
  std::vector<std::pair<std::string, std::string>> facts;  ///< big numbers at the top: label, value
  std::int64_t n_cells = 0;
  std::string embedding_name = "UMAP";
  std::vector<float> x, y;              ///< [n_cells]; empty: no embedding
  std::vector<std::string> cell_names;  ///< shown on hover; left out of files of more than 200 000 cells
  std::vector<ReportColouring> colourings;
  std::vector<ReportGene> genes;
  std::vector<ReportHistogram> qc;
  ReportVariableGenes variable_genes;
  std::vector<double> pca_variance_ratio;
  std::string cluster_key;  ///< name of the colouring that sizes and markers refer to
  std::vector<std::pair<std::string, std::vector<ReportMarker>>> markers;  ///< per group, best first
  ReportDotPlot dot_plot;
  std::vector<ReportStep> steps;
  std::vector<std::pair<std::string, std::string>> parameters, versions;
};

/// How many genes an embedding of n_cells cells can be coloured by within 48 MB: at least 8, at most 200.
SCW_API std::int64_t report_gene_budget(std::int64_t n_cells);

/// The HTML text. Throws ShapeMismatch when a per-cell vector has another length than n_cells; NotSupported when the
/// library was built without Plotly.js.
SCW_API std::string render_report(const Context& ctx, const ReportData& data);

/// Renders and writes: `path` holds the old file or the whole new one, flushed to disk. Throws IoError, also for what
/// is there and is no regular file or read-only; a link stays one.
SCW_API void write_report(const Context& ctx, const ReportData& data, const std::string& path);

/// Version of the embedded Plotly.js; empty without.
SCW_API std::string plotly_version();

}  // namespace scw::pipeline
