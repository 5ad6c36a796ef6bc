// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Storage that is read a tile at a time: vector codes have no random access, because a code stands for several weights. A
/// `tile_storage` is a trivially copyable view with `rows()`, `cols()`, `bytes()`, `for_each_array(f)` and
///
///     void decode_tile(n0, n1, k0, k1, out, stride) const noexcept   // out[(n - n0) * stride + k - k0] = W(n, k): the definition
///
/// and names itself by `using is_tile_storage = void`. Its kernel is kernels/cpu/vector.hpp's, over a `panel_decoder`.

#include "../core/error.hpp"
#include "../core/types.hpp"
#include "bitpack.hpp"

#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// See the file comment.
template <class Storage>
concept tile_storage = std::is_trivially_copyable_v<Storage> && requires(Storage const& w, float* out) {
    typename Storage::is_tile_storage;
    w.decode_tile(index_t{}, index_t{}, index_t{}, index_t{}, out, index_t{});
};

namespace detail {

/// Codes whose format is known at run time, and with it whether they have integer products: `takes(preparation)` says it, and
/// `require_preparation(preparation)` throws.
template <class Storage>
concept run_time_coded_storage = tile_storage<Storage> && requires { typename Storage::has_run_time_format; };

/// What a look-up's tables belong to.
enum class table_kind { tensor, row, group };

/// No scale: a table's values are the weights.
struct without_scale {};

/// Storage whose codes stand for `dims` neighbours in a row each, found in a table, times a scale of their group:
///
///     W(n, i dims + d) = scale(n, group of the column) * table(n, group)[code(n, i)][d]
///
/// with one rounding. Members: `code_bits` (1 to 16), `dims`, `tables`, `stored_scale` (float, fp16 or without_scale), `group()`
/// (columns, a multiple of dims), `load_codes(n, first, count, codes)`, `table_value(n, group, code, d)`, `scale(n, group)`; and where
/// they are known to the compiler, `group_columns` (those of a group, 0: the row) and `value_type` (of the tables: float or fp16).
template <class Storage>
concept lookup_storage = tile_storage<Storage> && requires(Storage const& w, std::uint16_t* codes) {
    { Storage::tables } -> std::convertible_to<table_kind>;
    w.load_codes(index_t{}, index_t{}, index_t{}, codes);
    w.table_value(index_t{}, index_t{}, std::uint32_t{}, 0);
};

/// Codes of one byte that stand for points of one grid: they have integer products (storage/grid_panels.hpp).
template <class Storage>
concept byte_grid_storage = lookup_storage<Storage> && Storage::code_bits == 8 && Storage::dims >= 2 && Storage::tables == table_kind::tensor;

/// Those of so many dimensions that tables of dot products stay in the cache: float32 products take them by bytes, too.
template <class Storage>
concept wide_grid_storage = byte_grid_storage<Storage> && Storage::dims >= 4;

/// The definition of every look-up storage.
template <class Storage>
void decode_lookups(Storage const& w, index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) noexcept {
    for (index_t n = n0; n < n1; ++n)
        for (index_t k = k0; k < k1; ++k) {
            std::uint16_t code;
            w.load_codes(n, k / Storage::dims, 1, &code);
            index_t const g = k / w.group();
            float value = w.table_value(n, g, code, static_cast<int>(k % Storage::dims));
            if constexpr (!std::is_same_v<typename Storage::stored_scale, without_scale>) value *= static_cast<float>(w.scale(n, g));
            out[(n - n0) * stride + k - k0] = value;
        }
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
