// SPDX-License-Identifier: MIT
// The one main of all doctest programs: doctest's implementation is compiled once.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
