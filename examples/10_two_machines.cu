// SPDX-License-Identifier: MIT
// One layer with an adapter on two machines: this program and its twin differ in an include and an alias.

#include "tour_device.cuh"

#include <cstdio>

namespace ts = tessera;
namespace machine = tour::device;

int main() {
    machine::exec const exec;
    ts::index_t const tokens = 4, width = 256, outputs = 96, rank = 8;
    auto const w = tour::normal(/*seed=*/1, outputs, width);
    auto const b = tour::normal(2, outputs, rank);
    auto const a = tour::normal(3, rank, width);

    // y = silu((W + 0.1 B A) rms_norm(x)): packed for the machine once, computed where its memory is.
    auto const layer = ts::place(exec, ts::linear{w.view()} + 0.1f * ts::low_rank{b.view(), a.view()});
    auto const x = machine::sent(exec, tour::normal(4, tokens, width));
    auto const weight = machine::sent(exec, tour::normal(5, width));
    machine::matrix<float> normed{tokens, width};
    machine::matrix<float> y{tokens, outputs};
    ts::rms_norm(exec, x, weight, 1e-5f, normed);
    ts::apply(exec, layer.view(), normed.view(), y.view());
    ts::silu(exec, y, y);

    auto const& result = machine::fetched(exec, y);
    for (ts::index_t i = 0; i < tokens; ++i)
        std::printf("token %ld: %8.3f %8.3f %8.3f ...\n", long(i), double{result(i, 0)}, double{result(i, 1)}, double{result(i, 2)});
}
