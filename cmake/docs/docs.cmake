# SPDX-License-Identifier: MIT
# The target `docs`: the reference, by doxygen, in docs/html of the build folder. Where doxygen is not found there is no target.
find_package(Doxygen QUIET)
find_package(Python3 QUIET COMPONENTS Interpreter)
if(DOXYGEN_FOUND AND Python3_FOUND)
    set(tessera_docs_output ${CMAKE_CURRENT_BINARY_DIR}/docs)
    file(MAKE_DIRECTORY ${tessera_docs_output})
    configure_file(cmake/docs/Doxyfile.in ${tessera_docs_output}/Doxyfile @ONLY)
    add_custom_target(docs COMMAND Doxygen::doxygen ${tessera_docs_output}/Doxyfile
                      COMMENT "Reference: ${tessera_docs_output}/html/index.html" VERBATIM)
endif()
