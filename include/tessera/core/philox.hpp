// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Philox4x32-10, a counter-based random number generator (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As
/// Easy as 1, 2, 3", SC 2011, section 3.3). The i-th number of a stream is a pure function of (seed, stream, i): any
/// thread, on any backend, makes the same ones in any order.

#include "types.hpp"

#include <array>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// Random numbers as a function of their index.
class philox {
public:
    using counter_type = std::array<std::uint32_t, 4>;
    using key_type = std::array<std::uint32_t, 2>;

    /// @param seed   selects the sequence; @param stream an independent sequence of the same seed (a tensor, a step).
    TESSERA_HOST_DEVICE constexpr explicit philox(std::uint64_t seed, std::uint64_t stream = 0) noexcept
        : seed_{seed}, stream_{stream} {}

    /// The ten-round bijection of the paper: 128 random bits for a counter and a key.
    static constexpr counter_type block(counter_type c, key_type k) noexcept {
        std::uint32_t words[4] = {c[0], c[1], c[2], c[3]};
        mix(words, k[0], k[1]);
        return {words[0], words[1], words[2], words[3]};
    }

    /// The i-th 32-bit number of the stream.
    TESSERA_HOST_DEVICE constexpr std::uint32_t bits(std::uint64_t i) const noexcept {
        std::uint64_t const b = i / 4;
        std::uint32_t words[4] = {static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(b >> 32),
                                  static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)};
        mix(words, static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32));
        return words[i % 4];
    }

    /// The i-th number uniform in [0, 1), 24 random bits.
    TESSERA_HOST_DEVICE constexpr float uniform(std::uint64_t i) const noexcept {
        return static_cast<float>(bits(i) >> 8) * 0x1p-24f;
    }

    /// The i-th number of mean 0 and variance 1: the sum of twelve 16-bit uniforms less 6 (Irwin-Hall). Its tails end at
    /// 6; where exact normal tails matter, transform `uniform` instead.
    TESSERA_HOST_DEVICE constexpr float normal(std::uint64_t i) const noexcept {
        float sum = -6.0f;
        for (std::uint64_t j = 0; j < 6; ++j) {
            std::uint32_t const b = bits(i * 6 + j);
            sum += (static_cast<float>(b & 0xffffu) + static_cast<float>(b >> 16) + 1.0f) * 0x1p-16f;
        }
        return sum;
    }

private:
    /// `block` in place, of arrays that a device has too.
    TESSERA_HOST_DEVICE static constexpr void mix(std::uint32_t (&c)[4], std::uint32_t k0, std::uint32_t k1) noexcept {
        for (int round = 0; round < 10; ++round) {
            std::uint64_t const p0 = std::uint64_t{0xD2511F53u} * c[0];
            std::uint64_t const p1 = std::uint64_t{0xCD9E8D57u} * c[2];
            c[0] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0;
            c[1] = static_cast<std::uint32_t>(p1);
            c[2] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1;
            c[3] = static_cast<std::uint32_t>(p0);
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
    }

    std::uint64_t seed_;
    std::uint64_t stream_;
};

} // namespace tessera::inline TESSERA_ABI
