// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `pvq_matrix<Format, Gain>`: a view of a matrix (n, k) in pyramid vector codes, and `pvq_tensor<Format, Gain>`, its owner.
/// Format is a `pvq<N, K, ...>` (numerics/pvq.hpp), Gain a way to store gains (storage/pvq_gain.hpp). A row is cut into
/// ceil(k / N) groups; the last one may be shorter, its missing weights are zeros to the encoder and belong to no column.
///
///     w(n, g N + i) = scale(n, g) * p_i        scale = gain(n, g) / |p|, rounded to Gain::scale_type
///
/// Arrays: indices, bit-packed by rows without gaps, least significant bit first (a word of `word_bits` bits for every `together`
/// groups; rows start on a byte); and the arrays of gains.
///
/// There is no random access: a weight is decoded with its group. Indices are not checked: those that are none decode as
/// zeros. Products read placed codes (kernels/cpu/pvq.hpp), integers of a few bits with scales.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "../numerics/pvq.hpp"
#include "bitpack.hpp"
#include "code_source.hpp"
#include "pvq_gain.hpp"

#include <bit>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// "pvq<32, 22, 7, 1>, gain fp16"
template <class Format, class Gain>
struct pvq_storage_name {
    char text[96] = {};
    constexpr pvq_storage_name() noexcept {
        int at = 0;
        for (char const* const part : {Format::name, ", ", Gain::name})
            for (char const* s = part; *s != 0; ++s) text[at++] = *s;
    }
};
template <class Format, class Gain>
inline constexpr pvq_storage_name<Format, Gain> pvq_storage_text{};

} // namespace detail

/// A matrix (n, k) of vector codes; a view.
template <class Format, class Gain>
class pvq_matrix {
public:
    using pvq_format = Format;
    using gain_type = Gain;
    using scale_type = typename Gain::scale_type;
    /// What `describe` and files of placed operands call it.
    struct format {
        static constexpr char const* name = detail::pvq_storage_text<Format, Gain>.text;
    };

    constexpr pvq_matrix() noexcept = default;

