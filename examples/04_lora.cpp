// SPDX-License-Identifier: MIT
// QLoRA: a weight is frozen in 4 bits, and a low-rank adapter learns a new task on top of it. Base and adapter are one
// operator, base + scale * B A: forward, backward and the gradients of B and A are the library's, the optimiser is here.

#include <tessera/adapter/merge.hpp>
#include <tessera/operators/backward.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/quantize.hpp>

#include "tour.hpp"

#include <cstdio>

namespace ts = tessera;

int main() {
    ts::index_t const n = 96, k = 128, rank = 4, tokens = 256;
    ts::cpu<> const exec;

    // The task: outputs of the pretrained weight plus a change of rank 4 that nobody tells us.
    auto const w = tour::normal(/*seed=*/1, n, k);
    auto const change_b = tour::normal(2, n, rank);
    auto const change_a = tour::normal(3, rank, k);
    auto const x = tour::normal(4, tokens, k);
    ts::matrix<float> target{tokens, n};
    ts::apply(exec, ts::linear{w} + ts::low_rank{change_b, change_a, 0.1f}, x, target);

    // The frozen base, quantised and packed for this machine. B = 0, so training starts at the base.
    auto const q = ts::quantize<ts::int4_g32>(w);
    auto const base = ts::place(exec, ts::linear{q});
    ts::matrix<float> b{n, rank}, a = tour::normal(5, rank, k);
    for (ts::index_t i = 0; i < a.size(); ++i) a.data()[i] *= 0.1f;
    std::printf("trainable: %ld of %ld weights\n", long(a.size() + b.size()), long(w.size()));

    ts::matrix<float> y{tokens, n}, dy{tokens, n}, da{rank, k}, db{n, rank};
    for (int step = 0; step <= 200; ++step) {
        // Operators are views: this sum refers to the panels of `base` and to a and b as they are now. One pass computes both.
        ts::low_rank const adapter{b, a, 0.5f};
        auto const layer = base.view() + adapter;
        ts::apply(exec, layer, x, y);
        if (step % 50 == 0) std::printf("step %3d: SNR of the output %4.1f dB\n", step, tour::snr(target, y));

        // Mean squared error, and gradient descent on the adapter alone.
        float const slope = 2.0f / static_cast<float>(tokens);
        for (ts::index_t i = 0; i < y.size(); ++i) dy.data()[i] = slope * (y.data()[i] - target.data()[i]);
        ts::low_rank_backward(exec, adapter, x, dy, da, db);
        for (ts::index_t i = 0; i < a.size(); ++i) a.data()[i] -= 0.01f * da.data()[i];
        for (ts::index_t i = 0; i < b.size(); ++i) b.data()[i] -= 0.01f * db.data()[i];
    }

    // The gradient of the input, for the layers below, goes through the quantised base too.
    ts::matrix<float> dx{tokens, k};
    ts::apply(exec, ts::transposed(base.view() + ts::low_rank{b, a, 0.5f}), dy, dx);

    // What is left is what 4 bits cost the base. To serve it: the whole sum placed, x in int8.
    auto const served = ts::place(exec, ts::linear{q, ts::int8_per_group<32>{}} + ts::low_rank{b, a, 0.5f});
    ts::apply(exec, served, x, y);
    std::printf("served with int8 activations: %.1f dB; %ld bytes instead of %ld\n", tour::snr(target, y),
                long(q.bytes() + (a.size() + b.size()) * 4), long(w.size() * 4));

    // Merged into the 4 bits nothing is added at run time, but the sum is rounded again: is the adapter larger than that?
    auto const merged = ts::merge(q, ts::low_rank{b, a, 0.5f});
    ts::apply(exec, ts::place(exec, ts::linear{merged.weights}), x, y);
    std::printf("merged: %.1f dB; the adapter is %.1f dB above the rounding\n", tour::snr(target, y), merged.error.adapter_snr_db);
}
// Output:
// trainable: 896 of 12288 weights
// step   0: SNR of the output 12.5 dB
// step  50: SNR of the output 20.2 dB
// step 100: SNR of the output 20.9 dB
// step 150: SNR of the output 20.9 dB
// step 200: SNR of the output 20.9 dB
// served with int8 activations: 20.9 dB; 10496 bytes instead of 49152
// merged: 17.7 dB; the adapter is 7.2 dB above the rounding
