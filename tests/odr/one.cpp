// SPDX-License-Identifier: MIT
#include <tessera/tessera.hpp>

std::size_t size_seen_by_two();

/// Both units see the same types: the size of a policy is one number.
int main() {
    return sizeof(tessera::cpu<>) == size_seen_by_two() ? 0 : 1;
}
