# SPDX-License-Identifier: MIT
# cmake -D source= -D compiler= -D linker= -D objcopy= -D nm= -D script= -P check_refused.cmake: the script refuses the source's
# object, and says the sentences of its `// expect:` lines.
cmake_path(GET source STEM name)
set(object ${name}.refused.o)
execute_process(COMMAND ${compiler} -O1 -c ${source} -o ${object} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} -D linker=${linker} -D objcopy=${objcopy} -D nm=${nm} -D unit=${name} -D arch=sse2
                        -D output=${name}.refused.sse2.o -P ${script} -- ${object}
                RESULT_VARIABLE code ERROR_VARIABLE message)
string(REGEX REPLACE "[ \n]+" " " message "${message}")
file(STRINGS ${source} expected REGEX "^// expect: ")
foreach(line IN LISTS expected)
    string(REPLACE "// expect: " "" line "${line}")
    string(FIND "${message}" "${line}" at)
    if(code EQUAL 0 OR at LESS 0)
        message(FATAL_ERROR "${source}: not said: ${line}\n${code} ${message}")
    endif()
endforeach()
if(EXISTS ${name}.refused.sse2.o)
    message(FATAL_ERROR "${source}: an object was made")
endif()
