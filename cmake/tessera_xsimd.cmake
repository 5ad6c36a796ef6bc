# SPDX-License-Identifier: MIT
# tessera::xsimd, the include directory of xsimd alone: the package of 8.1 (Debian 12, Ubuntu 24.04) names xtl as a link
# library whether it is there or not, and every link would then look for libxtl.
if(NOT TARGET tessera::xsimd)
    find_package(xsimd QUIET)
    if(TARGET xsimd)
        get_target_property(tessera_xsimd_include xsimd INTERFACE_INCLUDE_DIRECTORIES)
    else()
        find_path(tessera_xsimd_include xsimd/xsimd.hpp)
    endif()
    if(tessera_xsimd_include)
        add_library(tessera::xsimd INTERFACE IMPORTED GLOBAL)
        set_property(TARGET tessera::xsimd PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${tessera_xsimd_include}")
    endif()
endif()
