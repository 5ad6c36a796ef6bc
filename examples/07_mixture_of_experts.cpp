// SPDX-License-Identifier: MIT
// A mixture of INT4 experts: every token is sent to 2 of 8 SwiGLU units in 4 bits, plus one that all tokens share. A token
// reads a fraction of the weights, and the report says what went where.

#include <tessera/moe/moe.hpp>
#include <tessera/quant/quantize.hpp>

#include "tour.hpp"

#include <cstdio>
#include <vector>

namespace ts = tessera;

namespace {

/// Expert e of matrices that lie gate, up, down, gate, up, down, ...: y = (silu(x Gateᵀ) * (x Upᵀ)) Downᵀ. A view; any linear
/// operators would do.
template <class Preparation, class Matrix>
auto expert(std::vector<Matrix> const& w, std::size_t e) {
    return ts::gated_expert{ts::linear{w[3 * e], Preparation{}}, ts::linear{w[3 * e + 1], Preparation{}},
                            ts::linear{w[3 * e + 2], Preparation{}}};
}

} // namespace

int main() {
    ts::cpu<> const exec;
    std::size_t const experts = 8; // and a ninth, the shared one
    ts::index_t const width = 128, hidden = 256, tokens = 64;
    auto const x = tour::normal(/*seed=*/1, tokens, width);

    std::vector<ts::matrix<float>> weights;
    std::vector<ts::quantized_tensor<ts::int4_g32>> small;
    ts::index_t bytes = 0;
    for (std::size_t i = 0; i < 3 * (experts + 1); ++i) {
        bool const is_down = i % 3 == 2;
        weights.push_back(tour::normal(100 + i, is_down ? width : hidden, is_down ? hidden : width));
        small.push_back(ts::quantize<ts::int4_g32>(weights.back()));
        bytes += small.back().bytes();
    }
    std::vector<decltype(expert<ts::as_is>(weights, 0))> exact_experts;
    std::vector<decltype(expert<ts::int8_per_group<32>>(small, 0))> small_experts;
    for (std::size_t e = 0; e < experts; ++e) {
        exact_experts.push_back(expert<ts::as_is>(weights, e));
        small_experts.push_back(expert<ts::int8_per_group<32>>(small, e));
    }

    // The router: logits of x, softmax, the best two, weights that sum to 1 (as Mixtral's).
    auto const w_router = tour::normal(2, experts, width);
    ts::top_k_router const router{w_router, /*k=*/2, ts::renormalized{ts::softmax_gate{}}};

    // One operator, placed for this machine, applied in one call. It reports the loads; `counts` takes them one by one.
    ts::moe const block{router, small_experts, ts::shared_expert{expert<ts::int8_per_group<32>>(small, experts)}};
    auto const layer = ts::place(exec, block);
    ts::matrix<float> y{tokens, width};
    ts::vector<ts::index_t> counts{experts};
    auto const report = ts::apply(exec, layer, x, y, counts);

    std::printf("%ld tokens to %ld experts each:", long(report.tokens), long(report.choices));
    for (ts::index_t e = 0; e < report.experts; ++e) std::printf(" %ld", long(counts(e)));
    std::printf("\nused %ld of %ld, largest load %.2f times the mean, entropy %.2f of 3 bits\n", long(report.used),
                long(report.experts), report.imbalance(), report.entropy);
    std::printf("stored: %ld bytes, as float %ld; a token reads %ld\n", long(bytes), long(9 * 3 * width * hidden * 4),
                long(bytes / 9 * 3));

    // The same with the float weights, by the definition.
    ts::matrix<float> exact{tokens, width};
    ts::apply(ts::reference{}, ts::moe{router, exact_experts, ts::shared_expert{expert<ts::as_is>(weights, experts)}}, x, exact);
    std::printf("against float experts: SNR %.1f dB\n", tour::snr(exact, y));
}
// Output:
// 64 tokens to 2 experts each: 14 14 10 28 18 13 22 9
// used 8 of 8, largest load 1.75 times the mean, entropy 2.90 of 3 bits
// stored: 497664 bytes, as float 3538944; a token reads 165888
// against float experts: SNR 15.4 dB
