# The report's page and Plotly.js go into libscwarp (src/pipeline/report/assets.cpp).
# Plotly.js comes from the `plotly` package of PyPI, never from this repository: give its path as SCWARP_PLOTLY_JS, or have
# the package installed in the Python that CMake finds, or let this file fetch it into the build folder.
set(SCWARP_PLOTLY_VERSION 7.1.0 CACHE STRING "Version of the PyPI package plotly that is fetched")
set(SCWARP_PLOTLY_JS "" CACHE FILEPATH "plotly.min.js for the report; empty: look for it, then fetch it")
option(SCWARP_FETCH_PLOTLY "Fetch plotly from PyPI when it is not found" ON)

set(scwarp_plotly_js "${SCWARP_PLOTLY_JS}")
if(NOT scwarp_plotly_js)
  set(scwarp_plotly_python python3)
  foreach(candidate Python_EXECUTABLE Python3_EXECUTABLE)
    if(${candidate})
      set(scwarp_plotly_python ${${candidate}})
    endif()
  endforeach()
  set(scwarp_fetched ${PROJECT_BINARY_DIR}/plotly/plotly/package_data/plotly.min.js)
  if(NOT EXISTS ${scwarp_fetched})
    execute_process(
      COMMAND ${scwarp_plotly_python} -c "import importlib.util as u, pathlib
s = u.find_spec('plotly')
print(pathlib.Path(s.origin).parent / 'package_data' / 'plotly.min.js' if s else '')"
      OUTPUT_VARIABLE scwarp_plotly_js OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  if(NOT scwarp_plotly_js OR NOT EXISTS "${scwarp_plotly_js}")
    if(SCWARP_FETCH_PLOTLY AND NOT EXISTS ${scwarp_fetched})
      message(STATUS "Fetching Plotly.js: plotly ${SCWARP_PLOTLY_VERSION} from PyPI")
      execute_process(
        COMMAND ${scwarp_plotly_python} -m pip install --quiet --disable-pip-version-check --no-deps
          --target ${PROJECT_BINARY_DIR}/plotly plotly==${SCWARP_PLOTLY_VERSION}
        OUTPUT_QUIET ERROR_VARIABLE scwarp_pip_error)
    endif()
    set(scwarp_plotly_js ${scwarp_fetched})
  endif()
endif()

set(scwarp_report_dir ${PROJECT_SOURCE_DIR}/src/pipeline/report)
set(scwarp_report_files ${scwarp_report_dir}/template.html ${scwarp_report_dir}/style.css ${scwarp_report_dir}/app.js)
set(scwarp_report_definitions "SCW_REPORT_DIR=\"${scwarp_report_dir}\"")
if(EXISTS "${scwarp_plotly_js}")
  message(STATUS "Plotly.js for the report: ${scwarp_plotly_js}")
  list(APPEND scwarp_report_files "${scwarp_plotly_js}")
  list(APPEND scwarp_report_definitions "SCW_PLOTLY_JS=\"${scwarp_plotly_js}\"")
else()
  message(WARNING "Plotly.js not found (${scwarp_pip_error}): this build writes no reports. "
    "Install the Python package plotly or set SCWARP_PLOTLY_JS.")
endif()
set_source_files_properties(${scwarp_report_dir}/assets.cpp PROPERTIES
  COMPILE_DEFINITIONS "${scwarp_report_definitions}"
  OBJECT_DEPENDS "${scwarp_report_files}")
