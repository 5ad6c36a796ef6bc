// SPDX-License-Identifier: MIT
// expect: has a variable that is initialised when the program starts
#include <cstdlib>

int const started = std::rand();
int entry_sse2();
int entry_sse2() {
    return started;
}
