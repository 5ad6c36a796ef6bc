// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Weights in the 4-bit formats of bitsandbytes (NF4 and FP4, as Linear4bit saves them), as `quantized_tensor`s with the same codes:
///
///     auto const file = ts::safetensors::parse(bytes.bytes(), path);
///     auto const w    = ts::bitsandbytes::read<ts::nf4_g64>(ts::bitsandbytes::find(file, "model.layers.0.mlp.up_proj.weight"));
///     auto const operand = ts::linear{w};                             // for `apply` and `place`
///
/// | tensor                     | holds                                                                              |
/// |----------------------------|------------------------------------------------------------------------------------|
/// | NAME                       | u8: two codes a byte, the first in the high half, of (n, k) row after row          |
/// | NAME.absmax                | a scale for every `blocksize` values: float32, or u8 codes                         |
/// | NAME.quant_map             | 16 float32: the values of the codes                                                |
/// | NAME.nested_absmax, .nested_quant_map | of u8 scales: float32 for every nested_blocksize of them, 256 values     |
/// | NAME.quant_state.bitsandbytes__nf4 (or fp4) | u8: a JSON object with quant_type, blocksize, shape, nested_blocksize, nested_offset |
///
/// w = scale * value(code), scale = nested_quant_map[absmax] * nested_absmax + nested_offset where there are two levels, which
/// rounds twice to float32, as there. A block must not reach into the next row of W. Source: bitsandbytes 0.50.2, functional.py
/// (QuantState, quantize_4bit).

#include "../numerics/codebook.hpp"
#include "../storage/block_formats.hpp"
#include "relay.hpp"
#include "safetensors.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI::bitsandbytes {

/// The values of FP4 (a sign and 3 bits), over its largest.
struct fp4_table {
    static constexpr char const* name = "bitsandbytes_fp4";
    static constexpr float values[16] = {0.0f, 0.0052083334885537624f, 0.6666666865348816f, 1.0f, 0.3333333432674408f, 0.5f,
                                         0.1666666716337204f, 0.25f, 0.0f, -0.0052083334885537624f, -0.6666666865348816f, -1.0f,
                                         -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f};
};
using fp4 = codebook<fp4_table>;

/// The tensors of a weight and what its quant_state says; views.
struct layer {
    std::string name;
    std::string quant_type; ///< "nf4" or "fp4"
    index_t n = 0;
    index_t k = 0;
    index_t block = 0;        ///< values that share a scale
    index_t nested_block = 0; ///< scales that share a nested one; 0: scales are float32
    float nested_offset = 0;
    std::span<std::byte const> codes;
    std::span<std::byte const> absmax; ///< of two levels
    tessera::detail::float_array scales; ///< of one level absmax, of two nested_absmax
    tessera::detail::float_array quant_map;
    tessera::detail::float_array nested_quant_map;
};

namespace detail {

inline void read_state(safetensors::tensor_entry const& t, layer& l, tessera::detail::layer_failure const& fail) {
    if (t.type != element_type::u8) fail(std::string{"quant_state is "} + name_of(t.type) + ", expected U8");
    json::reader in{{reinterpret_cast<char const*>(t.bytes.data()), t.bytes.size()},
                    "tessera: bitsandbytes: layer " + tessera::detail::quoted_name(l.name) + ": quant_state: "};
    auto const integer = [&] {
        auto const at = in.offset();
        auto const value = in.unsigned_integer();
        if (value > max_array_elements) in.fail(at, "is too large");
        return static_cast<index_t>(value);
    };
    index_t rank = 0;
    in.object([&](std::string const& key) {
        in.expecting("value", "key", key);
        if (key == "quant_type")
            l.quant_type = in.string();
        else if (key == "blocksize")
            l.block = integer();
        else if (key == "nested_blocksize")
            l.nested_block = integer();
        else if (key == "nested_offset") {
            auto const at = in.offset();
            double const value = in.number();
            if (!(std::fabs(value) <= static_cast<double>(std::numeric_limits<float>::max()))) in.fail(at, "is beyond float32");
            l.nested_offset = static_cast<float>(value);
        }
        else if (key == "shape")
            in.array([&] { (rank == 0 ? l.n : l.k) = integer(), ++rank; });
        else
            in.skip();
        in.expecting("text");
    });
    in.end();
    fail.equal("number of dimensions", rank, 2, "a matrix");
    if (l.block < 1) fail("blocksize is " + std::to_string(l.block) + ", expected a positive number");
}

} // namespace detail

