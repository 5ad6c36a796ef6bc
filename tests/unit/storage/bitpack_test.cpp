// SPDX-License-Identifier: MIT
// Packed codes: every code of every width at every position, and its neighbours; fields of every width at every bit.

#include <doctest/doctest.h>

#include <tessera/core/philox.hpp>
#include <tessera/numerics/wide_uint.hpp>
#include <tessera/storage/bitpack.hpp>

#include <array>
#include <cstdint>
#include <utility>

namespace bitpack = tessera::bitpack;
using tessera::index_t;

namespace {

constexpr index_t count = 17;

/// Bit by bit: what the file comment of bitpack.hpp says.
template <int Bits>
std::uint32_t by_definition(std::uint8_t const* row, index_t i) {
    std::uint32_t code = 0;
    for (int b = 0; b < Bits; ++b) {
        index_t const bit = i * Bits + b;
        code |= static_cast<std::uint32_t>(row[bit / 8] >> (bit % 8) & 1) << b;
    }
    return code;
}

template <int Bits>
void check_width() {
    CAPTURE(Bits);
    auto const size = static_cast<std::size_t>(bitpack::bytes(count, Bits));
    bool agrees = true;
    for (std::uint32_t background : {0u, 0x5au, 0xffu})
        for (index_t i = 0; i < count; ++i)
            for (std::uint32_t code = 0; code < 1u << Bits; ++code) {
                std::array<std::uint8_t, 32> row{};
                row.fill(static_cast<std::uint8_t>(background));
                auto const before = row;
                bitpack::set<Bits>(row.data(), i, code);
                for (index_t j = 0; j < count; ++j)
                    agrees = agrees && bitpack::get<Bits>(row.data(), j) == by_definition<Bits>(row.data(), j) &&
                             bitpack::get<Bits>(row.data(), j) ==
                                 (j == i ? code : bitpack::get<Bits>(before.data(), j));
                // Nothing beyond the packed bytes, and in the last byte nothing beyond the codes.
                for (std::size_t b = size; b < row.size(); ++b) agrees = agrees && row[b] == before[b];
                int const used = static_cast<int>(count * Bits % 8);
                if (used != 0) agrees = agrees && row[size - 1] >> used == before[size - 1] >> used;
            }
    CHECK(agrees);
}

} // namespace

TEST_CASE("every code of 1 to 8 bits at every position") {
    [&]<int... Less>(std::integer_sequence<int, Less...>) {
        (check_width<Less + 1>(), ...);
    }(std::make_integer_sequence<int, 8>{});
}

TEST_CASE("bytes of a row") {
    CHECK(bitpack::bytes(0, 3) == 0);
    CHECK(bitpack::bytes(1, 1) == 1);
    CHECK(bitpack::bytes(8, 1) == 1);
    CHECK(bitpack::bytes(3, 3) == 2);
    CHECK(bitpack::bytes(5, 8) == 5);
}

TEST_CASE("bits above a code's width are ignored") {
    std::uint8_t row[3] = {};
    bitpack::set<3>(row, 1, 0xffu);
    CHECK(bitpack::get<3>(row, 0) == 0);
    CHECK(bitpack::get<3>(row, 1) == 7);
    CHECK(bitpack::get<3>(row, 2) == 0);
}

TEST_CASE("no byte behind a field is read") {
    // A constant expression has no byte behind its array.
    constexpr auto field_at_the_end = [] {
        std::uint8_t const row[] = {0xff, 0xff, 0x7f};
        return bitpack::read_wide<tessera::wide_uint<1>>(row, 3, 20).word(0);
    };
    static_assert(field_at_the_end() == 0xfffff);
    constexpr auto two_words = [] {
        std::uint8_t const row[] = {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x07};
        return bitpack::read_wide<tessera::wide_uint<2>>(row, 5, 70).word(1);
    };
    static_assert(two_words() == 0x3f);
    CHECK(field_at_the_end() == 0xfffff);
}

TEST_CASE("fields of every width at every bit, and their neighbours") {
    using wide = tessera::wide_uint<3>;
    tessera::philox const random{3};
    for (int bits = 0; bits <= 192; bits += bits < 70 ? 1 : 13)
        for (index_t first = 0; first < 20; ++first) {
            std::array<std::uint8_t, 40> row{};
            row.fill(0xa5);
            auto const bit = [&](std::array<std::uint8_t, 40> const& of, index_t i) { return of[static_cast<std::size_t>(i / 8)] >> i % 8 & 1; };
            auto const before = row;
            wide value;
            for (int i = 0; i < bits; i += 64)
                value.set_word(i / 64, (random.bits(static_cast<std::uint64_t>(bits + i)) * 0x100000001u) &
                                           (bits - i < 64 ? (std::uint64_t{1} << (bits - i)) - 1 : ~std::uint64_t{0}));
            bitpack::write_wide(row.data(), first, bits, value);
            CHECK(bitpack::read_wide<wide>(row.data(), first, bits) == value);
            bool agrees = true;
            for (index_t i = 0; i < 320; ++i) {
                bool const is_field = i >= first && i < first + bits;
                int const expected = is_field ? static_cast<int>(value.word(static_cast<int>((i - first) / 64)) >> ((i - first) % 64) & 1) : bit(before, i);
                agrees = agrees && bit(row, i) == expected;
            }
            CHECK(agrees);
            if (bits <= 32) CHECK(bitpack::read(row.data(), first, bits) == value.word(0));
        }
}
