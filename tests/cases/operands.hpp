// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Operands of products for tests of every backend: owners of random storage, and the shapes around lanes and groups.

#include "guarded.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/storage/blocked.hpp>
#include <tessera/storage/quantized.hpp>

#include <vector>

namespace tessera_test {

/// Random codes (of finite values), scales and zero points.
template <class Scheme>
ts::quantized_tensor<Scheme> random_quantized(index_t n, index_t k, std::uint64_t seed = 3) {
    using format = typename Scheme::format;
    using scale_type = typename ts::quantized<Scheme>::scale_type;
    ts::quantized_tensor<Scheme> q{n, k};
    ts::philox const random{seed};
    auto const view = q.view();
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) {
            auto const at = static_cast<std::uint64_t>(i * k + j);
            std::uint32_t const code = format::is_integer
                                           ? random.bits(at) & ((1u << format::bits) - 1u)
                                           : format::encode(0.16f * format::max_magnitude * random.normal(at));
            ts::bitpack::set<format::bits>(q.codes() + i * view.row_bytes(), j, code);
        }
    for (index_t i = 0; i < view.scale_rows() * view.scale_columns(); ++i) {
        auto const at = static_cast<std::uint64_t>(i);
        bool const has_sign = static_cast<float>(static_cast<scale_type>(-1.0f)) == -1.0f;
        float const sign = has_sign && random.bits(at) % 2 == 0 ? -1.0f : 1.0f;
        q.scales()[i] = static_cast<scale_type>(sign * (0.01f + random.uniform(at + 1000)));
        if constexpr (Scheme::is_affine)
            q.zero_points()[i] = static_cast<std::uint8_t>(random.bits(at + 7) & ((1u << format::bits) - 1u));
    }
    for (index_t i = 0; i < view.super_scale_count(n, k); ++i)
        q.super_scales()[i] = static_cast<typename ts::quantized_tensor<Scheme>::super_scale_type>(
            0.1f + random.uniform(static_cast<std::uint64_t>(i) + 5000));
    return q;
}

/// Owner of random storage: what a law takes as its template argument.
template <class Scheme>
struct scheme_storage {
    static constexpr index_t group = Scheme::granularity_type::columns;
    static constexpr index_t column_unit = 1;
    ts::quantized_tensor<Scheme> owner;
    scheme_storage(index_t n, index_t k) : owner{random_quantized<Scheme>(n, k)} {}
    auto view() const { return owner.view(); }
};
template <class Format>
struct blocked_storage {
    static constexpr index_t unit = Format::block_size;
    static constexpr index_t group = Format::group_size;
    static constexpr index_t column_unit = unit;
    std::vector<typename Format::block> blocks;
    index_t n;
    index_t k;
    blocked_storage(index_t rows, index_t columns)
        : blocks(static_cast<std::size_t>(rows * columns / unit)), n{rows}, k{columns} {
        ts::philox const random{11};
        for (std::size_t b = 0; b < blocks.size(); ++b) {
            float values[unit];
            for (std::size_t i = 0; i < unit; ++i) values[i] = random.normal(unit * b + i);
            Format::encode(values, blocks[b]);
        }
    }
    ts::blocked<Format> view() const { return {blocks.data(), n, k}; }
};
/// Rows and columns with gaps.
template <class T>
struct dense_storage_of {
    static constexpr index_t group = 0;
    static constexpr index_t column_unit = 1;
    guarded<T> owner;
    dense_storage_of(index_t n, index_t k) : owner{n, k, 3, 1 + n % 2} { owner.fill(5); }
    ts::matrix_view<T const> view() const { return owner.view(); }
};

/// (n, k) around lanes and the group, and the m that go with them.
struct product_shape {
    index_t m;
    index_t n;
    index_t k;
};

template <class Storage>
std::vector<product_shape> product_shapes() {
    index_t const g = Storage::group == 0 ? 32 : Storage::group;
    std::vector<product_shape> shapes;
    auto const add = [&](std::initializer_list<index_t> ms, index_t n, index_t k) {
        for (index_t const m : ms) shapes.push_back({m, n, ts::round_up(k, Storage::column_unit)});
    };
    add({0, 1, 2, 3, 8, 9, 16, 17, 33}, 33, 8 * 16 + 2);
    add({0, 1, 9, 17}, 0, 7);
    add({0, 1, 9, 17}, 5, 0);
    add({1, 2, 17}, 1, 1);
    add({3, 8}, 3, g - 1);
    add({1, 16}, 4, g);
    add({2, 9, 17}, 17, g + 1);
    add({1, 33}, 15, 2 * g + 3);
    add({3}, 16, 31);
    add({16}, 7, 33);
    add({1, 4, 9}, 8 * 16 + 2, 67);
    add({40}, 131, 5 * g);
    return shapes;
}

} // namespace tessera_test
