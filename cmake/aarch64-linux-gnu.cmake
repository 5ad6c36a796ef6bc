# SPDX-License-Identifier: MIT
# Toolchain: AArch64 Linux by Debian's cross compiler, its programs run by qemu-user (apt-get install g++-aarch64-linux-gnu
# qemu-user). The presets `aarch64` and `aarch64-baseline` use it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CXX_FLAGS_INIT -Wno-psabi) # notes that g++ 9 passed std::pair<double, double> otherwise
set(sysroot /usr/aarch64-linux-gnu)
if(NOT DEFINED CMAKE_CROSSCOMPILING_EMULATOR)
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${sysroot})
endif()

# xsimd and doctest are headers for every processor, but /usr/include also holds this machine's C library: a folder with
# links to the two is all of it that the cross compiler sees.
set(shared_headers ${CMAKE_BINARY_DIR}/shared_headers)
foreach(package xsimd doctest)
    foreach(prefix /usr/local /usr)
        if(EXISTS ${prefix}/include/${package} AND NOT EXISTS ${shared_headers}/include/${package})
            file(MAKE_DIRECTORY ${shared_headers}/include)
            file(CREATE_LINK ${prefix}/include/${package} ${shared_headers}/include/${package} SYMBOLIC)
        endif()
    endforeach()
endforeach()
set(CMAKE_FIND_ROOT_PATH ${sysroot} ${shared_headers})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
