// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Encodings that are multiplied by the library's one operator for all codes (`any_coded`): classes as in encodings.hpp, which cost
/// a decoder's compile time and no kernel's.

#include "encodings.hpp"

#include <tessera/dispatch/any_coded.hpp>
#include <tessera/quant/ternary.hpp>

namespace compress {

/// An encoding of coded storage.
template <class Encoding>
class erased : public Encoding {
public:
    using Encoding::Encoding;
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::any_coded<>, Preparation>{ts::any_coded<>{Encoding::template op<Preparation>().storage()}};
    }
};

/// Ternary weights, five in a byte.
template <class Range>
class five_in_a_byte {
public:
    static constexpr index_t multiple = 1;
    explicit five_in_a_byte(weight_view const& w)
        : stored_{ts::pack_base3(ts::quantize<ts::ternary_g128>(ts::cpu<ts::native_arch, ts::serial>{}, w, Range{}))} {}
    index_t bytes() const { return stored_.view().bytes(); }
    void add_row(index_t n, float* out) const { detail::add_elements(stored_.view(), n, stored_.view().cols(), out); }
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::base3<ts::ternary_g128>, Preparation>{stored_.view()};
    }

private:
    ts::base3_tensor<ts::ternary_g128> stored_;
};

} // namespace compress
