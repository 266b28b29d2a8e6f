# libscwarp_cuda.so: opened by libscwarp at run time, never linked against.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90 CACHE STRING "CUDA architectures (the release preset builds all)")
endif()
set(scwarp_oldest_arch 70)  # warps whose threads have their own program counters: __match_any_sync and the like
foreach(arch IN LISTS CMAKE_CUDA_ARCHITECTURES)
  if(arch MATCHES "^([0-9]+)" AND CMAKE_MATCH_1 LESS scwarp_oldest_arch)
    message(FATAL_ERROR "scwarp runs on GPUs of compute capability 7.0 and later "
      "(CMAKE_CUDA_ARCHITECTURES has ${arch}, expected ${scwarp_oldest_arch} or more)")
  endif()
endforeach()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

if(CMAKE_CUDA_ARCHITECTURES MATCHES "^all" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
  # Code for one GPU is looked up in the plug-in and unpacked once a process: a fifth of the size for a dozen of them.
  set(scwarp_cuda_options --compress-mode=size)
endif()
if(CMAKE_CUDA_ARCHITECTURES MATCHES "^all" AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13)
  # "all" of these toolkits begins below what scwarp runs on: all that this one knows from there on, and PTX of the last.
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "compute_[0-9]+[\r\n]" known "${known}")
  list(TRANSFORM known REPLACE "[^0-9]" "")
  if(CMAKE_CUDA_ARCHITECTURES STREQUAL "all-major")
    list(FILTER known INCLUDE REGEX "0$")
  endif()
  list(SORT known COMPARE NATURAL)
  list(REMOVE_DUPLICATES known)
  set(CMAKE_CUDA_ARCHITECTURES "")
  foreach(arch IN LISTS known)
    if(arch GREATER_EQUAL scwarp_oldest_arch)
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch}-real)
      set(newest ${arch})
    endif()
  endforeach()
  list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)
  message(STATUS "CUDA architectures: ${CMAKE_CUDA_ARCHITECTURES}")
  list(APPEND scwarp_cuda_options -Wno-deprecated-gpu-targets)  # 12.8 and 12.9 announce that 13 has no Volta
endif()

file(GLOB_RECURSE scwarp_cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/*.cu)
add_library(scwarp_cuda MODULE ${scwarp_cuda_sources})
target_include_directories(scwarp_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(scwarp_cuda PRIVATE scwarp scwarp_settings CUDA::cudart_static CUDA::cublas)
target_compile_options(scwarp_cuda PRIVATE ${scwarp_cuda_options})
# Beside libscwarp.so, in the build tree as when installed; finds it and a toolkit from PyPI or the system.
set_target_properties(scwarp_cuda PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY $<TARGET_FILE_DIR:scwarp>
  CUDA_RUNTIME_LIBRARY Static
  BUILD_RPATH "$ORIGIN")
