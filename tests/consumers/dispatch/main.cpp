// SPDX-License-Identifier: MIT
#include "kernels.hpp"
#include <tessera_dispatch/kernels.hpp>
#include <cstdio>
int main() {
    auto const make = []<class Arch>(Arch) { return make_kernels<Arch>(); };
    auto const best = ts::dispatch(tessera_dispatch::kernels{}, make);
    std::printf("%s; processor: %s\n", describe(best).c_str(), ts::describe_processor().c_str());
    for (auto const& s : best->words("a b a")) std::printf("%s\n", s.c_str());
    try { best->words(""); } catch (ts::shape_error const& e) { std::printf("caught %s\n", e.what()); }
}
