// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes of tables that are data (storage/device_table.hpp) to fragments of bf16, in registers. Where their tables are meanwhile:
///
/// * of the tensor: in shared memory, in pieces of bf16, several times, so that fewer lanes meet in a bank; one number in codes of up to 4 bits
///   in pairs, which a register's two codes are the index of;
/// * of rows, with weights in one piece: in shared memory, those of a warp's rows, which it copies when it turns to them: up to 5 bits in a
///   bank for every lane, which no other lane meets (a word has one number of both its rows of a panel), more bits row after row;
/// * larger ones, those of groups, and those of rows in several pieces: where they are stored, through the first-level cache.

#include "../../storage/device_table.hpp"
#include "decode.cuh"

namespace tessera::inline TESSERA_ABI::detail {

enum class table_home { shared, lanes, rows, stored };

template <class Format, int Pieces>
    requires stored_table_format<Format>
struct fragment_decoder<Format, Pieces> {
    static constexpr int width = Format::width;
    static constexpr int dims = Format::dims;
    static constexpr int bits = Format::bits;
    using value_type = typename Format::value_type;
    /// An entry in shared memory: a number or a pair of them in a word, or more of those. One number of few bits: its pairs.
    static constexpr bool is_paired = dims == 1 && width <= 4;
    static constexpr int entry_words = dims <= 2 ? 1 : dims / 2;
    static constexpr int entries = is_paired ? 1 << 2 * (width % 8) : 1 << bits;
    static constexpr int once = Pieces * entries * entry_words * 4;
    static constexpr table_home home = Format::tables == table_kind::tensor                             ? once <= 64 * 1024 ? table_home::shared : table_home::stored
                                       : Format::tables == table_kind::group || Pieces > 1 || dims > 1 || bits > 8 ? table_home::stored
                                       : bits <= 5                                                                 ? table_home::lanes
                                                                                                                   : table_home::rows;
    /// Copies of the tensor's table: lane l reads the copy l % copies.
    static constexpr int copies = [] {
        int n = Pieces == 1 ? 32 / entry_words : 8;
        while (n > 1 && n * once > 32 * 1024) n /= 2;
        return n;
    }();
    /// Bytes for a panel of 16 rows of a warp, and for the 16 panels that the warps of a block have.
    static constexpr int panel_bytes = home == table_home::lanes ? 128 << bits : home == table_home::rows ? 32 << bits : 0;
    static constexpr int table_bytes = home == table_home::shared ? copies * once : 16 * panel_bytes;
    static constexpr bool gathers = home == table_home::stored;

    std::byte* table = nullptr; // of this lane's copy, or of its warp's rows

    template <int WarpPanels>
    __device__ static fragment_decoder of(std::byte* tables, int warp) {
        return {tables + (home == table_home::shared ? static_cast<int>(threadIdx.x) % copies * entry_words * 4 : warp * WarpPanels * panel_bytes)};
    }
    template <class Panels>
    __device__ static void fill(decode_table<Format> const&, Panels const& w, std::byte* tables) {
        if constexpr (home == table_home::shared) {
            value_type const* const from = w.tables();
            auto* const to = reinterpret_cast<std::uint32_t*>(tables);
            for (int i = static_cast<int>(threadIdx.x); i < Pieces * entries * entry_words; i += static_cast<int>(blockDim.x)) {
                int const piece = i / (entries * entry_words);
                int const entry = i / entry_words % entries;
                constexpr int mask = (1 << bits) - 1;
                int const low = dims > 1 ? entry * dims + i % entry_words * 2 : is_paired ? entry & ((1 << width % 8) - 1) & mask : entry;
                int const high = dims > 1 ? low + 1 : is_paired ? entry >> width % 8 & mask : entry;
                std::uint32_t const pair = piece_of<Pieces>(stored_to_float(from[low]), piece) | piece_of<Pieces>(stored_to_float(from[high]), piece) << 16;
                for (int c = 0; c < copies; ++c) to[((piece * entries + entry) * copies + c) * entry_words + i % entry_words] = pair;
            }
        }
    }
    template <int WarpPanels, class Panels>
    __device__ __forceinline__ void begin_rows(Panels const& w, index_t row) const {
        if constexpr (panel_bytes > 0) {
            int const lane = static_cast<int>(threadIdx.x) % 32;
            value_type const* const from = w.tables() + w.table_index(row, 0);
            __syncwarp(); // tables of the rows before have been read
            if constexpr (home == table_home::lanes) {
#pragma unroll
                for (int p = 0; p < WarpPanels; ++p) {
                    value_type const* const first = from + ((16 * p + lane / 4) << bits);
#pragma unroll 4
                    for (int e = 0; e < 1 << bits; ++e)
                        reinterpret_cast<std::uint32_t*>(table)[((p << bits) + e) * 32 + lane] = pack_bf16(stored_value(first + e), stored_value(first + (8 << bits) + e));
                }
            } else {
                auto* const to = reinterpret_cast<std::uint32_t*>(table);
                for (int i = lane; i < WarpPanels * 8 << bits; i += 32) to[i] = pack_bf16(stored_value(from + 2 * i), stored_value(from + 2 * i + 1));
            }
            __syncwarp();
        }
    }

