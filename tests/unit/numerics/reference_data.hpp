// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Reads the vectors of tests/data/numerics (its README gives their layout).

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace tessera_test {

class reference_file {
public:
    explicit reference_file(std::string const& name) {
        std::ifstream file(std::string{TESSERA_TEST_DATA "/numerics/"} + name + ".bin", std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(file), {});
        REQUIRE_MESSAGE(!bytes_.empty(), "cannot read the vectors of ", name);
    }

    /// The next n values.
    template <class T>
    std::vector<T> next(std::size_t n) {
        REQUIRE(offset_ + n * sizeof(T) <= bytes_.size());
        std::vector<T> values(n);
        std::memcpy(values.data(), bytes_.data() + offset_, n * sizeof(T));
        offset_ += n * sizeof(T);
        return values;
    }

    /// All values that are left.
    template <class T>
    std::vector<T> rest() {
        return next<T>((bytes_.size() - offset_) / sizeof(T));
    }

    [[nodiscard]] bool at_end() const { return offset_ == bytes_.size(); }

private:
    std::vector<char> bytes_;
    std::size_t offset_ = 0;
};

/// Spreads 0, 1, ... over all float32 bit patterns; make.py has the same lines.
constexpr std::uint32_t mix(std::uint32_t i) {
    std::uint32_t x = i * 0x9E3779B1u;
    x ^= x >> 15;
    x *= 0x85EBCA77u;
    x ^= x >> 13;
    return x;
}

} // namespace tessera_test
