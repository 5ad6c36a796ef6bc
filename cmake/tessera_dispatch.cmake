# SPDX-License-Identifier: MIT
# tessera_add_dispatch(<target> UNIT <source>... ARCHS sse2 avx2 avx512 avx512_vnni ... [NAME <name>])
#
# Compiles the sources of a unit once for each instruction set, with the target's own flags and that set's; the program takes
# the best one when it runs (include/tessera/dispatch/dispatch.hpp shows both sides):
#
#     #include <tessera_dispatch/NAME.hpp>                 // tessera_dispatch::NAME is the tessera::arch_list of the unit
#
# NAME is the name of the first source without its extension. Instruction sets of other processors than the one compiled for
# are left out, so one list may name neon64 as well. The target itself should be compiled for the oldest processor: no -march.
#
# What a unit shares with the rest of the program are its entries: functions that are neither inline, nor static, nor
# instantiations of templates, and whose names contain the instruction set, such as a specialisation for
# tessera::native_arch. Everything else becomes local to each instruction set's object (ld -r --force-group-allocation,
# objcopy --keep-global-symbols): otherwise the linker would take one copy of each inline function, std's too, from whichever
# object comes first, and the program would run AVX code where it must not. Exceptions pass the border: libstdc++ compares
# their types by name. What inline functions keep in static variables exists once in each object.
#
# Needs ELF and GNU binutils 2.29 or newer. Call it in the folder of the target.

# The flags of an instruction set: exactly what `supports` in dispatch/cpu_probe.hpp asks the processor for. Tiles come with one
# family of processors, so code with them is tuned for it: without, g++ 12 makes products with many rows a tenth slower.
function(tessera_arch_flags arch result)
    set(sse2 -march=x86-64)
    set(avx2 -march=x86-64-v3)
    set(avx2_vnni -march=x86-64-v3 -mavxvnni)
    set(avx512 -march=x86-64-v4)
    set(avx512_vnni -march=x86-64-v4 -mavx512vnni)
    set(avx512_amx -march=x86-64-v4 -mtune=sapphirerapids -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)
    set(neon64 -march=armv8-a)
    set(neon64_dotprod -march=armv8.2-a+dotprod)
    set(neon64_i8mm -march=armv8.2-a+dotprod+i8mm)
    if(NOT arch MATCHES "^(sse2|avx2|avx2_vnni|avx512|avx512_vnni|avx512_amx|neon64|neon64_dotprod|neon64_i8mm)$")
        message(FATAL_ERROR "tessera_add_dispatch: '${arch}' is no instruction set, expected some of sse2 avx2 avx2_vnni avx512 "
                            "avx512_vnni avx512_amx neon64 neon64_dotprod neon64_i8mm")
    endif()
    set(${result} "${${arch}}" PARENT_SCOPE)
endfunction()

# The linker that can dissolve section groups: CMake's, else GNU's.
function(tessera_find_group_linker)
    if(TESSERA_GROUP_LINKER)
        return()
    endif()
    find_program(TESSERA_BFD_LINKER NAMES ${CMAKE_CXX_COMPILER_TARGET}-ld.bfd ${CMAKE_LIBRARY_ARCHITECTURE}-ld.bfd ld.bfd)
    mark_as_advanced(TESSERA_BFD_LINKER)
    foreach(linker IN ITEMS "${CMAKE_LINKER}" "${TESSERA_BFD_LINKER}")
        if(linker)
            execute_process(COMMAND ${linker} --help OUTPUT_VARIABLE help ERROR_QUIET)
            if(help MATCHES "--force-group-allocation")
                set(TESSERA_GROUP_LINKER ${linker} CACHE INTERNAL "ld that knows --force-group-allocation")
                return()
            endif()
        endif()
    endforeach()
    message(FATAL_ERROR "tessera_add_dispatch: no linker here knows --force-group-allocation (GNU binutils 2.29 or newer does); "
                        "looked at '${CMAKE_LINKER}' and ld.bfd")
endfunction()

