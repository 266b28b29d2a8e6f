# libscwarp_cuda.so: opened by libscwarp at run time, never linked against.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 90 CACHE STRING "CUDA architectures (the release preset builds all)")
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

file(GLOB_RECURSE scwarp_cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/*.cu)
add_library(scwarp_cuda MODULE ${scwarp_cuda_sources})
target_include_directories(scwarp_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(scwarp_cuda PRIVATE scwarp scwarp_settings CUDA::cudart_static CUDA::cublas)
if(CMAKE_CUDA_ARCHITECTURES MATCHES "^all" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
  # Code for one GPU is looked up in the plug-in and unpacked once a process: a fifth of the size for a dozen of them.
  target_compile_options(scwarp_cuda PRIVATE --compress-mode=size)
endif()
# Beside libscwarp.so, in the build tree as when installed; finds it and a toolkit from PyPI or the system.
set_target_properties(scwarp_cuda PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY $<TARGET_FILE_DIR:scwarp>
  CUDA_RUNTIME_LIBRARY Static
  BUILD_RPATH "$ORIGIN")
