# Compiler settings of all our targets, and the version header.
include(GNUInstallDirs)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

# No contraction to fused multiply-add: tier A results must have the same bits in every vector width and on the GPU.
# Where a kernel wants FMA it says so (std::fma, BLAS).
add_library(scwarp_settings INTERFACE)
target_compile_options(scwarp_settings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Werror -ffp-contract=off -fvisibility=hidden
    -fvisibility-inlines-hidden>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O3 -fno-math-errno -fno-trapping-math>
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -Xcompiler=-Wall,-Wextra,-fvisibility=hidden,-ffp-contract=off -fmad=false -lineinfo
    --extended-lambda --expt-relaxed-constexpr -Werror=all-warnings -Xcudafe=--diag_suppress=esa_on_defaulted_function_ignored>)
target_compile_features(scwarp_settings INTERFACE cxx_std_20)
if(SCWARP_SANITIZE)
  target_compile_options(scwarp_settings INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SCWARP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1>)
  target_link_options(scwarp_settings INTERFACE -fsanitize=${SCWARP_SANITIZE})
endif()

function(scwarp_generate_version target)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/version.hpp.in ${PROJECT_BINARY_DIR}/generated/scwarp/version.hpp @ONLY)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>)
endfunction()
