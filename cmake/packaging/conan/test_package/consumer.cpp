// SPDX-License-Identifier: MIT
#include <tessera/tessera.hpp>

#include <cstdio>

namespace ts = tessera;

/// A matrix of ones times a row of ones, in 4 bits.
int main() {
    ts::cpu<> const exec;
    ts::matrix<float> w{4, 32}, x{1, 32}, y{1, 4};
    for (ts::index_t i = 0; i < w.size(); ++i) w.data()[i] = 1;
    for (ts::index_t i = 0; i < x.size(); ++i) x.data()[i] = 1;
    auto const q = ts::quantize<ts::int4_g32>(w);
    ts::apply(exec, ts::linear{q}, x, y);
    std::printf("%.1f, with OpenMP: %s\n", static_cast<double>(y(0, 3)), ts::config::has_openmp ? "yes" : "no");
    return y(0, 3) > 31.9f && y(0, 3) < 32.1f && ts::config::has_openmp ? 0 : 1;
}
