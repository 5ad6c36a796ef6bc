// SPDX-License-Identifier: MIT
// The unit, compiled once for each instruction set: tessera::native_arch is that set.

#include "kernels.hpp"

#include <tessera/tessera.hpp>

#include <map>
#include <sstream>

namespace ts = tessera;

namespace {

std::string product(ts::matrix_view<float const> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    auto const q = ts::quantize<ts::int4_g32>(w);
    auto const layer = ts::place(exec, ts::linear{q, ts::int8_per_group<32>{}});
    ts::apply(exec, layer, x, y);
    return ts::describe(exec, layer, x.extent(0));
}

std::vector<std::string> words(std::string const& text) {
    std::map<std::string, int> count;
    std::istringstream in{text};
    for (std::string word; in >> word;) ++count[word];
    std::vector<std::string> result;
    for (auto const& [word, n] : count) result.push_back(word + " " + std::to_string(n));
    if (result.empty()) throw ts::format_error{"no words"};
    return result;
}

} // namespace

template <>
kernels make_kernels<ts::native_arch>() {
    return {&product, &words};
}
