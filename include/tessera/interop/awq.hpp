// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Linear layers as AWQ's tools store them (AutoAWQ, version "gemm"), as `quantized_tensor`s with the same codes:
///
///     auto const file = ts::safetensors::parse(bytes.bytes(), path);
///     auto const w    = ts::awq::read<ts::uint4_g128>(ts::awq::find(file, "model.layers.0.mlp.up_proj"));
///     auto const operand = ts::linear{w};                             // for `apply` and `place`
///
/// | tensor  | shape               | holds                                                            |
/// |---------|---------------------|------------------------------------------------------------------|
/// | qweight | (k, n / 8) int32    | 4-bit codes of 8 rows of W, from the least significant bits those of rows 0 2 4 6 1 3 5 7 |
/// | qzeros  | (groups, n / 8) int32 | zero points of 8 rows, in the same way                         |
/// | scales  | (groups, n)         | fp16, bf16 or float32                                            |
///
/// w(n, k) = scale * (code - zero point). Source: AutoAWQ 0.2.9, modules/linear/gemm.py and utils/packing_utils.py.

#include "../core/view.hpp"
#include "relay.hpp"
#include "safetensors.hpp"

namespace tessera::inline TESSERA_ABI::awq {

/// The tensors of a layer; views.
struct layer {
    std::string name;
    matrix_view<std::int32_t const> qweight; // (k, n / 8)
    matrix_view<std::int32_t const> qzeros;  // (groups, n / 8)
    array_entry scales;                      // (groups, n)
};

/// The tensors `name`.qweight, .qzeros and .scales.
/// @throws format_error where one is missing or has another type or rank
inline layer find(safetensors::file const& file, std::string_view name) {
    std::string const prefix{name};
    return {prefix, safetensors::as_view<std::int32_t, 2>(file.tensor(prefix + ".qweight")),
            safetensors::as_view<std::int32_t, 2>(file.tensor(prefix + ".qzeros")), file.tensor(prefix + ".scales")};
}

/// The layer in a scheme of its groups: scheme<uint4, group<128>, fp16, affine>; where all zero points are 8 a symmetric one of int4
/// too; with one group per_channel. fp16 scales fit into fp16 and fp32.
/// @throws format_error where the tensors do not fit each other or the scheme; std::bad_alloc
template <class Scheme>
quantized_tensor<Scheme> read(layer const& l) {
    static_assert(Scheme::format::bits == 4, "tessera: awq::read needs a scheme of 4 bits");
    tessera::detail::layer_failure const fail{"awq", l.name};
    index_t const k = l.qweight.extent(0);
    index_t const words = l.qweight.extent(1);
    index_t const n = 8 * words;
    index_t const groups = tessera::detail::groups_of<Scheme>(k);
    fail.equal("rows of qzeros", l.qzeros.extent(0), groups, "groups of the scheme");
    fail.equal("columns of qzeros", l.qzeros.extent(1), words, "columns of qweight");
    tessera::detail::float_array const scales{l.scales, "scales", fail};
    fail.equal("size of scales", scales.size(), groups * n, "groups times rows");
    auto const nibble = [](matrix_view<std::int32_t const> const& words_of, index_t row, index_t i) noexcept {
        constexpr int shifts[8] = {0, 16, 4, 20, 8, 24, 12, 28}; // of rows 0 to 7
        return static_cast<std::uint32_t>(words_of(row, i / 8)) >> shifts[i % 8] & 15u;
    };
    return tessera::detail::relay<Scheme>(
        n, k, [&](index_t i, index_t j) { return nibble(l.qweight, j, i); },
        [&](index_t i, index_t g) { return scales(g * n + i); },
        [&](index_t i, index_t g) { return static_cast<int>(nibble(l.qzeros, g, i)); }, fail);
}

} // namespace tessera::inline TESSERA_ABI::awq
