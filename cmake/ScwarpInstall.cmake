# find_package(scwarp) for outside programs.
include(CMakePackageConfigHelpers)
set_target_properties(scwarp PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS scwarp EXPORT scwarpTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET scwarp_cuda)
  install(TARGETS scwarp_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ ${PROJECT_BINARY_DIR}/generated/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp")
install(EXPORT scwarpTargets NAMESPACE scwarp:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/scwarp)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/scwarpConfig.cmake.in scwarpConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/scwarp)
write_basic_package_version_file(scwarpConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/scwarpConfig.cmake ${PROJECT_BINARY_DIR}/scwarpConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/scwarp)
