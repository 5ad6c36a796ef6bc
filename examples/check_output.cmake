# SPDX-License-Identifier: MIT
# Runs PROGRAM and compares what it prints with the comment that ends its SOURCE: "// Output:" and a line of comment each.
#     cmake -D PROGRAM=... -D SOURCE=... -P check_output.cmake
file(READ ${SOURCE} text)
string(FIND "${text}" "\n// Output:\n" begin REVERSE)
if(begin EQUAL -1)
    message(FATAL_ERROR "${SOURCE} does not end with a comment that begins with the line \"// Output:\"")
endif()
math(EXPR begin "${begin} + 12") # behind the line break of that line, less one
string(SUBSTRING "${text}" ${begin} -1 expected)
string(REGEX REPLACE "\n// ?" "\n" expected "\n${expected}")

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed RESULT_VARIABLE code)
message(NOTICE "${printed}")
if(NOT code EQUAL 0)
    message(FATAL_ERROR "${PROGRAM} ended with ${code}")
endif()
if(NOT "\n${printed}" STREQUAL "${expected}")
    message(NOTICE "The comment says:${expected}")
    message(FATAL_ERROR "output and comment differ: ${SOURCE}")
endif()
