// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Linear layers as GPTQ's tools store them (AutoGPTQ, GPTQModel), as `quantized_tensor`s with the same codes:
///
///     auto const file  = ts::safetensors::parse(bytes.bytes(), path);
///     auto const layer = ts::gptq::find(file, "model.layers.0.mlp.up_proj");
///     auto const w     = ts::gptq::read<ts::uint4_g128>(layer, ts::gptq::zero_points::minus_one);
///     auto const operand = ts::linear{w.codes};                       // for x whose columns are as w.columns says
///
/// | tensor  | shape               | holds                                                                           |
/// |---------|---------------------|---------------------------------------------------------------------------------|
/// | qweight | (k b / 32, n) int32 | down a column the b-bit codes of a row of W, least significant bits first       |
/// | qzeros  | (groups, n b / 32) int32 | along a row the zero points of a group, in the same way                    |
/// | scales  | (groups, n)         | fp16, bf16 or float32                                                           |
/// | g_idx   | (k) int32           | the group of each column; may be missing                                        |
///
/// w(n, k) = scale * (code - zero point). Codes of 3 bits run on from word to word. Files whose checkpoint_format is "gptq" store
/// zero points minus 1, modulo 2^b; "gptq_v2" as they are. Where codes were made in order of activations (desc_act), the groups of
/// g_idx are no blocks of columns: then the columns are put in order of their groups, and `columns` says which is where.
/// Source: AutoGPTQ 0.7.1, nn_modules/qlinear/qlinear_cuda.py (and qlinear_cuda_old.py on the modulus).

#include "../core/view.hpp"
#include "../storage/tensor.hpp"
#include "relay.hpp"
#include "safetensors.hpp"

