# SPDX-License-Identifier: MIT
# cmake -D nm= -P check_symbols.cmake -- OBJECT.ARCH.o...: an object shows one symbol, make_unit for its instruction set.
foreach(i RANGE 5 ${CMAKE_ARGC})
    set(object "${CMAKE_ARGV${i}}")
    if(object MATCHES "\\.([a-z0-9_]+)\\.o$")
        set(arch ${CMAKE_MATCH_1})
        execute_process(COMMAND ${nm} --defined-only --extern-only --format=posix ${object} OUTPUT_VARIABLE symbols
                        COMMAND_ERROR_IS_FATAL ANY)
        string(REGEX REPLACE "___asan_globals_registered [^\n]*\n" "" symbols "${symbols}")
        if(NOT symbols MATCHES "^_Z9make_unitI[^ \n]*[0-9]${arch}E[^ \n]* T [^\n]*\n$")
            message(FATAL_ERROR "${object} shows\n${symbols}")
        endif()
        message(STATUS "${arch}: ${symbols}")
    endif()
endforeach()
