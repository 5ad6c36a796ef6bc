# SPDX-License-Identifier: MIT
# tessera_add_formats(<target> FORMATS q4_k q6_k ... [POLICY <type>] [PREPARATION <type>])
#
# Compiles the products of GGUF block formats that <target> meets at run time: one source file a format, in parallel, with the
# target's own flags. The target may then
#
#     #include <tessera_formats.hpp>
#     auto const formats = tessera_formats::all();                      // gguf::operator_formats<POLICY, PREPARATION>
#     auto const w = formats.place(exec, file.tensor("..."));           // an any_operator<POLICY>
#
# and compiles no kernel itself. POLICY is tessera::cpu<> by default, PREPARATION (of x) tessera::int8_per_group<32>.
function(tessera_add_formats target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "POLICY;PREPARATION" FORMATS)
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_FORMATS)
        message(FATAL_ERROR "tessera_add_formats(<target> FORMATS <format>... [POLICY <type>] [PREPARATION <type>])")
    endif()
    if(NOT arg_POLICY)
        set(arg_POLICY "tessera::cpu<>")
    endif()
    if(NOT arg_PREPARATION)
        set(arg_PREPARATION "tessera::int8_per_group<32>")
    endif()
    string(MAKE_C_IDENTIFIER "${target}" name)
    set(folder ${CMAKE_CURRENT_BINARY_DIR}/tessera_formats/${name})
    set(sources ${folder}/dense.cpp)
    set(declarations "")
    set(calls "")
    foreach(format IN LISTS arg_FORMATS)
        string(APPEND declarations "void add_${format}(formats&);\n")
        string(APPEND calls "    add_${format}(f);\n")
        file(CONFIGURE OUTPUT ${folder}/${format}.cpp @ONLY CONTENT [[
#include "tessera_formats.hpp"

void tessera_formats_@name@::add_@format@(formats& f) { f.add<tessera::@format@>(); }
]])
        list(APPEND sources ${folder}/${format}.cpp)
    endforeach()
    file(CONFIGURE OUTPUT ${folder}/tessera_formats.hpp @ONLY CONTENT [[
#pragma once

#include <tessera/dispatch/gguf_operator.hpp>

namespace tessera_formats_@name@ {

using formats = tessera::gguf::operator_formats<@arg_POLICY@, @arg_PREPARATION@>;
formats all();
@declarations@
} // namespace tessera_formats_@name@

namespace tessera_formats = tessera_formats_@name@;
]])
    file(CONFIGURE OUTPUT ${folder}/dense.cpp @ONLY CONTENT [[
#include "tessera_formats.hpp"

tessera_formats_@name@::formats tessera_formats_@name@::all() {
    formats f;
@calls@    return f;
}
]])
    target_sources(${target} PRIVATE ${sources})
    target_include_directories(${target} PRIVATE ${folder})
    target_link_libraries(${target} PRIVATE tessera::tessera)
endfunction()
