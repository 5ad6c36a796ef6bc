// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How the gains of vector codes are stored, one gain for each group of a row.
///
/// * `gain_as<T>`: as a T (float, fp16, bf16).
/// * `gain_code<B>`: in B bits, 1 to 8: gain = norm(row) * level(code). `norms` (n) and `levels` (2^B) are float; codes are packed
///   by rows (storage/bitpack.hpp). Where levels come from is the quantiser's choice (quant/pvq_levels.hpp).
///
/// The scale of a group, what its integers p are multiplied by, is gain / |p| rounded to `scale_type`: float for gains in float,
/// else bf16, so that placed groups carry 16 bits for it; its error, at most 2^-8 of the gain, is of no weight beside the shape's.

#include "../core/error.hpp"
#include "../numerics/half.hpp"
#include "bitpack.hpp"
#include "buffer.hpp"

#include <cmath>
#include <concepts>
#include <limits>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// A gain a group, as T.
template <class T>
struct gain_as {
    static_assert(std::same_as<T, float> || std::same_as<T, fp16> || std::same_as<T, bf16>,
                  "tessera: gain_as<T> stores gains as float, fp16 or bf16");
    using scale_type = std::conditional_t<std::same_as<T, float>, float, bf16>;
    static constexpr char const* name = std::same_as<T, float> ? "gain fp32" : std::same_as<T, fp16> ? "gain fp16" : "gain bf16";
};

/// A gain a group, as one of 2^Bits multiples of a norm of the row.
template <int Bits>
struct gain_code {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: gain_code<Bits> needs 1 to 8 bits");
    using scale_type = bf16;
    static constexpr char text[] = {'g', 'a', 'i', 'n', ' ', static_cast<char>('0' + Bits), ' ', 'b', 'i', 't', 0};
    static constexpr char const* name = text;
};

/// The arrays of gains; views.
template <class Gain>
struct pvq_gains;

/// One array.
template <class T>
struct pvq_gains<gain_as<T>> {
    T const* gains = nullptr; ///< (n, groups)

    constexpr float gain(index_t n, index_t g, index_t groups) const noexcept { return static_cast<float>(gains[n * groups + g]); }
    void check_arrays(index_t n, index_t groups) const { check::not_null("pvq_matrix", "the array of gains", gains, n * groups); }
    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(index_t n, index_t groups, F const& f) const {
        f(gains, n * groups * static_cast<index_t>(sizeof(T)));
    }
};

/// Codes, norms and levels.
template <int Bits>
struct pvq_gains<gain_code<Bits>> {
    std::uint8_t const* codes = nullptr; ///< rows `bitpack::bytes(groups, Bits)` apart
    float const* norms = nullptr;        ///< (n)
    float const* levels = nullptr;       ///< (2^Bits)

    constexpr float gain(index_t n, index_t g, index_t groups) const noexcept {
        return norms[n] * levels[bitpack::get<Bits>(codes + n * bitpack::bytes(groups, Bits), g)];
    }
    void check_arrays(index_t n, index_t groups) const {
        check::not_null("pvq_matrix", "the array of gain codes", codes, n * groups);
        check::not_null("pvq_matrix", "the array of norms", norms, n);
        check::not_null("pvq_matrix", "the array of levels", levels, n * groups);
    }
    template <class F>
    void for_each_array(index_t n, index_t groups, F const& f) const {
        f(codes, n * bitpack::bytes(groups, Bits));
        f(norms, n * static_cast<index_t>(sizeof(float)));
        f(levels, n * groups == 0 ? index_t{0} : static_cast<index_t>(sizeof(float)) << Bits);
    }
};

namespace detail {

/// gain / |p| in the type that it is stored in; of finite gains so that p times it is finite.
template <class Scale>
Scale pvq_scale(float gain, std::int8_t const* p, index_t n) noexcept {
    constexpr float huge = std::numeric_limits<float>::max();
    int squares = 0;
    for (index_t i = 0; i < n; ++i) squares += p[i] * p[i];
    if (squares == 0) return Scale{};
    float scale = gain / std::sqrt(static_cast<float>(squares));
    if (std::fabs(scale) > huge / 128 && std::fabs(scale) <= huge) {
        int largest = 1;
        for (index_t i = 0; i < n; ++i) largest = p[i] > largest ? p[i] : -p[i] > largest ? -p[i] : largest;
        float const most = 0.99f * (huge / static_cast<float>(largest)); // rounding to bf16 may add 1 in 256
        if (std::fabs(scale) > most) scale = std::copysign(most, scale);
    }
    return static_cast<Scale>(scale);
}

/// Owners of the arrays, zeros until written.
template <class Gain>
class pvq_gain_arrays;

template <class T>
class pvq_gain_arrays<gain_as<T>> {
public:
    pvq_gain_arrays() noexcept = default;
    pvq_gain_arrays(index_t n, index_t groups) : gains_{n * groups} {
        for (T& g : gains_) g = T{};
    }
    T* gains() noexcept { return gains_.data(); }
    pvq_gains<gain_as<T>> view() const noexcept { return {gains_.data()}; }

private:
    buffer<T> gains_;
};

template <int Bits>
class pvq_gain_arrays<gain_code<Bits>> {
public:
    pvq_gain_arrays() noexcept = default;
    pvq_gain_arrays(index_t n, index_t groups)
        : codes_{n * bitpack::bytes(groups, Bits)}, norms_{n}, levels_{n * groups == 0 ? index_t{0} : index_t{1} << Bits} {
        for (std::uint8_t& c : codes_) c = 0;
        for (float& v : norms_) v = 0;
        for (float& v : levels_) v = 0;
    }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    float* norms() noexcept { return norms_.data(); }
    float* levels() noexcept { return levels_.data(); }
    pvq_gains<gain_code<Bits>> view() const noexcept { return {codes_.data(), norms_.data(), levels_.data()}; }

private:
    buffer<std::uint8_t> codes_;
    buffer<float> norms_;
    buffer<float> levels_;
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