    /// @param words rows `row_bytes(k)` apart
    pvq_matrix(std::uint8_t const* words, pvq_gains<Gain> const& gains, index_t n, index_t k)
        : words_{words}, gains_{gains}, rows_{n}, cols_{k} {
        check_shape(n, k);
        check::not_null("pvq_matrix", "the array of indices", words, n * k);
        gains.check_arrays(n, groups());
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, Format::group); }
    static constexpr index_t row_bytes(index_t k) noexcept {
        return ceil_div(ceil_div(ceil_div(k, Format::group), Format::together) * Format::word_bits, 8);
    }
    constexpr std::uint8_t const* words() const noexcept { return words_; }
    constexpr pvq_gains<Gain> const& gains() const noexcept { return gains_; }

    /// Stored bytes of all arrays.
    constexpr index_t bytes() const noexcept {
        index_t total = 0;
        for_each_array([&](void const*, index_t bytes) { total += bytes; });
        return total;
    }
    /// f(pointer, bytes) for each array.
    template <class F>
    constexpr void for_each_array(F const& f) const {
        f(words_, rows_ * row_bytes(cols_));
        gains_.for_each_array(rows_, groups(), f);
    }

    /// The index of group g of row n; one that is none may come of words that are none.
    typename Format::index_type index(index_t n, index_t g) const noexcept {
        index_t const word = g / Format::together;
        auto joined = bitpack::read_wide<typename Format::word_type>(words_ + n * row_bytes(cols_), word * Format::word_bits, Format::word_bits);
        if constexpr (Format::together == 1) {
            return joined;
        } else {
            constexpr auto count = static_cast<std::uint32_t>(Format::count.word(0));
            for (index_t i = g % Format::together; i > 0; --i) joined.divide(count);
            if (g % Format::together < Format::together - 1) return joined.divide(count);
            return joined < typename Format::word_type{count} ? joined.word(0) : std::uint64_t{count};
        }
    }

    /// The integers of group g of row n, all N of them; returns the scale.
    scale_type group(index_t n, index_t g, std::int8_t* p) const noexcept {
        Format::vector(index(n, g), p);
        return detail::pvq_scale<scale_type>(gains_.gain(n, g, groups()), p, Format::group);
    }

    /// out(n - n0, k - k0) = w(n, k) for the tile [n0, n1) x [k0, k1), rows of out `stride` apart.
    void decode(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        std::int8_t p[Format::group];
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1;) {
                index_t const g = k / Format::group;
                auto const scale = static_cast<float>(group(n, g, p));
                for (index_t const end = minimum(k1, (g + 1) * Format::group); k < end; ++k)
                    out[(n - n0) * stride + k - k0] = scale * static_cast<float>(p[k % Format::group]);
            }
    }

    static void check_shape(index_t n, index_t k) {
        check::within("pvq_matrix", "rows", n, 0, index_t{1} << 48);
        check::within("pvq_matrix", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
    }

private:
    std::uint8_t const* words_ = nullptr;
    pvq_gains<Gain> gains_{};
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of a matrix of vector codes; gains are zero until written. A move leaves an empty one.
template <class Format, class Gain>
class pvq_tensor {
public:
    using view_type = pvq_matrix<Format, Gain>;

    pvq_tensor() noexcept = default;
    pvq_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        view_type::check_shape(n, k);
        words_ = buffer<std::uint8_t>{n * view_type::row_bytes(k)};
        gains_ = detail::pvq_gain_arrays<Gain>{n, ceil_div(k, Format::group)};
        for (std::uint8_t& w : words_) w = 0;
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const noexcept { return view().bytes(); }
    std::uint8_t* words() noexcept { return words_.data(); }
    /// The arrays of gains: `gains()`, or `codes()`, `norms()` and `levels()`.
    detail::pvq_gain_arrays<Gain>& gain_arrays() noexcept { return gains_; }

    /// Indices of the `count` groups from g on, a multiple of `together`; as many as share a word, or as the row has left.
    void set_word(index_t n, index_t g, typename Format::index_type const* indices, index_t count) noexcept {
        typename Format::word_type joined;
        for (index_t i = count; i-- > 0;) {
            if constexpr (Format::together > 1) joined *= static_cast<std::uint32_t>(Format::count.word(0));
            joined += typename Format::word_type{indices[i]};
        }
        bitpack::write_wide(words_.data() + n * view_type::row_bytes(cols_), g / Format::together * Format::word_bits, Format::word_bits, joined);
    }

    view_type view() const& noexcept { return {words_.data(), gains_.view(), rows_, cols_}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& noexcept { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<std::uint8_t> words_;
    detail::pvq_gain_arrays<Gain> gains_;
};

namespace detail {

template <class Format, class Gain>
inline constexpr bool is_owner<pvq_tensor<Format, Gain>> = true;

} // namespace detail

/// out = the tile of w whose first weight is (n0, k0), of out's shape.
template <class Format, class Gain>
void decode_tile(pvq_matrix<Format, Gain> const& w, index_t n0, index_t k0, matrix_view<float> out) {
    check::elements("decode_tile", "out", out);
    check::within("decode_tile", "first row", n0, 0, w.rows() - out.extent(0));
    check::within("decode_tile", "first column", k0, 0, w.cols() - out.extent(1));
    check::equal("decode_tile", "stride of out's columns", out.extent(1) > 1 ? out.stride(1) : 1, 1, "rows are contiguous");
    w.decode(n0, n0 + out.extent(0), k0, k0 + out.extent(1), out.data_handle(), out.stride(0));
}

/// Placed, a group is its integers, as codes of as few bits as `Largest` needs, and its scale.
template <class Format, class Gain>
struct code_source<pvq_matrix<Format, Gain>> {
    using storage = pvq_matrix<Format, Gain>;
    using scale_type = typename Gain::scale_type;

    static constexpr bool is_coded = true;
    static constexpr bool is_integer = true;
    static constexpr int zero = static_cast<int>(Format::largest);
    static constexpr int bits = std::bit_width(2u * static_cast<unsigned>(Format::largest));
    static constexpr offset_kind offset = offset_kind::none;
    static constexpr index_t group = Format::group;

    static constexpr float value(std::uint32_t c) noexcept { return static_cast<float>(static_cast<int>(c) - zero); }
};

/// A panel's worth of one group of columns, decoded: what packing reads, because vector codes have no random access.
template <class Format, class Gain, index_t R>
struct pvq_strip {
    index_t row_count = 0;
    index_t column_count = 0;
    typename Gain::scale_type scales[R] = {};
    std::int8_t integers[R][Format::group] = {};

    constexpr index_t rows() const noexcept { return row_count; }
    constexpr index_t cols() const noexcept { return column_count; }
};

/// A strip has the codes of its matrix.
template <class Format, class Gain, index_t R>
struct code_source<pvq_strip<Format, Gain, R>> : code_source<pvq_matrix<Format, Gain>> {
    using storage = pvq_strip<Format, Gain, R>;
    using code_source<pvq_matrix<Format, Gain>>::zero;

    static constexpr std::uint32_t code(storage const& w, index_t n, index_t k) noexcept {
        return static_cast<std::uint32_t>(w.integers[n][k] + zero);
    }
    static constexpr float scale(storage const& w, index_t n, index_t) noexcept { return static_cast<float>(w.scales[n]); }
    static constexpr float minimum(storage const&, index_t, index_t) noexcept { return 0.0f; }
    static constexpr int zero_point(storage const&, index_t, index_t) noexcept { return 0; }
};

} // namespace tessera::inline TESSERA_ABI