/// The tensors of the weight `name`, e.g. "model.layers.0.mlp.up_proj.weight".
/// @throws format_error where one is missing, has another type or does not fit the others
inline layer find(safetensors::file const& file, std::string_view name) {
    layer l;
    l.name = name;
    tessera::detail::layer_failure const fail{"bitsandbytes", l.name};
    auto const part = [&](char const* suffix) -> safetensors::tensor_entry const& { return file.tensor(l.name + suffix); };
    auto const* state = file.find_tensor(l.name + ".quant_state.bitsandbytes__nf4");
    if (state == nullptr) state = file.find_tensor(l.name + ".quant_state.bitsandbytes__fp4");
    if (state == nullptr) fail("has no quant_state.bitsandbytes__nf4 or fp4 beside it");
    detail::read_state(*state, l, fail);
    safetensors::tensor_entry const& codes = part("");
    if (codes.type != element_type::u8) fail(std::string{"is "} + name_of(codes.type) + ", expected U8");
    l.codes = codes.bytes;
    if (l.n != 0 && l.k > static_cast<index_t>(2 * l.codes.size() / static_cast<std::size_t>(l.n)))
        fail("shape (" + std::to_string(l.n) + ", " + std::to_string(l.k) + ") does not fit into " + std::to_string(l.codes.size()) + " bytes");
    index_t const size = l.n * l.k;
    fail.equal("bytes of codes", static_cast<index_t>(l.codes.size()), ceil_div(size, 2), "two a byte of the shape");
    index_t const blocks = ceil_div(size, l.block);
    l.quant_map = {part(".quant_map"), "quant_map", fail};
    fail.equal("size of quant_map", l.quant_map.size(), 16, "values of 4 bits");
    safetensors::tensor_entry const& absmax = part(".absmax");
    fail.equal("size of absmax", absmax.size(), blocks, "blocks of the shape");
    if (l.nested_block == 0) {
        l.scales = {absmax, "absmax", fail};
        return l;
    }
    if (absmax.type != element_type::u8) fail(std::string{"absmax is "} + name_of(absmax.type) + ", expected U8 with a nested_absmax");
    l.absmax = absmax.bytes;
    l.scales = {part(".nested_absmax"), "nested_absmax", fail};
    l.nested_quant_map = {part(".nested_quant_map"), "nested_quant_map", fail};
    fail.equal("size of nested_absmax", l.scales.size(), ceil_div(blocks, l.nested_block), "nested blocks");
    fail.equal("size of nested_quant_map", l.nested_quant_map.size(), 256, "values of 8 bits");
    return l;
}

/// The weight in scheme<nf4, group<64>, fp32>, or with `bitsandbytes::fp4`, and its blocksize.
/// @throws format_error where the weight does not fit the scheme; shape_error for a layer that `find` did not make and whose
/// shape is none; std::bad_alloc
template <class Scheme>
quantized_tensor<Scheme> read(layer const& l) {
    using format = typename Scheme::format;
    static_assert(format::bits == 4 && !format::is_integer, "tessera: bitsandbytes::read needs a scheme of nf4 or bitsandbytes::fp4");
    tessera::detail::layer_failure const fail{"bitsandbytes", l.name};
    for (index_t c = 0; c < 16; ++c)
        if (!(l.quant_map(c) == format::decode(static_cast<std::uint32_t>(c))))
            fail("value " + std::to_string(c) + " of quant_map (" + tessera::detail::quoted_name(l.quant_type) + ") is " +
                 std::to_string(l.quant_map(c)) + ", expected " + std::to_string(format::decode(static_cast<std::uint32_t>(c))) +
                 " (the scheme's format)");
    index_t const group = tessera::detail::group_columns<Scheme>(l.k);
    fail.equal("blocksize", l.block, group, "group of the scheme");
    if (l.n > 1 && l.k % group != 0)
        fail("columns are " + std::to_string(l.k) + ", expected a multiple of the blocksize " + std::to_string(l.block) +
             ": blocks reach into the next row");
    index_t const groups = tessera::detail::groups_of<Scheme>(l.k);
    auto const* const codes = reinterpret_cast<std::uint8_t const*>(l.codes.data());
    return tessera::detail::relay<Scheme>(
        l.n, l.k,
        [&](index_t i, index_t j) {
            index_t const at = i * l.k + j;
            return static_cast<std::uint32_t>(codes[at / 2]) >> (at % 2 == 0 ? 4 : 0) & 15u;
        },
        [&](index_t i, index_t g) {
            index_t const at = i * groups + g;
            if (l.nested_block == 0) return l.scales(at);
            float const value = l.nested_quant_map(static_cast<index_t>(l.absmax[static_cast<std::size_t>(at)]));
            return tessera::detail::rounded_product(value, l.scales(at / l.nested_block)) + l.nested_offset;
        },
        [](index_t, index_t) { return 0; }, fail);
}

} // namespace tessera::inline TESSERA_ABI::bitsandbytes
