// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `ternary`: the weights -1, 0 and 1 of BitNet b1.58 (arXiv:2402.17764) and of MatMul-free LM (arXiv:2406.02528) as a format of
/// 2 bits. A code is the value + 1, as in the published packed checkpoints and in GGUF's TQ2_0; code 3 is never made and reads as
/// 2. Encoding rounds, then saturates, whatever the overflow option says; NaN becomes 0. `storage/ternary.hpp` packs five to a byte.

#include "float_card.hpp"
#include "int_format.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// -1, 0 and 1.
struct ternary {
    static constexpr int bits = 2;
    static constexpr int min_value = -1;
    static constexpr int max_value = 1;
    static constexpr char const* name = "ternary";
    static constexpr float max_magnitude = 1.0f;
    static constexpr bool is_integer = true;

    /// The value of a code; bits above the format's are ignored.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr int integer(std::uint32_t code) noexcept {
        return static_cast<int>(code & 3u) - 1;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return static_cast<float>(integer(code));
    }
    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow beyond = overflow::saturate,
           std::uint32_t random = 0) noexcept {
        int const value = int8::integer(int8::encode(x, mode, beyond, random));
        return static_cast<std::uint32_t>(value < min_value ? 0 : value > max_value ? 2 : value + 1);
    }
};

static_assert(element_format<ternary>);

} // namespace tessera::inline TESSERA_ABI
