# SPDX-License-Identifier: MIT
# tessera_add_formats(<target> FORMATS q4_k q6_k ... [ARCHS sse2 avx2 avx512_vnni ...] [POLICY <type>] [PREPARATION <type>]
#                     [BOTH_DIRECTIONS])
#
# Compiles the products of GGUF block formats that <target> meets at run time: one source file a format, in parallel, with the
# target's own flags. The target may then
#
#     #include <tessera_formats.hpp>
#     auto const formats = tessera_formats::all();                      // gguf::operator_formats<POLICY, PREPARATION>
#     auto const w = formats.place(exec, file.tensor("..."));           // an any_operator<POLICY>
#
# and compiles no kernel itself. POLICY is tessera::cpu<> by default, PREPARATION (of x) tessera::int8_per_group<32>. With
# BOTH_DIRECTIONS the products by transposes are compiled too, for gradients. Once a target.
#
# With ARCHS every file is compiled for each of these instruction sets (tessera_add_dispatch), the list tessera_formats::archs;
# all() takes the best that the machine runs, all(limit) the best up to `limit`. POLICY is then tessera::cpu<tessera::dispatched>,
# or with a parallel backend of yours tessera::cpu<tessera::dispatched, ...>. `describe` says which set an operator runs.
function(tessera_add_formats target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "BOTH_DIRECTIONS" "POLICY;PREPARATION" "FORMATS;ARCHS")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_FORMATS)
        message(FATAL_ERROR "tessera_add_formats(<target> FORMATS <format>... [ARCHS <instruction set>...] [POLICY <type>] "
                            "[PREPARATION <type>] [BOTH_DIRECTIONS])")
    endif()
    get_target_property(has_formats ${target} TESSERA_FORMATS)
    if(has_formats)
        message(FATAL_ERROR "tessera_add_formats: ${target} has formats already (${has_formats}), expected one call that names all")
    endif()
    set_target_properties(${target} PROPERTIES TESSERA_FORMATS "${arg_FORMATS}")
    set(direction forward_direction)
    if(arg_BOTH_DIRECTIONS)
        set(direction both_directions)
    endif()
    if(NOT arg_POLICY AND arg_ARCHS)
        set(arg_POLICY "tessera::cpu<tessera::dispatched>")
    elseif(NOT arg_POLICY)
        set(arg_POLICY "tessera::cpu<>")
    endif()
    if(NOT arg_PREPARATION)
        set(arg_PREPARATION "tessera::int8_per_group<32>")
    endif()
    string(MAKE_C_IDENTIFIER "${target}" name)
    set(folder ${CMAKE_CURRENT_BINARY_DIR}/tessera_formats/${target})

    # With ARCHS the functions that add formats are templates of the instruction set, each specialised once for it.
    if(arg_ARCHS)
        list(PREPEND arg_FORMATS dense) # float32, fp16 and bf16, which the constructor adds otherwise
        set(all "all(std::string_view limit = {})")
        set(include "#include <tessera_dispatch/tessera_formats.hpp>\n\n#include <string_view>\n")
        set(archs "using archs = tessera_dispatch::tessera_formats;\n")
        set(template "template <class Arch>\n")
        set(define "template <>\n")
        set(native "<tessera::native_arch>")
    else()
        set(include "")
        set(archs "")
        set(all "all()")
        set(template "")
        set(define "")
        set(native "")
    endif()
    set(sources "")
    set(declarations "")
    set(calls "")
    foreach(format IN LISTS arg_FORMATS)
        if(format STREQUAL "dense")
            set(add "add_dense()")
        else()
            set(add "add<tessera::${format}>()")
        endif()
        string(APPEND declarations "${template}void add_${format}(formats&);\n")
        if(arg_ARCHS)
            string(APPEND calls "        add_${format}<Arch>(f);\n")
        else()
            string(APPEND calls "    add_${format}(f);\n")
        endif()
        file(CONFIGURE OUTPUT ${folder}/${format}.cpp @ONLY CONTENT [[
#include "tessera_formats.hpp"

namespace tessera_formats_@name@ {

@define@void add_@format@@native@(formats& f) {
    f.@add@;
}

} // namespace tessera_formats_@name@
]])
        list(APPEND sources ${folder}/${format}.cpp)
    endforeach()
    file(CONFIGURE OUTPUT ${folder}/tessera_formats.hpp @ONLY CONTENT [[
#pragma once

#include <tessera/dispatch/gguf_operator.hpp>
@include@
namespace tessera_formats_@name@ {

@archs@using formats = tessera::gguf::operator_formats<@arg_POLICY@, @arg_PREPARATION@, tessera::@direction@>;
formats @all@;
@declarations@
} // namespace tessera_formats_@name@

namespace tessera_formats = tessera_formats_@name@;
]])
    if(arg_ARCHS)
        file(CONFIGURE OUTPUT ${folder}/all.cpp @ONLY CONTENT [[
#include "tessera_formats.hpp"

tessera_formats_@name@::formats tessera_formats_@name@::all(std::string_view limit) {
    auto const make = []<class Arch>(Arch) {
        formats f;
@calls@        return f;
    };
    return *tessera::dispatch(archs{}, make, limit);
}
]])
    else()
        file(CONFIGURE OUTPUT ${folder}/all.cpp @ONLY CONTENT [[
#include "tessera_formats.hpp"

tessera_formats_@name@::formats tessera_formats_@name@::all() {
    formats f;
@calls@    return f;
}
]])
    endif()
    target_include_directories(${target} PRIVATE ${folder})
    target_link_libraries(${target} PRIVATE tessera::tessera)
    if(arg_ARCHS)
        target_sources(${target} PRIVATE ${folder}/all.cpp)
        tessera_add_dispatch(${target} UNIT ${sources} ARCHS ${arg_ARCHS} NAME tessera_formats)
    else()
        target_sources(${target} PRIVATE ${folder}/all.cpp ${sources})
    endif()
endfunction()
