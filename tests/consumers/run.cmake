# SPDX-License-Identifier: MIT
# Configures, builds and runs the consumer project `source` in the new folder `binary`. What its check.cmake says is checked, too.
file(REMOVE_RECURSE ${binary})
set(ENV{PKG_CONFIG_PATH} ${prefix}/share/pkgconfig:$ENV{PKG_CONFIG_PATH})
execute_process(COMMAND ${CMAKE_COMMAND} -S ${source} -B ${binary} -G ${generator} -D CMAKE_BUILD_TYPE=Release
                        -D CMAKE_CXX_COMPILER=${compiler} -D CMAKE_PREFIX_PATH=${prefix} -D TESSERA_SOURCE=${tessera}
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${binary} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${binary}/consumer COMMAND_ERROR_IS_FATAL ANY)
include(${source}/check.cmake OPTIONAL)