    /// Of a lane: tables of its rows, of row g of a panel, and 8 rows on.
    struct stored_tables {
        value_type const* of_fragment[2][4];
    };
    struct bank_tables {
        std::uint32_t const* words;
    };
    struct row_tables {
        unsigned short const* of[2];
    };
    using origin_type = std::conditional_t<home == table_home::shared, no_origin,
                                           std::conditional_t<home == table_home::lanes, bank_tables,
                                                              std::conditional_t<home == table_home::rows, row_tables, stored_tables>>>;
    template <int P, class Panels>
    __device__ __forceinline__ origin_type origin(Panels const& w, index_t row, int block) const {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        if constexpr (home == table_home::shared) {
            return {};
        } else if constexpr (home == table_home::lanes) {
            return {reinterpret_cast<std::uint32_t const*>(table + P * panel_bytes) + lane};
        } else if constexpr (home == table_home::rows) {
            auto const* const first = reinterpret_cast<unsigned short const*>(table + P * panel_bytes) + (lane / 4 << bits);
            return {{first, first + (8 << bits)}};
        } else {
            constexpr int next = Format::tables == table_kind::tensor ? 0 : (8 << bits) * dims;
            stored_tables t;
#pragma unroll
            for (int f = 0; f < 4; ++f) { // groups end with fragments
                t.of_fragment[0][f] = w.tables() + w.table_index(row + 16 * P + lane / 4, w.group_at(64 * index_t{block} + 16 * f));
                t.of_fragment[1][f] = t.of_fragment[0][f] + next;
            }
            return t;
        }
    }

    template <int Step, int P, int Words, class Origin>
    __device__ __forceinline__ void decode(std::uint32_t const (&words)[Words], Origin const& origin, std::uint32_t (&a)[4]) const {
        if constexpr (dims >= 4) {
#pragma unroll
            for (int row = 0; row < 2; ++row) vector<Step, P>(code_of_vector<Step>(words, row), origin, row, a[row], a[row + 2]);
        } else {
#pragma unroll
            for (int r = 0; r < 4; ++r) a[r] = pair<Step, P>(codes_of_register<Step>(words, r), origin, r % 2);
        }
    }

private:
    // Rows of W that are not there have any bits: masks keep their look-ups within the tables.
    static constexpr std::uint32_t mask = static_cast<std::uint32_t>((std::uint64_t{1} << bits) - 1u);

    /// The bits of a register's pair of codes, or of its one code.
    template <int Step, int Words>
    __device__ static __forceinline__ std::uint32_t codes_of_register(std::uint32_t const (&words)[Words], int r) {
        if constexpr (width <= 4) {
            constexpr int steps = 4 / width;
            return words[Step / steps] >> (2 * width * (r + 4 * (Step % steps))) & ((1u << 2 * width) - 1u);
        } else if constexpr (width == 8) {
            return words[2 * Step + r / 2] >> (r % 2 * 16) & 0xffffu;
        } else {
            return words[4 * Step + r];
        }
    }
    template <int Step, int Words>
    __device__ static __forceinline__ std::uint32_t code_of_vector(std::uint32_t const (&words)[Words], int row) {
        constexpr int steps = 4 / width;
        constexpr int of_code = dims * width;
        return words[Step / steps] >> (of_code * (row + 2 * (Step % steps / (dims / 4)))) & mask;
    }
    /// Two numbers of a register.
    template <int Step, int P, class Origin>
    __device__ __forceinline__ std::uint32_t pair(std::uint32_t codes, Origin const& origin, int row) const {
        std::uint32_t const first = codes & mask;
        std::uint32_t const second = codes >> width % 32 & mask; // where a register has two codes
        if constexpr (home == table_home::shared) {
            auto const* const t = reinterpret_cast<std::uint32_t const*>(table) + P * entries * copies;
            if constexpr (is_paired)
                return t[codes * copies];
            else if constexpr (dims == 2)
                return t[first * copies];
            else
                return __byte_perm(t[first * copies], t[second * copies], 0x5410);
        } else if constexpr (home == table_home::lanes) {
            return __byte_perm(origin.words[first * 32], origin.words[second * 32], row == 0 ? 0x5410 : 0x7632);
        } else if constexpr (home == table_home::rows) {
            return std::uint32_t{origin.of[row][first]} | std::uint32_t{origin.of[row][second]} << 16;
        } else if constexpr (dims == 2) {
            return stored_pair<P>(origin.of_fragment[row][Step] + 2 * first);
        } else {
            return pair_of_pieces<P, Pieces>(stored_value(origin.of_fragment[row][Step] + first), stored_value(origin.of_fragment[row][Step] + second));
        }
    }
    /// Four numbers of a row of a fragment.
    template <int Step, int P, class Origin>
    __device__ __forceinline__ void vector(std::uint32_t code, Origin const& origin, int row, std::uint32_t& low, std::uint32_t& high) const {
        constexpr int first = dims == 8 ? Step % 2 * 4 : 0;
        if constexpr (home == table_home::shared) {
            auto const* const t = reinterpret_cast<std::uint32_t const*>(table);
            ::uint2 const v = *reinterpret_cast<::uint2 const*>(t + (P * entries + code) * (copies * entry_words) + first / 2);
            low = v.x;
            high = v.y;
        } else {
            value_type const* const from = origin.of_fragment[row][Step] + code * dims + first;
            low = stored_pair<P>(from);
            high = stored_pair<P>(from + 2);
        }
    }
    template <int P>
    __device__ static __forceinline__ std::uint32_t stored_pair(value_type const* from) {
        if constexpr (sizeof(value_type) == 4) {
            float2 const v = __ldg(reinterpret_cast<float2 const*>(from));
            return pair_of_pieces<P, Pieces>(v.x, v.y);
        } else {
            std::uint32_t const both = __ldg(reinterpret_cast<std::uint32_t const*>(from));
            float2 const v = __half22float2(*reinterpret_cast<__half2 const*>(&both));
            return pair_of_pieces<P, Pieces>(v.x, v.y);
        }
    }
    __device__ static __forceinline__ float stored_value(value_type const* from) {
        if constexpr (sizeof(value_type) == 4)
            return __ldg(from);
        else
            return __half2float(__ushort_as_half(__ldg(reinterpret_cast<unsigned short const*>(from))));
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
