// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The decoder of look-ups (storage/table_panels.hpp): eight codes of R rows are unpacked at a time, by shifts of words that
/// hold a lane's codes, and looked up: in the tensor's table by permutation (simd/lookup.hpp), in the rows' own tables by a
/// gather, a lane each. Codes that stand for several weights are unpacked once for all of them. (Two weights a look-up, by a
/// table of pairs, does not pay here: a permutation is one instruction, a table of 256 pairs is a gather.)

#include "../../simd/lookup.hpp"
#include "../../storage/table_panels.hpp"
#include "vector.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// The codes of one eighth of a register's worth: code i of octet o of a chunk, in each lane's row.
template <class Arch, int Bits>
class code_octet {
    using slices = code_slices<Bits>;
    using ints = simd::ints<Arch>;
    static constexpr index_t R = simd::lanes<Arch>;

public:
    TESSERA_FORCE_INLINE code_octet(std::byte const* chunk, int o) noexcept {
        auto const* words = reinterpret_cast<std::int32_t const*>(chunk);
#pragma GCC unroll 5
        for (int s = 0; s < slices::count; ++s) {
            int const bit = o * 8 * slices::width(s);
            word_[s][0] = ints::load_unaligned(words + bit / 32 * R);
            if (slices::width(s) == 8) word_[s][1] = ints::load_unaligned(words + (bit / 32 + 1) * R);
            if (slices::width(s) < 4) word_[s][0] = word_[s][0] >> (bit % 32);
            words += slices::width(s) * R;
        }
    }
    /// Bits above the code may be anything where `Exact` is false.
    template <bool Exact>
    TESSERA_FORCE_INLINE ints code(int i) const noexcept {
        ints code(0);
#pragma GCC unroll 5
        for (int s = 0; s < slices::count; ++s) {
            int const width = slices::width(s);
            // The slice's bits move to where they are in the code.
            int const shift = (width == 8 ? i % 4 * 8 : i * width) - slices::first(s);
            ints const& word = word_[s][width == 8 ? i / 4 : 0];
            ints const part = shift >= 0 ? word >> shift : word << -shift;
            code = s == 0 ? part : simd::join_bits<Arch>(code, part, slices::first(s));
        }
        return Exact ? code & ints((1 << Bits) - 1) : code;
    }

private:
    ints word_[slices::count][2];
};

template <class Arch, index_t R, class Storage>
struct panel_decoder<Arch, prepacked<lookup<R>, Storage>> {
    static_assert(R == simd::lanes<Arch>,
                  "tessera: this operand was placed for another architecture; place it with the policy that applies it");
    using weights = prepacked<lookup<R>, Storage>;
    using floats = simd::floats<Arch>;
    using ints = simd::ints<Arch>;
    static constexpr bool is_placed = true;
    static constexpr int dims = static_cast<int>(weights::dims);

    static weights shape(weights const& w, std::byte const* data) noexcept { return weights{data, w}; }
    static index_t scratch_bytes(weights const&) noexcept { return 0; }

    panel_decoder(weights const& w, std::byte*) noexcept : w_{w} {
        alignas(64) std::int32_t lane[R];
        for (index_t r = 0; r < R; ++r) lane[r] = static_cast<std::int32_t>(r * weights::table_size);
        lane_ = ints::load_aligned(lane);
    }
    void start(index_t p) noexcept { start_at(w_.panel_data(p), p); }
    void start_at(std::byte const* panel, index_t) noexcept { panel_ = panel; }

