// SPDX-License-Identifier: MIT
// Every type that ml_dtypes has, bit for bit: values, all bfloat16 and half inputs, a spread of float32, every tie
// between neighbouring codes with the floats on either side.

#include "reference_data.hpp"

#include <tessera/numerics/convert.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/numerics/half.hpp>
#include <tessera/numerics/int_format.hpp>

#include <bit>

namespace ts = tessera;
using tessera_test::mix;
using tessera_test::reference_file;

namespace {

constexpr std::uint32_t all_half = 65536;
constexpr std::uint32_t mixed = 16384;

/// Counts differences: one assertion a part, not one an input.
template <class Code, class Input, class Encode>
void check_codes(char const* part, std::vector<Code> const& expected, Input input, Encode encode) {
    std::size_t wrong = 0;
    std::size_t first = 0;
    for (std::size_t i = expected.size(); i-- > 0;) {
        if (encode(input(static_cast<std::uint32_t>(i))) != expected[i]) {
            ++wrong;
            first = i;
        }
    }
    CHECK_MESSAGE(wrong == 0, part, ": ", wrong, " codes differ, the first at ", first);
}

float from_bf16(std::uint32_t i) {
    return std::bit_cast<float>(i << 16);
}
float from_f16(std::uint32_t i) {
    return static_cast<float>(ts::fp16::from_bits(static_cast<std::uint16_t>(i)));
}
float from_mixed(std::uint32_t i) {
    return std::bit_cast<float>(mix(i));
}

template <class F>
void check_narrow(char const* name) {
    CAPTURE(name);
    reference_file file{name};
    auto const values = file.next<std::uint32_t>(1u << F::bits);
    check_codes(
        "decode", values, [](std::uint32_t i) { return i; },
        [](std::uint32_t i) { return std::bit_cast<std::uint32_t>(F::decode(i)); });
    auto const encode = [](float x) { return F{x}.to_bits(); };
    check_codes("bfloat16 inputs", file.next<std::uint8_t>(all_half), from_bf16, encode);
    check_codes("half inputs", file.next<std::uint8_t>(all_half), from_f16, encode);
    check_codes("mixed inputs", file.next<std::uint8_t>(mixed), from_mixed, encode);
    auto const count = file.next<std::uint32_t>(1)[0];
    CHECK(count >= 3u * (F::card.max_code - 1));
    auto const ties = file.next<float>(count);
    auto const codes = file.next<std::uint8_t>(count);
    check_codes(
        "ties", codes, [&](std::uint32_t i) { return ties[i]; }, encode);
    check_codes(
        "ties as double", codes, [&](std::uint32_t i) { return ties[i]; },
        [](float x) { return F{static_cast<double>(x)}.to_bits(); });
    CHECK(file.at_end());
}

template <class F>
void check_integer(char const* name) {
    CAPTURE(name);
    reference_file file{name};
    auto const values = file.next<float>(1u << F::bits);
    check_codes(
        "decode", values, [](std::uint32_t i) { return i; }, [](std::uint32_t i) { return F::decode(i); });
    auto const input = [](std::uint32_t i) { return static_cast<float>(F::min_value) + static_cast<float>(i) / 8; };
    check_codes("eighths", file.rest<std::uint8_t>(), input,
                [](float x) { return F::encode(x, ts::rounding::toward_zero); });
}

} // namespace

TEST_CASE("8-bit floats equal ml_dtypes") {
    check_narrow<ts::e3m4>("float8_e3m4");
    check_narrow<ts::e4m3>("float8_e4m3");
    check_narrow<ts::e4m3b11fnuz>("float8_e4m3b11fnuz");
    check_narrow<ts::e4m3fn>("float8_e4m3fn");
    check_narrow<ts::e4m3fnuz>("float8_e4m3fnuz");
    check_narrow<ts::e5m2>("float8_e5m2");
    check_narrow<ts::e5m2fnuz>("float8_e5m2fnuz");
    check_narrow<ts::e8m0>("float8_e8m0fnu");
}

TEST_CASE("6- and 4-bit floats equal ml_dtypes") {
    check_narrow<ts::e2m3>("float6_e2m3fn");
    check_narrow<ts::e3m2>("float6_e3m2fn");
    check_narrow<ts::e2m1>("float4_e2m1fn");
}

TEST_CASE("bf16 equals ml_dtypes") {
    reference_file file{"bfloat16"};
    auto const encode = [](float x) { return ts::bf16{x}.to_bits(); };
    check_codes("bfloat16 inputs", file.next<std::uint16_t>(all_half), from_bf16, encode);
    check_codes("half inputs", file.next<std::uint16_t>(all_half), from_f16, encode);
    check_codes("mixed inputs", file.next<std::uint16_t>(mixed), from_mixed, encode);
    auto const tie = [](std::uint32_t i) { return std::bit_cast<float>((i / 3 << 16) + 0x7fffu + i % 3); };
    check_codes("ties", file.rest<std::uint16_t>(), tie, encode);
}

TEST_CASE("fp16 equals numpy's half; NaN is quiet") {
    // numpy keeps a signalling NaN signalling; the processors' instructions, and this library, do not.
    auto const quiet = [](std::vector<std::uint16_t> codes) {
        for (auto& code : codes)
            if ((code & 0x7fff) > 0x7c00) code = static_cast<std::uint16_t>(code | 0x200);
        return codes;
    };
    auto const encode = [](float x) { return ts::fp16{x}.to_bits(); };
    reference_file file{"float16"};
    check_codes("bfloat16 inputs", quiet(file.next<std::uint16_t>(all_half)), from_bf16, encode);
    check_codes("half inputs", quiet(file.next<std::uint16_t>(all_half)), from_f16, encode);
    check_codes("mixed inputs", quiet(file.next<std::uint16_t>(mixed)), from_mixed, encode);
    auto const tie = [](std::uint32_t i) {
        std::uint32_t const code = i / 3;
        double const next = code == 0x7bff ? 65536.0 : static_cast<double>(ts::fp16::decode(code + 1));
        auto const middle = static_cast<float>((static_cast<double>(ts::fp16::decode(code)) + next) / 2);
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(middle) + i % 3 - 1);
    };
    check_codes("ties", file.rest<std::uint16_t>(), tie, encode);
}

TEST_CASE("small integers equal ml_dtypes in range") {
    check_integer<ts::int2>("int2");
    check_integer<ts::uint2>("uint2");
    check_integer<ts::int4>("int4");
    check_integer<ts::uint4>("uint4");
}
