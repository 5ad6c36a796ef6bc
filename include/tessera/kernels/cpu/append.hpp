// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// One token of one KV head into the format of a cache, on the CPU; kernels/ref/append.hpp is the definition, and the
/// result is the same bits.

#include "../ref/append.hpp"
#include "attention_tile.hpp"
#include "prepare.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Arch, class Parallel, class Element>
struct kernel<op::append, cpu<Arch, Parallel>, Element> {
    template <class X>
    static void row(X const* x, index_t stride, index_t n, float* scratch, Element* to, float* scale) noexcept {
        if constexpr (detail::is_kv_code<Element>) {
            detail::encode_kv_row(x, stride, n, to);
        } else if constexpr (std::is_same_v<Element, float>) {
            detail::read_row<Arch>(x, stride, n, 1.0f, to);
        } else {
            detail::read_row<Arch>(x, stride, n, 1.0f, scratch);
            if constexpr (std::is_same_v<Element, std::int8_t>) {
                float const inverse = detail::int8_inverse(detail::magnitude<Arch>(scratch, n), *scale);
                if (inverse != 0)
                    static_cast<void>(detail::encode_int8<Arch>(scratch, n, inverse, to));
                else
                    for (index_t i = 0; i < n; ++i) to[i] = 0;
            } else {
                detail::write_row<Arch>(scratch, n, to, 1);
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
