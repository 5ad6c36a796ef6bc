# SPDX-License-Identifier: MIT
# Options of this repository's own tests, examples and benchmarks. Nothing here reaches a consumer.

get_property(multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(PROJECT_IS_TOP_LEVEL AND NOT multi_config AND NOT CMAKE_BUILD_TYPE)
    message(STATUS "tessera: no build type given, taking Release")
    set_property(CACHE CMAKE_BUILD_TYPE PROPERTY VALUE Release)
    set_property(CACHE CMAKE_BUILD_TYPE PROPERTY STRINGS Debug Release RelWithDebInfo MinSizeRel)
endif()

set(tessera_warnings -Wall -Wextra -Wconversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 reports its own AVX-512 intrinsics (`__m512 __Y = __Y;`, GCC bug 105593) and the growth of std::string and
    # std::vector (bug 105651 and its like) wherever they are inlined. 13 does not; CI compiles with clang as well.
    list(APPEND tessera_warnings -Wno-uninitialized -Wno-maybe-uninitialized -Wno-restrict -Wno-array-bounds
         -Wno-stringop-overflow -Wno-stringop-overread)
endif()
set(tessera_machine "")
if(TESSERA_MARCH)
    set(tessera_machine -march=${TESSERA_MARCH})
elseif(TESSERA_NATIVE)
    set(tessera_machine -march=native)
    # clang 19 warns about its own idea of some machines (AVX10), whatever it compiles.
    include(CheckCXXCompilerFlag)
    set(CMAKE_REQUIRED_FLAGS -Werror)
    check_cxx_compiler_flag(-march=native TESSERA_NATIVE_IS_SILENT)
    unset(CMAKE_REQUIRED_FLAGS)
    if(NOT TESSERA_NATIVE_IS_SILENT)
        list(APPEND tessera_machine -Wno-invalid-feature-combination)
    endif()
endif()

add_library(tessera_own INTERFACE)
target_compile_options(tessera_own INTERFACE ${tessera_warnings} ${tessera_machine})
target_link_libraries(tessera_own INTERFACE tessera::tessera)
if(TESSERA_OPENMP AND TARGET tessera::openmp)
    target_link_libraries(tessera_own INTERFACE tessera::openmp)
endif()
if(TARGET tessera::eigen)
    target_link_libraries(tessera_own INTERFACE tessera::eigen)
endif()

# tessera_add_program(<target> <sources...>): an executable of this repository, standard C++20 without extensions.
function(tessera_add_program target)
    add_executable(${target} ${ARGN})
    target_link_libraries(${target} PRIVATE tessera_own)
    set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

# tessera_link_generate_model(<target>): the model of examples/generate, compiled once for its program and for the tests of it.
function(tessera_link_generate_model target)
    if(NOT TARGET tessera_generate_model)
        add_library(tessera_generate_model OBJECT ${PROJECT_SOURCE_DIR}/examples/generate/model.cpp
                    ${PROJECT_SOURCE_DIR}/examples/generate/formats.cpp)
        target_link_libraries(tessera_generate_model PRIVATE tessera_own)
        set_target_properties(tessera_generate_model PROPERTIES CXX_EXTENSIONS OFF)
    endif()
    target_link_libraries(${target} PRIVATE tessera_generate_model)
endfunction()
