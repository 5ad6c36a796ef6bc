// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The weights of onnxruntime's MatMulNBits (com.microsoft), as `quantized_tensor`s with the same codes:
///
///     ts::onnxruntime::layer const l{"up_proj", 4096, 4096, 32, b, scales, zero_points};
///     auto const w = ts::onnxruntime::read<ts::scheme<ts::uint4, ts::group<32>, ts::fp32, ts::affine>>(l);
///     auto const operand = ts::linear{w};                             // for `apply` and `place`
///
/// | input       | shape                          | holds                                                          |
/// |-------------|--------------------------------|----------------------------------------------------------------|
/// | B           | (n, blocks, block bits / 8) u8 | codes of a block of columns, least significant bits first      |
/// | scales      | (n, blocks)                    | float32, fp16 or bf16                                          |
/// | zero_points | (n, blocks bits / 8) u8        | of a row, least significant bits first, in whole bytes; missing: 2^(bits - 1) |
///
/// w(n, k) = scale * (code - zero point), blocks = ceil(k / block). Zero points that are floats, and g_idx, are not read. The
/// arrays are initialisers of a model, which is the caller's to open. Source: onnxruntime's contrib operators (MatMulNBits).

#include "relay.hpp"

#include <cstddef>
#include <span>

namespace tessera::inline TESSERA_ABI::onnxruntime {

/// The inputs and attributes of a node; views.
struct layer {
    std::string name;
    index_t n = 0;
    index_t k = 0;
    index_t block = 32;                         ///< block_size
    std::span<std::byte const> b;
    array_entry scales;
    std::span<std::byte const> zero_points{};   ///< empty: missing
};

/// The layer in a scheme of its bits and blocks: scheme<uint4, group<32>, fp32, affine>; where all zero points are half of the codes,
/// or missing, a symmetric one of int4 too.
/// @throws shape_error for n, k or block that cannot be; format_error where the arrays do not fit each other or the scheme;
/// std::bad_alloc
template <class Scheme>
quantized_tensor<Scheme> read(layer const& l) {
    constexpr int bits = Scheme::format::bits;
    tessera::detail::layer_failure const fail{"onnxruntime", l.name};
    check::within("onnxruntime::read", "n", l.n, 0, index_t{1} << 40);
    check::within("onnxruntime::read", "k", l.k, 0, index_t{1} << 40);
    check::within("onnxruntime::read", "block", l.block, 16, index_t{1} << 20);
    check::multiple("onnxruntime::read", "block", l.block, 16);
    index_t const blocks = ceil_div(l.k, l.block);
    fail.equal("block", l.block, tessera::detail::group_columns<Scheme>(l.block), "group of the scheme");
    fail.equal("scales of a row", blocks, tessera::detail::groups_of<Scheme>(l.k), "groups of the scheme");
    index_t const block_bytes = l.block * bits / 8;
    index_t const zero_bytes = ceil_div(blocks * bits, 8);
    // Divided, because a product of foreign numbers may overflow.
    auto const holds = [&](char const* what, std::size_t is, index_t each) {
        bool const fits = l.n == 0 || each == 0 ? is == 0
                                                : is % static_cast<std::size_t>(l.n) == 0 &&
                                                      is / static_cast<std::size_t>(l.n) == static_cast<std::size_t>(each);
        if (!fits)
            fail(std::string{what} + " has size " + std::to_string(is) + ", expected " + std::to_string(l.n) + " times " +
                 std::to_string(each));
    };
    holds("B", l.b.size(), blocks * block_bytes);
    tessera::detail::float_array const scales{l.scales, "scales", fail};
    holds("scales", static_cast<std::size_t>(scales.size()), blocks);
    bool const has_zeros = !l.zero_points.empty();
    if (has_zeros) holds("zero_points", l.zero_points.size(), zero_bytes);
    auto const* const codes = reinterpret_cast<std::uint8_t const*>(l.b.data());
    auto const* const zeros = reinterpret_cast<std::uint8_t const*>(l.zero_points.data());
    return tessera::detail::relay<Scheme>(
        l.n, l.k,
        [&](index_t i, index_t j) {
            return bitpack::get<bits>(codes + (i * blocks + j / l.block) * block_bytes, j % l.block);
        },
        [&](index_t i, index_t g) { return scales(i * blocks + g); },
        [&](index_t i, index_t g) {
            return has_zeros ? static_cast<int>(bitpack::get<bits>(zeros + i * zero_bytes, g)) : 1 << (bits - 1);
        },
        fail);
}

} // namespace tessera::inline TESSERA_ABI::onnxruntime
