// SPDX-License-Identifier: MIT
/// @file
/// Scores and masks of attention on a device, in float32 and by matrix units.

#include "attention_support.cuh"

#include <tessera/attention/mask.hpp>

namespace {

using namespace attention_tests;

} // namespace

namespace {

/// A functor of a user.
struct linear_bias {
    template <class V>
    __host__ __device__ V operator()(V s, ts::coord<V> at) const noexcept {
        return s - V(0.01f) * at.distance();
    }
};

template <class T>
void check_scores(tally& ratios, bound_terms const& terms) {
    for (index_t const queries : {1, 4, 50, 200})
        for (index_t const keys : {200, 520}) {
            shape const s{queries, keys, 4, 2, 64, 64};
            check_shape<T, T>(ratios, s, ts::full, 0, terms);
            check_shape<T, T>(ratios, s, ts::window{20}, 0, terms);
            check_shape<T, T>(ratios, s, ts::causal | ts::window{129}, 0, terms);
            check_shape<T, T>(ratios, s, ts::soft_cap{5.0f} | ts::causal, 5, terms);
            check_shape<T, T>(ratios, s, ts::causal | linear_bias{}, 2, terms);
            check_shape<T, T>(ratios, s, ts::scaled{-0.3f} | ts::chunked{96}, 0, terms);
            check_shape<T, T>(ratios, s, ts::keys_before{70}, 0, terms);
        }
}

} // namespace

TEST_CASE("attention: scores in float32") {
    tally ratios;
    check_scores<float>(ratios, {});
    MESSAGE("worst error / bound " << ratios.worst);
}
TEST_CASE("attention: scores by matrix units") {
    tally ratios;
    check_scores<ts::bf16>(ratios, matrix_terms<ts::bf16>());
    MESSAGE("worst error / bound " << ratios.worst);
}
