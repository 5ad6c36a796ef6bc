// SPDX-License-Identifier: MIT
// Every instruction set of the unit that this machine runs gives the same, and its errors are caught here.

#include "unit.hpp"

#include <tessera/core/error.hpp>

#include <tessera_dispatch/dispatch_unit.hpp>

#include <cstring>

namespace ts = tessera;

namespace {

template <class Arch>
bool is_right() {
    if (!ts::supports<Arch>()) return true;
    auto const chosen = ts::dispatch(tessera_dispatch::dispatch_unit{}, []<class A>(A) { return make_unit<A>(); }, Arch::name);
    if (chosen.arch() != Arch::name || std::strcmp(chosen->arch, Arch::name) != 0) return false;
    if (chosen->sum({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}) != 153) return false;
    if (chosen->words("b a b") != std::vector<std::string>{"a 1", "b 2"}) return false;
    try {
        chosen->words(" ");
    } catch (ts::shape_error const& e) {
        return std::strcmp(e.what(), "tessera: words: words of the text is 0, expected at least 1") == 0;
    }
    return false;
}

template <class... Arch>
bool are_right(ts::arch_list<Arch...>) {
    return (is_right<Arch>() && ...);
}

} // namespace

int main() {
    return are_right(tessera_dispatch::dispatch_unit{}) ? 0 : 1;
}
