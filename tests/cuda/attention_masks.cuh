// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Every mask and bias of attention on a device, in float32 and by matrix units, with few queries and with many, against the
/// definition. What they read is memory of the device.

#include "attention_support.cuh"

#include <tessera/attention/bias.hpp>
#include <tessera/attention/mask.hpp>
#include <tessera/attention/neighborhood.hpp>
#include <tessera/attention/normaliser.hpp>

namespace attention_tests {

/// Numbers on both sides.
template <class T>
struct both_sides {
    std::vector<T> here;
    ts::device_vector<T> on_device;

    explicit both_sides(std::vector<T> numbers) : here(std::move(numbers)), on_device{static_cast<index_t>(here.size())} {
        ts::copy(device{}, ts::vector_view<T const>{here.data(), on_device.extent(0)}, on_device.view());
        wait();
    }
    /// f of the host's and of the device's pointer.
    template <class F>
    auto each(F const& f) const {
        return std::pair{f(static_cast<T const*>(here.data())), f(static_cast<T const*>(ts::kernel_view(on_device.view()).data_handle()))};
    }
};

inline constexpr index_t keys = 200;
inline constexpr index_t heads = 4;

template <class T>
struct judged {
    tally& ratios;
    bound_terms terms;
    index_t queries;

    /// `scores`: of the host, of the device.
    template <class Score>
    void operator()(char const* name, std::pair<Score, Score> const& scores, index_t roundings = 0) const {
        CAPTURE(name);
        check_scores_of<T, T>(ratios, {queries, keys, heads, 2, 64, 64}, scores.first, scores.second, roundings, terms);
    }
    template <class Score>
    void operator()(char const* name, Score const& score, index_t roundings = 0) const {
        (*this)(name, std::pair{score, score}, roundings);
    }
};

/// A rule of a user, as the definition of a mask.
struct every_third {
    __host__ __device__ bool operator()(index_t query, index_t key, index_t head) const noexcept { return (query + 2 * key + head) % 3 == 0; }
};

template <class T>
void check_positions(judged<T> const& check) {
    check("shifted_causal", ts::shifted_causal{-60});
    check("band", ts::band{17, 40});
    check("prefix", ts::either(ts::keys_before{31}, ts::causal));
    check("prefix of a window", ts::either(ts::keys_before{5}, ts::causal | ts::window{50}));
    check("a user's rule", ts::causal | ts::seen_where{every_third{}});
    using axis = ts::neighborhood_axis;
    check("1 axis", ts::neighborhood_1d(keys, 9, 3));
    check("2 axes", ts::neighborhood<2>{{axis{10, 4, 2}, axis{20, 5, 1, 2, true}}});
    check("3 axes", ts::neighborhood<3>{{axis{4, 2}, axis{5, 3, 1, 3}, axis{10, 2, 3}}});
}

template <class T>
void check_arrays(judged<T> const& check) {
    both_sides<std::int32_t> const offsets{{0, 7, 7, 70, 71, 198, 200}};
    auto const packed = [](std::int32_t const* o) { return ts::segments{ts::vector_view<std::int32_t const>{o, 7}}; };
    check("segments", offsets.each(packed));
    check("causal segments", offsets.each([&](std::int32_t const* o) { return ts::causal | packed(o); }));
    check("segments or the first keys", offsets.each([&](std::int32_t const* o) { return ts::either(ts::keys_before{2}, packed(o)); }));
    std::vector<std::int32_t> parents;
    for (index_t i = 0; i < 60; ++i) parents.push_back(static_cast<std::int32_t>(i % 9 == 0 ? -1 : (i * 7) % i));
    both_sides<std::int32_t> const tree{parents};
    check("token_tree", tree.each([](std::int32_t const* p) { return ts::token_tree{ts::vector_view<std::int32_t const>{p, 60}, keys - 60}; }));

    random_floats next{3};
    std::vector<std::uint8_t> seen(static_cast<std::size_t>(heads * check.queries * keys)), blocks(heads * 20 * 8);
    for (auto& s : seen) s = next.uniform() < 0.3f;
    for (auto& s : blocks) s = next.uniform() < 0.5f;
    both_sides<std::uint8_t> const bytes{seen}, tiles{blocks};
    index_t const first = keys - check.queries;
    check("dense_mask", bytes.each([&](std::uint8_t const* s) {
        return ts::dense_mask{ts::tensor_view<std::uint8_t const, 3>{s, heads, check.queries, keys}, first};
    }));
    check("dense_mask, one plane", bytes.each([&](std::uint8_t const* s) {
        return ts::causal | ts::dense_mask{ts::tensor_view<std::uint8_t const, 3>{s, 1, check.queries, keys}, first};
    }));
    check("block_mask", tiles.each([&](std::uint8_t const* s) { return ts::block_mask{ts::tensor_view<std::uint8_t const, 3>{s, heads, 20, 8}, 10, 25}; }));
}

template <class T>
void check_biases(judged<T> const& check) {
    random_floats next{5};
    std::vector<float> numbers(static_cast<std::size_t>(heads * check.queries * keys));
    for (float& b : numbers) b = next();
    both_sides<float> const bias{numbers};
    index_t const first = keys - check.queries;
    check("dense_bias", bias.each([&](float const* b) {
        return ts::dense_bias{ts::tensor_view<float const, 3>{b, heads, check.queries, keys}, first} | ts::causal;
    }), 1);
    check("relative_bias", bias.each([&](float const* b) {
        return ts::relative_bias{ts::matrix_view<float const>{b, 32, heads}, ts::distance_buckets{32, 128, ts::key_side::both}};
    }), 1);
    both_sides<float> const slopes{{0.5f, 0.25f, 0.125f, 0.0625f}};
    check("alibi", slopes.each([](float const* s) { return ts::alibi{ts::vector_view<float const>{s, heads}} | ts::causal; }), 2);
    check("sinks", slopes.each([](float const* s) { return ts::causal | ts::sinks{ts::vector_view<float const>{s, heads}}; }));
}

template <class T>
void check_all(bound_terms const& terms) {
    tally ratios;
    for (index_t const queries : {1, 5, 60, 200}) {
        CAPTURE(queries);
        judged<T> const check{ratios, terms, queries};
        check_positions(check);
        check_arrays(check);
        check_biases(check);
    }
    MESSAGE("worst error / bound " << ratios.worst);
    CHECK(ratios.is_tight());
}

} // namespace attention_tests
