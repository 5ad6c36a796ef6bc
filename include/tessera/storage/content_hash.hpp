// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `content_hash`: 128 bits that say whether bytes are what they were. It finds damage and change; it is no signature, and
/// does not keep out who wants to deceive it.
///
/// Definition, for L bytes padded with zeros to a multiple of 64, read as native 64-bit words: lane i of 8 takes the words
/// 8 j + i one after another,
///
///     h_i <- fold(rotate_left(h_i xor word, 29) * P),    h_i = mix((i + 1) P) at first,    P = 2^64 / golden ratio
///
/// with fold(x) = x xor (x >> 32); each step a bijection of h and of the word, so that a change within one word always reaches the end. Then, with lanes in order,
/// low <- mix(low + h_i) from L, high <- mix(high xor rotate_left(h_i, 32)) from not L.

#include "../core/types.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// The hash of contents: 128 bits.
struct content_id {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    friend constexpr bool operator==(content_id const&, content_id const&) noexcept = default;

    /// 32 hexadecimal digits.
    std::string text() const {
        std::string out;
        for (std::uint64_t const word : {high, low})
            for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[word >> shift & 15];
        return out;
    }
};

/// Hashes bytes in pieces: the pieces' borders do not matter.
class content_hash {
public:
    constexpr content_hash() noexcept {
        for (std::uint64_t i = 0; i < lanes; ++i) state_[i] = mix((i + 1) * multiplier);
    }

    content_hash& add(void const* data, index_t bytes) noexcept {
        auto const* p = static_cast<std::byte const*>(data);
        std::size_t n = bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
        std::size_t const waiting = length_ % block;
        length_ += n;
        if (waiting > 0) {
            std::size_t const taken = n < block - waiting ? n : block - waiting;
            if (taken > 0) std::memcpy(rest_ + waiting, p, taken);
            if (waiting + taken < block) return *this;
            blocks(rest_, 1);
            p += taken;
            n -= taken;
        }
        blocks(p, n / block);
        if (n % block > 0) std::memcpy(rest_, p + n / block * block, n % block);
        return *this;
    }
    content_hash& add(std::uint64_t word) noexcept { return add(&word, sizeof word); }

    content_id finish() const noexcept {
        content_hash last = *this;
        if (std::size_t const waiting = length_ % block; waiting > 0) {
            std::memset(last.rest_ + waiting, 0, block - waiting);
            last.blocks(last.rest_, 1);
        }
        content_id id{length_, ~length_};
        for (std::uint64_t const h : last.state_) {
            id.low = mix(id.low + h);
            id.high = mix(id.high ^ std::rotl(h, 32));
        }
        return id;
    }

private:
    static constexpr std::size_t lanes = 8;
    static constexpr std::size_t block = 8 * lanes;
    static constexpr std::uint64_t multiplier = 0x9E3779B97F4A7C15;

    static constexpr std::uint64_t fold(std::uint64_t x) noexcept { return x ^ x >> 32; }
    static constexpr std::uint64_t mix(std::uint64_t x) noexcept {
        x = fold(x) * multiplier;
        x = (x ^ x >> 29) * multiplier;
        return fold(x);
    }
    void blocks(std::byte const* p, std::size_t count) noexcept {
        std::uint64_t h[lanes];
        std::memcpy(h, state_, sizeof h);
        for (; count > 0; --count, p += block) {
            std::uint64_t word[lanes];
            std::memcpy(word, p, block);
            for (std::size_t i = 0; i < lanes; ++i) h[i] = fold(std::rotl(h[i] ^ word[i], 29) * multiplier);
        }
        std::memcpy(state_, h, sizeof h);
    }

    std::uint64_t state_[lanes]{};
    std::byte rest_[block]{};
    std::uint64_t length_ = 0;
};

/// How much of some bytes is looked at.
enum class content_check {
    none,    ///< nothing
    sampled, ///< of more than 64 KiB their number and 16 pieces of 1 KiB, equally far apart: a change elsewhere is not seen
    whole,   ///< every byte
};

namespace detail {

inline void add_content(content_hash& hash, void const* data, index_t bytes, content_check check) noexcept {
    constexpr index_t pieces = 16;
    constexpr index_t piece = 1024;
    if (check == content_check::none || bytes <= 0) return;
    if (check == content_check::whole || bytes <= 64 * piece) {
        hash.add(data, bytes);
        return;
    }
    hash.add(static_cast<std::uint64_t>(bytes));
    for (index_t i = 0; i < pieces; ++i)
        hash.add(static_cast<std::byte const*>(data) + i * (bytes - piece) / (pieces - 1), piece);
}

} // namespace detail

/// The hash of some bytes, all or sampled.
inline content_id content_of(std::span<std::byte const> bytes, content_check check = content_check::whole) noexcept {
    content_hash hash;
    detail::add_content(hash, bytes.data(), static_cast<index_t>(bytes.size()), check);
    return hash.finish();
}

} // namespace tessera::inline TESSERA_ABI
