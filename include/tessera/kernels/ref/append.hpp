// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// One token of one KV head into the format of a cache: `kernel<op::append, Exec, Element>::row`. Floats are rounded to
/// nearest even. int8, with a = max |x|, as in preparations (kernels/cpu/prepare.hpp):
///
///     scale = a / 127        code = round_half_even(x * (127 / a))
///
/// (schemes: storage/kv_row.hpp) in float32; a = 0 gives scale 0 and codes 0, a NaN or an infinity gives scale NaN and codes 0.

#include "../../storage/kv_row.hpp"
#include "../kernel.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// 127 / a where that is a number to multiply by, else 0; sets the scale.
inline float int8_inverse(float a, float& scale) noexcept {
    bool const usable = a > 0 && a <= std::numeric_limits<float>::max() &&
                        127.0f / a <= std::numeric_limits<float>::max();
    scale = usable ? a / 127.0f : 0.0f * a; // 0, or NaN for infinity and NaN
    return usable ? 127.0f / a : 0.0f;
}

} // namespace detail

namespace detail {

template <class X, class Scheme>
void encode_kv_row(X const* x, index_t stride, index_t n, kv_code<Scheme>* to) noexcept {
    kv_row<Scheme>::encode(x, stride, n, reinterpret_cast<std::uint8_t*>(to));
}

} // namespace detail

template <class Element>
struct kernel<op::append, reference, Element> {
    /// x has n elements `stride` apart; `scratch` has room for n floats.
    template <class X>
    static void row(X const* x, index_t stride, index_t n, float*, Element* to, float* scale) noexcept {
        if constexpr (detail::is_kv_code<Element>) {
            detail::encode_kv_row(x, stride, n, to);
        } else if constexpr (std::is_same_v<Element, std::int8_t>) {
            float a = 0;
            for (index_t i = 0; i < n; ++i) {
                float const v = std::fabs(static_cast<float>(x[i * stride]));
                if (v > a || v != v) a = v;
            }
            float const inverse = detail::int8_inverse(a, *scale);
            for (index_t i = 0; i < n; ++i)
                to[i] = inverse == 0 ? std::int8_t{0}
                                     : static_cast<std::int8_t>(std::nearbyint(static_cast<float>(x[i * stride]) * inverse));
        } else {
            for (index_t i = 0; i < n; ++i) to[i] = static_cast<Element>(static_cast<float>(x[i * stride]));
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