namespace tessera::inline TESSERA_ABI::gptq {

/// How a file stores zero points.
enum class zero_points : std::uint8_t {
    minus_one,  ///< z - 1: checkpoint_format "gptq", also where the configuration says nothing
    as_they_are ///< z: checkpoint_format "gptq_v2"
};

/// The tensors of a layer; views.
struct layer {
    std::string name;
    matrix_view<std::int32_t const> qweight; // (k b / 32, n)
    matrix_view<std::int32_t const> qzeros;  // (groups, n b / 32)
    array_entry scales;                      // (groups, n)
    vector_view<std::int32_t const> g_idx;   // (k), or empty
};

/// A layer with its columns in the order of groups.
template <class Scheme>
struct weights {
    quantized_tensor<Scheme> codes; ///< (n, k)
    /// (k): column j multiplies x's column columns(j); empty where that is j
    vector<std::int32_t> columns;
};

/// The tensors `name`.qweight, .qzeros, .scales and, where it is there, .g_idx.
/// @throws format_error where one is missing or has another type or rank
inline layer find(safetensors::file const& file, std::string_view name) {
    std::string const prefix{name};
    layer result{prefix, safetensors::as_view<std::int32_t, 2>(file.tensor(prefix + ".qweight")),
                 safetensors::as_view<std::int32_t, 2>(file.tensor(prefix + ".qzeros")), file.tensor(prefix + ".scales"), {}};
    if (auto const* const g = file.find_tensor(prefix + ".g_idx")) result.g_idx = safetensors::as_view<std::int32_t, 1>(*g);
    return result;
}

namespace detail {

/// Code i of a stream of `Bits`-bit codes in words that are `stride` apart.
template <int Bits>
std::uint32_t code_in_words(std::int32_t const* words, index_t stride, index_t i) noexcept {
    index_t const bit = i * Bits;
    int const shift = static_cast<int>(bit % 32);
    std::uint32_t code = static_cast<std::uint32_t>(words[bit / 32 * stride]) >> shift;
    if (shift + Bits > 32) code |= static_cast<std::uint32_t>(words[(bit / 32 + 1) * stride]) << (32 - shift);
    return code & ((1u << Bits) - 1u);
}

/// The columns in order of their groups, empty where they are. Every group but the last must have `each` columns.
inline vector<std::int32_t> order_of(vector_view<std::int32_t const> const& g_idx, index_t groups, index_t each,
                                     tessera::detail::layer_failure const& fail) {
    index_t const k = g_idx.extent(0);
    bool in_order = true;
    vector<index_t> next{groups + 1}; // where the next column of a group goes
    for (index_t j = 0; j < k; ++j) {
        index_t const g = g_idx(j);
        if (g < 0 || g >= groups)
            fail("g_idx of column " + std::to_string(j) + " is " + std::to_string(g) + ", expected 0 to " + std::to_string(groups - 1));
        in_order = in_order && g == j / each;
        ++next(g + 1);
    }
    if (in_order) return {};
    for (index_t g = 0; g < groups; ++g) {
        index_t const wanted = minimum(each, k - g * each);
        if (next(g + 1) != wanted)
            fail("group " + std::to_string(g) + " has " + std::to_string(next(g + 1)) + " columns, expected " + std::to_string(wanted) +
                 ": no order of columns makes blocks of such groups");
        next(g + 1) = next(g) + wanted;
    }
    vector<std::int32_t> columns{k};
    for (index_t j = 0; j < k; ++j) columns(next(g_idx(j))++) = static_cast<std::int32_t>(j);
    return columns;
}

} // namespace detail

/// The layer in a scheme of its bits and groups: scheme<uint4, group<128>, fp16, affine>; where all zero points are half of the
/// codes (sym), scheme<int4, group<128>, fp16> too; with one group per_channel. fp16 scales fit into fp16 and fp32.
/// @throws format_error where the tensors do not fit each other or the scheme; shape_error for more columns than 32 bits number;
/// std::bad_alloc
template <class Scheme>
weights<Scheme> read(layer const& l, zero_points stored) {
    constexpr int bits = Scheme::format::bits;
    static_assert(bits == 2 || bits == 3 || bits == 4 || bits == 8, "tessera: gptq::read needs a scheme of 2, 3, 4 or 8 bits");
    tessera::detail::layer_failure const fail{"gptq", l.name};
    index_t const n = l.qweight.extent(1);
    index_t const words = l.qweight.extent(0);
    if (words * 32 % bits != 0)
        fail("qweight has " + std::to_string(words) + " rows of 32 bits, which are no whole codes of " + std::to_string(bits));
    index_t const k = words * 32 / bits;
    check::within("gptq::read", "columns", k, 0, std::numeric_limits<std::int32_t>::max());
    if (l.g_idx.extent(0) != 0) fail.equal("size of g_idx", l.g_idx.extent(0), k, "columns that qweight has");
    index_t const groups = tessera::detail::groups_of<Scheme>(k);
    fail.equal("rows of qzeros", l.qzeros.extent(0), groups, "groups of the scheme");
    fail.equal("columns of qzeros", l.qzeros.extent(1), ceil_div(n * bits, 32), "zero points of a group");
    tessera::detail::float_array const scales{l.scales, "scales", fail};
    fail.equal("size of scales", scales.size(), groups * n, "groups times rows");

    weights<Scheme> result;
    if (l.g_idx.extent(0) != 0)
        result.columns = detail::order_of(l.g_idx, groups, tessera::detail::group_columns<Scheme>(k), fail);
    std::int32_t const* const columns = result.columns.size() == 0 ? nullptr : result.columns.data();
    result.codes = tessera::detail::relay<Scheme>(
        n, k,
        [&](index_t i, index_t j) {
            return detail::code_in_words<bits>(l.qweight.data_handle() + i * l.qweight.stride(1), l.qweight.stride(0),
                                               columns == nullptr ? j : columns[j]);
        },
        [&](index_t i, index_t g) { return scales(g * n + i); },
        [&](index_t i, index_t g) {
            auto const z = detail::code_in_words<bits>(l.qzeros.data_handle() + g * l.qzeros.stride(0), l.qzeros.stride(1), i);
            return static_cast<int>(stored == zero_points::minus_one ? (z + 1) & ((1u << bits) - 1u) : z);
        },
        fail);
    return result;
}

} // namespace tessera::inline TESSERA_ABI::gptq
