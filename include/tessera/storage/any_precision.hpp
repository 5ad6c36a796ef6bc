// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Nested codes in bit planes (Any-Precision LLM, arXiv:2402.10517): one set of codes of `parent` bits whose first b bits are
/// the codes of a b-bit model, for every b from `seed` on. `any_precision<Bits>` is the view of one width and
/// `any_precision_tensor` the owner, which gives views of all of them without copying: `q.prefix<3>()`, `q.prefix<8>()`.
///
///     W(n, k) = table_b[n][first b bits of code(n, k)]
///
/// * planes [parent][n][row bytes]: the most significant first, so that a model is a contiguous prefix; column k is bit k mod 8
///   of byte k / 8 of a row;
/// * tables: for every width, fp16 [n][2^b], ascending. All widths from 3 to 8 take 504 numbers a row.
///
/// Every code is valid. `any_precision_word` is the place of a weight in the words of the authors' files.

#include "buffer.hpp"
#include "vector_storage.hpp"

#include "../numerics/half.hpp"

#include <cstdint>
#include <cstring>

namespace tessera::inline TESSERA_ABI {

/// The first Bits planes, with their tables; a view.
template <int Bits>
class any_precision {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: any_precision<Bits> has codes of 1 to 8 bits");

public:
    using is_tile_storage = void;
    using value_type = fp16;
    using stored_scale = detail::without_scale;
    static constexpr int code_bits = Bits;
    static constexpr index_t dims = 1;
    static constexpr index_t table_size = index_t{1} << Bits;
    static constexpr index_t group_columns = 0;
    static constexpr detail::table_kind tables = detail::table_kind::row;

    constexpr any_precision() noexcept = default;
    any_precision(std::uint8_t const* planes, fp16 const* values, index_t n, index_t k)
        : planes_{planes}, values_{values}, rows_{n}, cols_{k} {
        check_shape(n, k);
        check::not_null("any_precision", "the planes", planes, n * k);
        check::not_null("any_precision", "the tables", values, n * k);
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    static constexpr index_t row_bytes(index_t k) noexcept { return ceil_div(k, 8); }
    constexpr index_t plane_bytes() const noexcept { return rows_ * row_bytes(cols_); }
    constexpr std::uint8_t const* planes() const noexcept { return planes_; }
    constexpr fp16 const* values() const noexcept { return values_; }
    constexpr index_t group() const noexcept { return maximum(cols_, 1); }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, group()); }
    /// Bytes of this width: its planes and its tables.
    constexpr index_t bytes() const noexcept {
        return Bits * plane_bytes() + rows_ * table_size * static_cast<index_t>(sizeof(fp16));
    }

    /// Eight codes at a time: a byte of each plane.
    void load_codes(index_t n, index_t first, index_t count, std::uint16_t* codes) const noexcept {
        std::uint8_t const* const row = planes_ + n * row_bytes(cols_);
        for (index_t i = 0; i < count;) {
            index_t const k = first + i;
            index_t const here = minimum(8 - k % 8, count - i);
            for (index_t j = 0; j < here; ++j) codes[i + j] = 0;
            for (int p = 0; p < Bits; ++p) {
                unsigned const byte = static_cast<unsigned>(row[p * plane_bytes() + k / 8]) >> (k % 8);
                for (index_t j = 0; j < here; ++j) codes[i + j] = static_cast<std::uint16_t>(2u * codes[i + j] + (byte >> j & 1u));
            }
            i += here;
        }
    }
    std::uint32_t code(index_t n, index_t k) const noexcept {
        std::uint16_t c;
        load_codes(n, k, 1, &c);
        return c;
    }
    constexpr float table_value(index_t n, index_t, std::uint32_t code, int) const noexcept {
        return static_cast<float>(values_[n * table_size + code]);
    }
    float operator()(index_t n, index_t k) const noexcept { return table_value(n, 0, code(n, k), 0); }
    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        detail::decode_lookups(*this, n0, n1, k0, k1, out, stride);
    }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(planes_, Bits * plane_bytes());
        f(values_, rows_ * cols_ == 0 ? 0 : rows_ * table_size * static_cast<index_t>(sizeof(fp16)));
    }

    static void check_shape(index_t n, index_t k) {
        check::within("any_precision", "rows", n, 0, index_t{1} << 40);
        check::within("any_precision", "columns", k, 0, minimum(index_t{1} << 40, (index_t{1} << 48) / maximum(n, 1)));
    }

