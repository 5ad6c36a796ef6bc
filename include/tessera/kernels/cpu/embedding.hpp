// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// embedding on the CPU: dense rows are converted a register at a time, blocks decoded in order, everything else comes from
/// `kernel<op::decode>`. float32 rows are decoded in place, narrower ones through a row of scratch per worker.

#include "../../core/view.hpp"
#include "../../simd/reduce.hpp"
#include "../../storage/blocked.hpp"
#include "../kernel.hpp"
#include "decode.hpp"

#include <cstddef>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Row `id` of the table as float32.
template <class Exec, class Storage>
struct row_decoder {
    using tiles = kernel<op::decode, Exec, Storage>;
    static index_t scratch_bytes(Storage const& table) noexcept { return tiles::scratch_bytes(table); }
    static void run(Storage const& table, index_t id, float* out, std::byte* scratch) noexcept {
        index_t const k = storage_columns(table);
        tiles::tile(table, id, id + 1, 0, k, out, k, scratch);
    }
};

template <class Exec, block_format Format>
struct row_decoder<Exec, blocked<Format>> {
    static index_t scratch_bytes(blocked<Format> const&) noexcept { return 0; }
    static void run(blocked<Format> const& table, index_t id, float* out, std::byte*) noexcept {
        typename Format::block const* const blocks = table.row(id);
        for (index_t b = 0; b < table.blocks_per_row(); ++b)
            for (int g = 0; g < Format::block_size / Format::group_size; ++g) {
                float const scale = Format::scale(blocks[b], g);
                [[maybe_unused]] float const offset = Format::minimum(blocks[b], g);
                for (int i = g * Format::group_size; i < (g + 1) * Format::group_size; ++i) {
                    float const product = scale * value_of_code<Format>(Format::code(blocks[b], i));
                    if constexpr (Format::has_minimum)
                        out[b * Format::block_size + i] = product + offset;
                    else
                        out[b * Format::block_size + i] = product;
                }
            }
    }
};

} // namespace detail

template <class Arch, class Parallel, class Storage>
struct kernel<op::embedding, cpu<Arch, Parallel>, Storage> {
    using exec_type = cpu<Arch, Parallel>;
    using decoder = detail::row_decoder<exec_type, Storage>;

    /// Scratch of one worker, for elements Y of the output.
    template <class Y>
    static index_t scratch_bytes(Storage const& table) noexcept {
        index_t const row = std::is_same_v<Y, float> ? 0 : detail::storage_columns(table) * index_t{sizeof(float)};
        return round_up(row, config::cache_line) + round_up(decoder::scratch_bytes(table), config::cache_line);
    }

    template <class Id, class Y>
    static void run(exec_type const& exec, Storage const& table, vector_view<Id const> ids, matrix_view<Y> y,
                    std::byte* scratch) noexcept {
        index_t const k = y.extent(1);
        index_t const each = scratch_bytes<Y>(table);
        parallel_for(exec.parallel(), ids.extent(0), maximum(1, 16384 / maximum(k, 1)),
                     [&](index_t first, index_t last, index_t worker) noexcept {
                         std::byte* const mine = scratch + worker * each;
                         for (index_t t = first; t < last; ++t)
                             row(table, static_cast<index_t>(ids[t]), y.data_handle() + t * y.stride(0), k, mine);
                     });
    }

private:
    template <class Y>
    static void row(Storage const& table, index_t id, Y* out, index_t k, std::byte* scratch) noexcept {
        if constexpr (std::is_same_v<Y, float>) {
            decoder::run(table, id, out, scratch);
        } else {
            auto* const decoded = reinterpret_cast<float*>(scratch);
            decoder::run(table, id, decoded, scratch + round_up(k * index_t{sizeof(float)}, config::cache_line));
            convert(decoded, out, k);
        }
    }
    template <class From, class To>
    static void convert(From const* from, To* to, index_t k) noexcept {
        simd::for_each<Arch>(k, [&](index_t i, index_t count) noexcept {
            simd::store_partial<Arch>(to + i, simd::load_partial<Arch>(from + i, count), count);
        });
    }
};

/// Dense rows need no scratch.
template <class Arch, class Parallel, class T>
struct kernel<op::embedding, cpu<Arch, Parallel>, matrix_view<T const>> {
    template <class Y>
    static index_t scratch_bytes(matrix_view<T const> const&) noexcept {
        return 0;
    }

    template <class Id, class Y>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> table, vector_view<Id const> ids,
                    matrix_view<Y> y, std::byte*) noexcept {
        index_t const k = y.extent(1);
        parallel_for(exec.parallel(), ids.extent(0), maximum(1, 16384 / maximum(k, 1)),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t t = first; t < last; ++t) {
                             T const* const from = table.data_handle() + static_cast<index_t>(ids[t]) * table.stride(0);
                             Y* const to = y.data_handle() + t * y.stride(0);
                             simd::for_each<Arch>(k, [&](index_t i, index_t count) noexcept {
                                 simd::store_partial<Arch>(to + i, simd::load_partial<Arch>(from + i, count), count);
                             });
                         }
                     });
    }
};

} // namespace tessera::inline TESSERA_ABI
