// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Scalar conversion between arrays of element types: out[i] = encode(decode(in[i])). It is the definition that the
/// vector kernels are compared with, bit for bit. Every conversion goes through float32, which holds every value of
/// every format of this layer: one rounding.

#include "../core/macros.hpp"
#include "../core/types.hpp"
#include "float_card.hpp"
#include "fp8.hpp"
#include "half.hpp"
#include "int_format.hpp"

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class T>
struct format_of;
template <>
struct format_of<float> {
    using type = fp32;
};
template <>
struct format_of<std::int8_t> {
    using type = int8;
};
template <>
struct format_of<std::uint8_t> {
    using type = uint8;
};
template <class T>
requires element_format<T> && requires(T x) {
    x.to_bits();
}
struct format_of<T> {
    using type = T;
};

} // namespace detail

/// The format that the element type of an array stores: its own type, or fp32, int8, uint8 for the built-in ones.
template <class T>
using format_of_t = typename detail::format_of<std::remove_cv_t<T>>::type;

/// float, std::int8_t, std::uint8_t, fp16, bf16, the minifloats, e8m0, the small integers.
template <class T>
concept storable_element = requires {
    typename format_of_t<T>;
};

/// The overflow option that F::encode has by default.
template <element_format F>
inline constexpr overflow default_overflow = [] {
    if constexpr (requires { F::card.default_overflow; })
        return F::card.default_overflow;
    else
        return overflow::saturate;
}();

/// The code that an array element holds.
template <storable_element T>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint32_t code_of(T x) noexcept {
    if constexpr (std::same_as<T, float>)
        return detail::bit_cast<std::uint32_t>(x);
    else if constexpr (std::integral<T>)
        return static_cast<std::uint8_t>(x);
    else
        return x.to_bits();
}

/// The array element that holds a code.
template <storable_element T>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr T element_of(std::uint32_t code) noexcept {
    if constexpr (std::same_as<T, float>)
        return detail::bit_cast<float>(code);
    else if constexpr (std::integral<T>)
        return static_cast<T>(code);
    else
        return T::from_bits(static_cast<decltype(T{}.to_bits())>(code));
}

/// The value of an element; a NaN float keeps its bits.
template <storable_element T>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr float to_float(T x) noexcept {
    return format_of_t<T>::decode(code_of(x));
}

/// The element nearest to x, with the default options of its format.
template <storable_element T>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr T from_float(float x) noexcept {
    if constexpr (std::same_as<T, fp16> || std::same_as<T, bf16>)
        return T{x};
    else
        return element_of<T>(format_of_t<T>::encode(x));
}

/// out[i] = in[i] with the default options of Out's format.
template <storable_element In, storable_element Out>
TESSERA_HOST_DEVICE constexpr void convert_array(In const* in, // (n)
                                                 Out* out,     // (n)
                                                 index_t n) noexcept {
    for (index_t i = 0; i < n; ++i) out[i] = from_float<Out>(to_float(in[i]));
}

/// out[i] = in[i] with given options; `random` is read for stochastic rounding only.
template <storable_element In, storable_element Out>
TESSERA_HOST_DEVICE constexpr void convert_array(In const* in, // (n)
                                                 Out* out,     // (n)
                                                 index_t n, rounding mode, overflow beyond,
                                                 std::uint32_t const* random = nullptr) noexcept { // (n)
    bool const drawn = mode == rounding::stochastic && random != nullptr;
    for (index_t i = 0; i < n; ++i)
        out[i] = element_of<Out>(format_of_t<Out>::encode(to_float(in[i]), mode, beyond, drawn ? random[i] : 0u));
}

} // namespace tessera::inline TESSERA_ABI
