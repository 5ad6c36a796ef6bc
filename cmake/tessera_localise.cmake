# SPDX-License-Identifier: MIT
# cmake -D linker= -D objcopy= -D nm= -D unit= -D arch= -D output= -P tessera_localise.cmake -- OBJECT...
#
# The objects as one, in which only the unit's entries for `arch` can be seen from outside: see tessera_dispatch.cmake.
set(objects "")
set(is_object FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
    if(is_object)
        list(APPEND objects "${CMAKE_ARGV${i}}")
    elseif(CMAKE_ARGV${i} STREQUAL "--")
        set(is_object TRUE)
    endif()
endforeach()

set(joined ${output}.joined)
file(REMOVE ${output} ${joined})
execute_process(COMMAND ${linker} -r --force-group-allocation -o ${joined} ${objects} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${nm} --defined-only --format=posix ${joined} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE ";" "" symbols "${symbols}")

# A variable that is initialised when the program starts would run this object's instructions on every processor.
string(REGEX MATCH "(^|\n)_GLOBAL__(sub_)?I_[^0][^ ]* t" initialiser "${symbols}")
if(initialiser)
    message(FATAL_ERROR "tessera_add_dispatch: ${unit} for ${arch} has a variable that is initialised when the program starts, "
                        "before an instruction set is chosen: make it constexpr or constinit, or a static variable of a function "
                        "(<iostream> has one in older compilers)")
endif()

# Strong definitions whose names contain the instruction set, as a word: 4avx2E in a mangled name, _avx2 in a C one.
string(REGEX MATCHALL "[^ \n]+ [TDBR] " strong "${symbols}")
set(entries "")
set(others "")
foreach(symbol IN LISTS strong)
    string(REGEX REPLACE " .*" "" symbol "${symbol}")
    if(symbol MATCHES "(^|[^A-Za-z])${arch}([^a-z0-9_]|$)")
        string(APPEND entries "${symbol}\n")
    else()
        string(APPEND others "  ${symbol}\n")
    endif()
endforeach()
if(NOT entries)
    message(FATAL_ERROR "tessera_add_dispatch: ${unit} defines no entry for ${arch}: a function that is neither inline, nor static, "
                        "nor an instantiation of a template, and whose name contains the instruction set, such as\n"
                        "  template <> kernels make_kernels<tessera::native_arch>() { ... }\n"
                        "(tessera::native_arch is another one if the target has -m flags of its own.) It defines\n${others}")
endif()
# clang's address sanitizer registers the variables of the whole program once, which this flag remembers.
if(symbols MATCHES "(^|\n)___asan_globals_registered ")
    string(APPEND entries "___asan_globals_registered\n")
endif()
file(WRITE ${output}.entries "${entries}")
execute_process(COMMAND ${objcopy} --keep-global-symbols=${output}.entries ${joined} ${output} COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE ${joined})
