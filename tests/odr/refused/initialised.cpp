// SPDX-License-Identifier: MIT
// expect: has a variable that is initialised when the program starts
#include <cstdlib>

int const started = std::atoi("1");
int entry_sse2();
int entry_sse2() {
    return started;
}
