# SPDX-License-Identifier: MIT
# After run.cmake: what no program can say of itself. `binary` is the Release build; a Debug build is made beside it, with make
# where there is make, because Ninja is what the others use.

# check_objects(<folder>): the objects of the instruction sets share no symbol, and each has its own instructions.
function(check_objects folder)
    file(GLOB objects ${folder}/tessera_dispatch/consumer/*.o)
    list(LENGTH objects count)
    if(NOT count EQUAL 8)
        message(FATAL_ERROR "${count} objects, expected 5 of kernels and 3 of formats: ${objects}")
    endif()
    set(all "")
    foreach(object IN LISTS objects)
        string(REGEX MATCH "\\.([a-z0-9_]+)\\.o$" match ${object})
        set(arch ${CMAKE_MATCH_1})
        execute_process(COMMAND nm --defined-only --extern-only --format=posix ${object} OUTPUT_VARIABLE symbols
                        COMMAND_ERROR_IS_FATAL ANY)
        string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
        foreach(symbol IN LISTS symbols)
            if(NOT symbol MATCHES "^_Z[^ ]*(make_kernels|add_dense|add_q4_k)I[^ ]*[0-9]${arch}E[^ ]* T ")
                message(FATAL_ERROR "${object} shows ${symbol}, which is no entry for ${arch}")
            endif()
        endforeach()
        list(APPEND all ${symbols})
        check_instructions(${object} ${arch})
        check_kernels(${object} ${arch})
    endforeach()
    # 5 of kernels, 3 of each format
    list(TRANSFORM all REPLACE " .*" "")
    list(REMOVE_DUPLICATES all)
    list(LENGTH all count)
    if(NOT count EQUAL 11)
        message(FATAL_ERROR "${count} entries, expected 11: ${all}")
    endif()
endfunction()

function(check_instructions object arch)
    # name, what shows it, and the sets that have it. Instructions that begin with v are VEX or EVEX coded.
    set(wide "avx512|avx512_vnni|avx512_amx")
    execute_process(COMMAND objdump -d --no-show-raw-insn ${object} OUTPUT_FILE ${object}.disassembly COMMAND_ERROR_IS_FATAL ANY)
    foreach(row IN ITEMS "VEX@\tv[a-z]@avx2|${wide}" "shlx or mulx@\t(shlx|mulx|andn) @avx2|${wide}" "ymm@%ymm@avx2|${wide}"
                         "zmm@%zmm@${wide}" "masks@%k[0-7]@${wide}" "vpdpbusd@\tvpdpbusd @avx512_vnni|avx512_amx"
                         "tiles@\ttdp@avx512_amx")
        string(REPLACE "@" ";" row "${row}")
        list(GET row 0 what)
        list(GET row 1 expression)
        list(GET row 2 owners)
        execute_process(COMMAND grep -qE -- ${expression} ${object}.disassembly RESULT_VARIABLE missing)
        if(NOT missing AND NOT arch MATCHES "^(${owners})$")
            message(FATAL_ERROR "${object} has ${what}")
        elseif(missing AND arch MATCHES "^(${owners})$" AND NOT what MATCHES "shlx|masks") # a compiler may do without
            message(FATAL_ERROR "${object} has no ${what}")
        endif()
    endforeach()
endfunction()

# The instruction that `describe` names (main.cpp compares) is in the kernel that runs, on registers of the set's width.
function(check_kernels object arch)
    foreach(row IN ITEMS "sse2@product_panels_int8|dot_strips@pmaddwd .*%xmm" "avx2@product_panels_int8|dot_strips@vpmaddubsw .*%ymm"
                         "avx512@product_panels_int8|dot_strips@vpmaddubsw .*%zmm"
                         "avx512_vnni|avx512_amx@product_panels_int8|dot_strips@vpdpbusd .*%zmm"
                         "avx512_amx@product_panels_amx|stream_panels_amx@tdpbssd .*%tmm")
        string(REPLACE "@" ";" row "${row}")
        list(GET row 0 owners)
        list(GET row 1 kernels)
        list(GET row 2 expression)
        if(arch MATCHES "^(${owners})$")
            execute_process(COMMAND awk "/^[0-9a-f]+ </ { inside = /(${kernels})/ && /[0-9]${arch}E/ } inside" ${object}.disassembly
                            COMMAND grep -cE -- ${expression} OUTPUT_VARIABLE lines RESULTS_VARIABLE codes)
            if(NOT codes STREQUAL "0;0")
                message(FATAL_ERROR "${object}: no ${expression} in ${kernels}")
            endif()
        endif()
    endforeach()
endfunction()

check_objects(${binary})

# The environment lowers the choice, and is checked.
foreach(arch IN ITEMS sse2 avx2)
    execute_process(COMMAND ${CMAKE_COMMAND} -E env TESSERA_ARCH=${arch} ${binary}/consumer ${arch} RESULT_VARIABLE code
                    OUTPUT_VARIABLE output)
    if(code AND NOT output MATCHES "but this processor runs")
        message(FATAL_ERROR "TESSERA_ARCH=${arch}: ${output}")
    endif()
endforeach()
execute_process(COMMAND ${CMAKE_COMMAND} -E env TESSERA_ARCH=avx3 ${binary}/consumer OUTPUT_VARIABLE output)
if(NOT output MATCHES "^tessera: dispatch: TESSERA_ARCH is 'avx3', expected one of ")
    message(FATAL_ERROR "TESSERA_ARCH=avx3: ${output}")
endif()

# Older processors, emulated: an instruction that they do not have ends the program.
find_program(qemu qemu-x86_64)
function(run_emulated program)
    if(qemu AND CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        foreach(pair IN ITEMS "qemu64@sse2" "Nehalem@sse2" "Haswell@(avx2|sse2)") # before 7.2 qemu has no AVX2
            string(REGEX MATCH "^([^@]*)@(.*)$" pair ${pair})
            set(processor ${CMAKE_MATCH_1})
            set(expected ${CMAKE_MATCH_2})
            execute_process(COMMAND ${qemu} -cpu ${processor} ${program} OUTPUT_VARIABLE output ERROR_QUIET RESULT_VARIABLE code)
            if(code OR NOT output MATCHES "^${expected}, of .*\n0 wrong\n$")
                message(FATAL_ERROR "${program} on ${processor}: ${code}\n${output}")
            endif()
        endforeach()
    endif()
endfunction()
run_emulated(${binary}/consumer)

# Without optimisation no inline function is inlined: most symbols that could collide are there.
find_program(make make)
if(make)
    set(generator "Unix Makefiles")
endif()
file(REMOVE_RECURSE ${binary}-debug)
execute_process(COMMAND ${CMAKE_COMMAND} -S ${source} -B ${binary}-debug -G ${generator} -D CMAKE_BUILD_TYPE=Debug
                        -D CMAKE_CXX_FLAGS_DEBUG=-O0 -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_PREFIX_PATH=${prefix}
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${binary}-debug COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${binary}-debug/consumer COMMAND_ERROR_IS_FATAL ANY)
run_emulated(${binary}-debug/consumer)
check_objects(${binary}-debug)