function(tessera_add_dispatch target)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "NAME" "UNIT;ARCHS")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_UNIT OR NOT arg_ARCHS)
        message(FATAL_ERROR "tessera_add_dispatch(<target> UNIT <source>... ARCHS <instruction set>... [NAME <name>])")
    endif()
    get_target_property(home ${target} SOURCE_DIR)
    if(NOT home STREQUAL CMAKE_CURRENT_SOURCE_DIR)
        message(FATAL_ERROR "tessera_add_dispatch: call it where ${target} is made, in ${home}")
    endif()
    if(NOT CMAKE_EXECUTABLE_FORMAT STREQUAL "ELF" OR NOT CMAKE_OBJCOPY OR NOT CMAKE_NM)
        message(FATAL_ERROR "tessera_add_dispatch needs ELF, objcopy and nm; elsewhere compile for one instruction set")
    endif()
    if(CMAKE_CROSS_CONFIGS)
        message(FATAL_ERROR "tessera_add_dispatch: an object serves one configuration at a time; configure without "
                            "CMAKE_CROSS_CONFIGS")
    endif()
    tessera_find_group_linker()
    if(NOT arg_NAME)
        list(GET arg_UNIT 0 first)
        cmake_path(GET first STEM LAST_ONLY arg_NAME)
    endif()
    string(MAKE_C_IDENTIFIER "${arg_NAME}" name)

    set(archs "")
    foreach(arch IN LISTS arg_ARCHS)
        tessera_arch_flags(${arch} flags)
        if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
            set(family "^neon64")
        else()
            set(family "^(sse|avx)")
        endif()
        if(arch MATCHES ${family})
            list(APPEND archs ${arch})
        endif()
    endforeach()
    list(REMOVE_DUPLICATES archs)
    if(NOT archs)
        message(FATAL_ERROR "tessera_add_dispatch: none of ${arg_ARCHS} is of this processor, ${CMAKE_SYSTEM_PROCESSOR}")
    endif()

    set(folder ${CMAKE_CURRENT_BINARY_DIR}/tessera_dispatch/${target})
    list(TRANSFORM archs PREPEND "tessera::" OUTPUT_VARIABLE tags)
    list(JOIN tags ", " tags)
    file(CONFIGURE OUTPUT ${folder}/tessera_dispatch/${arg_NAME}.hpp @ONLY CONTENT [[
#pragma once

#include <tessera/dispatch/dispatch.hpp>

namespace tessera_dispatch {

/// The instruction sets for which the unit is compiled.
using @name@ = tessera::arch_list<@tags@>;

} // namespace tessera_dispatch
]])
    target_include_directories(${target} PRIVATE ${folder})
    target_link_libraries(${target} PRIVATE tessera::tessera)
    foreach(arch IN LISTS archs)
        tessera_add_dispatch_object(${target} ${arg_NAME} ${arch} "${arg_UNIT}" ${folder}/${arg_NAME}.${arch}.o)
    endforeach()
endfunction()

# One instruction set's object of a unit, made part of the target.
function(tessera_add_dispatch_object target name arch sources object)
    set(script ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/tessera_localise.cmake)
    set(compiled tessera_dispatch_${target}_${name}_${arch})
    add_library(${compiled} OBJECT EXCLUDE_FROM_ALL ${sources})
    # The target's usage requirements, all of them; our flags come last, as flags of the sources.
    foreach(property COMPILE_OPTIONS COMPILE_DEFINITIONS COMPILE_FEATURES INCLUDE_DIRECTORIES)
        set_property(TARGET ${compiled} PROPERTY ${property} "$<TARGET_PROPERTY:${target},${property}>")
    endforeach()
    target_link_libraries(${compiled} PRIVATE "$<TARGET_PROPERTY:${target},LINK_LIBRARIES>")
    foreach(property CXX_STANDARD CXX_STANDARD_REQUIRED CXX_EXTENSIONS POSITION_INDEPENDENT_CODE)
        get_target_property(value ${target} ${property})
        if(NOT value MATCHES "-NOTFOUND$")
            set_target_properties(${compiled} PROPERTIES ${property} "${value}")
        endif()
    endforeach()
    get_target_property(type ${target} TYPE)
    if(type MATCHES "^(SHARED|MODULE)_LIBRARY$")
        set_target_properties(${compiled} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    endif()
    tessera_arch_flags(${arch} flags)
    list(APPEND flags -fno-lto)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        list(APPEND flags -fno-gnu-unique)
    endif()
    set_target_properties(${compiled} PROPERTIES TESSERA_ARCH_FLAGS "${flags}" INTERPROCEDURAL_OPTIMIZATION OFF UNITY_BUILD OFF)
    foreach(source IN LISTS sources)
        get_property(done SOURCE ${source} PROPERTY TESSERA_IS_UNIT)
        if(NOT done)
            set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS "$<TARGET_PROPERTY:TESSERA_ARCH_FLAGS>")
            set_property(SOURCE ${source} PROPERTY TESSERA_IS_UNIT TRUE)
        endif()
    endforeach()

    add_custom_command(
        OUTPUT ${object}
        COMMAND ${CMAKE_COMMAND} -D linker=${TESSERA_GROUP_LINKER} -D objcopy=${CMAKE_OBJCOPY} -D nm=${CMAKE_NM} -D unit=${name}
                -D arch=${arch} -D output=${object} -P ${script} -- $<TARGET_OBJECTS:${compiled}>
        DEPENDS $<TARGET_OBJECTS:${compiled}> ${script}
        COMMENT "Localising ${name} for ${arch}"
        COMMAND_EXPAND_LISTS VERBATIM)
    set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
    target_sources(${target} PRIVATE ${object})
    add_dependencies(${target} ${compiled})
endfunction()
