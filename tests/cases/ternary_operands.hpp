// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Ternary weights, five to a byte, for the laws of stored matrices on every backend.

#include "guarded.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/storage/ternary.hpp>

#include <cstdint>

namespace tessera_test {

/// Random bytes (of 3^5 values) and a few scales.
template <class Scheme>
struct base3_storage {
    static constexpr index_t group = Scheme::granularity_type::columns;
    static constexpr index_t column_unit = 1;
    ts::base3_tensor<Scheme> owner;
    base3_storage(index_t n, index_t k) : owner{n, k} {
        ts::philox const random{9};
        for (index_t i = 0; i < n * ts::base3<Scheme>::row_bytes(k); ++i)
            owner.codes()[i] = static_cast<std::uint8_t>(random.bits(static_cast<std::uint64_t>(i)) % 243);
        for (index_t i = 0; i < ts::base3<Scheme>::scales_of(n, k); ++i)
            owner.scales()[i] = static_cast<typename ts::base3<Scheme>::scale_type>(0.1f * static_cast<float>(i % 7 + 1));
    }
    auto view() const { return owner.view(); }
};

} // namespace tessera_test
