// SPDX-License-Identifier: MIT
/// @file
/// Attention on a device in float32: the cases of the processors.

#include "attention_support.cuh"

namespace {

using namespace attention_tests;

} // namespace

TEST_CASE("attention: tokens around tiles and parts") {
    tally ratios;
    for_each_token_shape([&](shape const& s) { check_shape<float>(ratios, s, ts::causal); });
    CHECK(ratios.is_tight());
    MESSAGE("worst error / bound " << ratios.worst);
}

TEST_CASE("attention: head dimensions and group sizes") {
    tally ratios;
    for_each_dimension([&](shape const& s) { check_shape<float>(ratios, s, ts::full); });
    for_each_group([&](shape const& s) { check_shape<float>(ratios, s, ts::causal); });
    MESSAGE("worst error / bound " << ratios.worst);
}

TEST_CASE("attention: formats of the cache") {
    tally ratios;
    for_each_format_shape([&](shape const& s) {
        check_shape<ts::fp32>(ratios, s, ts::causal);
        check_shape<ts::fp16>(ratios, s, ts::causal);
        check_shape<ts::bf16>(ratios, s, ts::causal);
        check_shape<ts::int8_per_token>(ratios, s, ts::causal);
    });
    MESSAGE("worst error / bound " << ratios.worst);
}