    void decode(index_t k0, index_t k1, float* out) const noexcept {
        constexpr index_t octet = 8 * weights::dims;
        for (index_t k = k0; k < k1; k += octet, out += octet * R) {
            std::byte const* const chunk = panel_ + w_.code_offset() + k / weights::chunk_columns * weights::chunk_bytes;
            code_octet<Arch, weights::code_bits> const codes{chunk, static_cast<int>(k % weights::chunk_columns / octet)};
            simd::prefetch(chunk + prefetch_distance);
            index_t const g = k / w_.group();
            bool const is_one_group = !has_groups || k + octet <= (g + 1) * w_.group() || g + 1 >= w_.groups();
            if (is_one_group) {
                floats const scale = group_scale(g);
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) store(codes.template code<is_exact>(i), g, scale, out + i * dims * R);
            } else { // a group ends in here
                for (int i = 0; i < 8; ++i) {
                    index_t const group = minimum((k + i * dims) / w_.group(), w_.groups() - 1);
                    store(codes.template code<is_exact>(i), group, group_scale(group), out + i * dims * R);
                }
            }
        }
    }

    /// result[m] = the panel times a row of x each; codes are used as they are decoded, scales once for eight of them.
    template <int MR>
    void product(float const* const (&x)[MR], floats (&result)[MR]) const noexcept {
        constexpr index_t octet = 8 * weights::dims;
        for (floats& r : result) r = floats(0.0f);
        for (index_t k = 0; k < w_.cols(); k += octet) {
            std::byte const* const chunk = panel_ + w_.code_offset() + k / weights::chunk_columns * weights::chunk_bytes;
            code_octet<Arch, weights::code_bits> const codes{chunk, static_cast<int>(k % weights::chunk_columns / octet)};
            simd::prefetch(chunk + prefetch_distance);
            index_t const g = k / w_.group();
            if (k + octet <= minimum((g + 1) * w_.group(), w_.cols())) {
                floats sum[MR];
#pragma GCC unroll 8
                for (int i = 0; i < 8; ++i) {
                    floats v[dims];
                    values(codes.template code<is_exact>(i), g, v);
#pragma GCC unroll 8
                    for (int d = 0; d < dims; ++d)
#pragma GCC unroll 4
                        for (int m = 0; m < MR; ++m) {
                            floats const a(x[m][k + i * dims + d]);
                            sum[m] = i + d == 0 ? v[d] * a : simd::fma(v[d], a, sum[m]);
                        }
                }
                for (int m = 0; m < MR; ++m)
                    result[m] = weights::has_scale ? simd::fma(sum[m], group_scale(g), result[m]) : result[m] + sum[m];
            } else { // a group, or the row, ends in here
                for (int i = 0; i < 8 && k + i * dims < w_.cols(); ++i) {
                    index_t const column = k + i * dims;
                    index_t const here = column / w_.group();
                    floats v[dims];
                    values(codes.template code<is_exact>(i), here, v);
                    for (int d = 0; d < dims && column + d < w_.cols(); ++d)
                        for (int m = 0; m < MR; ++m)
                            result[m] = simd::fma(weights::has_scale ? v[d] * group_scale(here) : v[d], floats(x[m][column + d]), result[m]);
                }
            }
        }
    }

    static std::string name(weights const& w) {
        return std::to_string(weights::code_bits) + "-bit codes of " +
               (dims == 1 ? std::string{"weights"} : std::to_string(dims) + "-vectors") + ", " +
               (weights::tables == table_kind::tensor ? "one table"
                : weights::tables == table_kind::row  ? "a table a row"
                                                      : "a table of every " + std::to_string(w.group()) + " columns") +
               ", lookup<" + std::to_string(R) + ">";
    }

private:
    static constexpr bool is_exact = weights::tables != table_kind::tensor || !simd::ignores_high_bits<Arch, weights::table_size>;
    static constexpr bool has_groups = weights::has_scale || weights::tables == table_kind::group;

    TESSERA_FORCE_INLINE floats group_scale(index_t g) const noexcept {
        if constexpr (weights::has_scale)
            return simd::load<Arch>(reinterpret_cast<typename weights::stored_scale const*>(panel_ + w_.scale_offset()) + g * R);
        else
            return static_cast<void>(g), floats(1.0f);
    }
    /// The numbers of a code, before their scale.
    TESSERA_FORCE_INLINE void values(ints const& code, index_t g, floats (&v)[dims]) const noexcept {
        if constexpr (weights::tables == table_kind::tensor && weights::is_by_points) {
            simd::gather_pairs<Arch>(reinterpret_cast<float const*>(w_.data()), code, v[0], v[1]);
        } else {
#pragma GCC unroll 8
            for (int d = 0; d < dims; ++d) {
                if constexpr (weights::tables == table_kind::tensor) {
                    auto const* const table = reinterpret_cast<float const*>(w_.data()) + d * weights::padded_size;
                    v[d] = simd::look_up<Arch, weights::table_size>(table, code);
                } else {
                    index_t const at = weights::tables == table_kind::row ? 0 : g * R * weights::table_size;
                    v[d] = simd::gather<Arch>(reinterpret_cast<float const*>(panel_) + at, code + lane_, R);
                }
            }
        }
    }
    TESSERA_FORCE_INLINE void store(ints const& code, index_t g, floats const& scale, float* out) const noexcept {
        floats v[dims];
        values(code, g, v);
#pragma GCC unroll 8
        for (int d = 0; d < dims; ++d) simd::store<Arch>(out + d * R, weights::has_scale ? v[d] * scale : v[d]);
    }

    weights w_;
    ints lane_;
    std::byte const* panel_ = nullptr;
};

/// Canonical look-ups are packed when their turn comes.
template <class Arch, lookup_storage Storage>
    requires(!requires { typename Storage::layout; } && !wide_grid_storage<Storage>)
struct panel_decoder<Arch, Storage> : packing_decoder<Arch, Storage, prepacked<lookup<simd::lanes<Arch>>, Storage>> {
    using packing_decoder<Arch, Storage, prepacked<lookup<simd::lanes<Arch>>, Storage>>::packing_decoder;
};

} // namespace tessera::inline TESSERA_ABI::detail