private:
    std::uint8_t const* planes_ = nullptr;
    fp16 const* values_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of nested codes and the tables of every width; zeros until written. A move leaves an empty one.
class any_precision_tensor {
public:
    any_precision_tensor() noexcept = default;
    /// @param seed the narrowest width, @param parent the widest.
    any_precision_tensor(index_t n, index_t k, int seed, int parent) : rows_{n}, cols_{k}, seed_{seed}, parent_{parent} {
        any_precision<8>::check_shape(n, k);
        check::within("any_precision_tensor", "bits of the parent", parent, 1, 8);
        check::within("any_precision_tensor", "bits of the seed", seed, 1, parent);
        planes_ = buffer<std::uint8_t>{parent * plane_bytes()};
        values_ = buffer<fp16>{n * ((index_t{2} << parent) - (index_t{1} << seed))};
        for (std::uint8_t& b : planes_) b = 0;
        for (fp16& v : values_) v = fp16{0.0f};
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    int seed_bits() const noexcept { return seed_; }
    int parent_bits() const noexcept { return parent_; }
    /// Bytes of all widths together.
    index_t bytes() const noexcept { return planes_.size() + values_.size() * static_cast<index_t>(sizeof(fp16)); }

    /// The table of row n at a width.
    fp16* table(int bits, index_t n) noexcept { return values_.data() + table_offset(bits) + n * (index_t{1} << bits); }
    std::uint8_t* planes() noexcept { return planes_.data(); }
    /// Sets the parent's code of a weight.
    void set_code(index_t n, index_t k, std::uint32_t code) noexcept {
        for (int p = 0; p < parent_; ++p) {
            std::uint8_t& byte = planes_[p * plane_bytes() + n * ceil_div(cols_, 8) + k / 8];
            auto const mask = static_cast<std::uint8_t>(1u << (k % 8));
            byte = static_cast<std::uint8_t>((code >> (parent_ - 1 - p) & 1u) != 0 ? byte | mask : byte & ~mask);
        }
    }

    /// The model of Bits bits.
    template <int Bits>
    any_precision<Bits> prefix() const& {
        check::within("any_precision_tensor", "bits of the prefix", Bits, seed_, parent_);
        return {planes_.data(), values_.data() + table_offset(Bits), rows_, cols_};
    }
    template <int Bits>
    void prefix() const&& = delete;
    /// f(prefix) for a width that is known when the program runs.
    template <class F>
    void visit_prefix(int bits, F const& f) const {
        check::within("any_precision_tensor", "bits of the prefix", bits, seed_, parent_);
        switch (bits) {
        case 1: return f(prefix<1>());
        case 2: return f(prefix<2>());
        case 3: return f(prefix<3>());
        case 4: return f(prefix<4>());
        case 5: return f(prefix<5>());
        case 6: return f(prefix<6>());
        case 7: return f(prefix<7>());
        default: return f(prefix<8>());
        }
    }

private:
    index_t plane_bytes() const noexcept { return rows_ * ceil_div(cols_, 8); }
    index_t table_offset(int bits) const noexcept { return rows_ * ((index_t{1} << bits) - (index_t{1} << seed_)); }

    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    detail::emptied_by_move<int> seed_;
    detail::emptied_by_move<int> parent_;
    buffer<std::uint8_t> planes_;
    buffer<fp16> values_;
};

/// Where the authors' files keep column k of a row of `columns` (a multiple of 32) in a plane: 32-bit word and bit. In 1024
/// columns (128 bytes, column 8 B + j at bit 7 - j of byte B) byte B belongs to thread B mod 32, whose word holds bytes t, t + 32,
/// t + 64, t + 96, the first the most significant; at the end of a row there are (bytes left) / 4 threads.
struct any_precision_place {
    index_t word;
    int bit;
};
constexpr any_precision_place any_precision_word(index_t k, index_t columns) noexcept {
    index_t const tile = k / 1024;
    index_t const bytes = minimum(1024, columns - tile * 1024) / 8;
    index_t const threads = bytes / 4;
    index_t const byte = k % 1024 / 8;
    return {tile * 32 + byte % threads, static_cast<int>(8 * (3 - byte / threads) + 7 - k % 8)};
}

} // namespace tessera::inline TESSERA_ABI
