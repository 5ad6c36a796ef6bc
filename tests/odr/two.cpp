// SPDX-License-Identifier: MIT
#include <tessera/tessera.hpp>

std::size_t size_seen_by_two();

std::size_t size_seen_by_two() {
    return sizeof(tessera::cpu<>);
}
