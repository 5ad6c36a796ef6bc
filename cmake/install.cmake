# SPDX-License-Identifier: MIT
# Install rules: headers, the CMake package (arch-independent: nothing is compiled) and a pkg-config file.
include(CMakePackageConfigHelpers)

set(tessera_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/tessera)

# One export file a component: the package reads a component's file only where its dependency was found.
install(TARGETS tessera EXPORT tessera FILE_SET HEADERS)
install(EXPORT tessera FILE tessera-targets.cmake NAMESPACE tessera:: DESTINATION ${tessera_cmake_dir})
foreach(component openmp eigen)
    install(TARGETS tessera_${component} EXPORT tessera_${component})
    install(EXPORT tessera_${component} FILE tessera-${component}-targets.cmake NAMESPACE tessera::
            DESTINATION ${tessera_cmake_dir})
endforeach()

configure_package_config_file(cmake/tessera-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/tessera-config.cmake
                              INSTALL_DESTINATION ${tessera_cmake_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/tessera-config-version.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tessera-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/tessera-config-version.cmake
              cmake/tessera_xsimd.cmake
              cmake/tessera_dispatch.cmake
              cmake/tessera_formats.cmake
              cmake/tessera_localise.cmake
        DESTINATION ${tessera_cmake_dir})

# The prefix is written relative to the .pc file, so that an installed tree can be moved.
file(RELATIVE_PATH tessera_pc_prefix /${CMAKE_INSTALL_DATADIR}/pkgconfig /)
configure_file(cmake/tessera.pc.in ${CMAKE_CURRENT_BINARY_DIR}/tessera.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tessera.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
