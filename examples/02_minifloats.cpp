// SPDX-License-Identifier: MIT
// Minifloats: floating-point formats of at most eight bits as types. What becomes of one number in each, what a format can
// say at all, and what rounding does to the sum of many.

#include <tessera/core/philox.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/quant/convert.hpp>

#include "tour.hpp"

#include <cstdio>

namespace ts = tessera;

namespace {

template <class Format>
void show(float x) {
    auto const small = Format(x); // one byte, rounded to nearest even
    std::printf("%-8s  %d bits  code 0x%02x  %-8g  largest %g\n", Format::name, Format::bits, unsigned{small.to_bits()},
                double{static_cast<float>(small)}, double{Format::max_magnitude});
}

} // namespace

int main() {
    // The names say exponent and mantissa bits; `fn` has no infinity, `fnuz` also only one zero.
    std::printf("3.14159 becomes\n");
    show<ts::e5m2>(3.14159f);
    show<ts::e4m3fn>(3.14159f);
    show<ts::e4m3fnuz>(3.14159f);
    show<ts::e2m3>(3.14159f);
    show<ts::e2m1>(3.14159f);
    show<ts::minifloat<3, 1>>(3.14159f); // a format is two numbers: any other is made like this

    // Four bits have sixteen codes. All of the positive ones:
    std::printf("e2m1 has");
    for (unsigned code = 0; code < 8; ++code) std::printf(" %g", double{ts::e2m1::decode(code)});

    // What does not fit becomes what the format's card says, unless the caller says otherwise.
    float const large = 1000;
    std::printf("\n1000 in e4m3fn: %g, saturated: %g\n", double{ts::e4m3fn::decode(ts::e4m3fn::encode(large))},
                double{ts::e4m3fn::decode(
                    ts::e4m3fn::encode(large, ts::rounding::nearest_even, ts::overflow::saturate))});

    // 1/3 lies between 0 and 0.5: nearest is always 0.5, but stochastic rounding is right on average.
    ts::philox const random{1};
    double sum = 0;
    ts::index_t const n = 100000;
    for (ts::index_t i = 0; i < n; ++i)
        sum += double{ts::e2m1::decode(ts::e2m1::encode(1.0f / 3, ts::rounding::stochastic, ts::overflow::saturate,
                                                        random.bits(static_cast<std::uint64_t>(i))))};
    std::printf("1/3 in e2m1: nearest %g, mean of %ld stochastic roundings %.3f\n",
                double{ts::e2m1::decode(ts::e2m1::encode(1.0f / 3))}, long(n), sum / double(n));

    // Arrays go through SIMD code that gives the bits of the scalar definition above.
    ts::cpu<> const exec;
    auto const x = tour::normal(/*seed=*/2, 1000, 100);
    ts::matrix<ts::e4m3fn> packed{1000, 100};
    ts::matrix<float> back{1000, 100};
    ts::convert(exec, x, packed);
    ts::convert(exec, packed, back);
    std::printf("100000 normal numbers as e4m3fn: %ld bytes instead of %ld, SNR %.1f dB\n", long(packed.size()),
                long(x.size() * 4), tour::snr(x, back));
}
// Output:
// 3.14159 becomes
// e5m2      8 bits  code 0x42  3         largest 57344
// e4m3fn    8 bits  code 0x45  3.25      largest 448
// e4m3fnuz  8 bits  code 0x4d  3.25      largest 240
// e2m3      6 bits  code 0x15  3.25      largest 7.5
// e2m1      4 bits  code 0x05  3         largest 6
// e3m1i     5 bits  code 0x09  3         largest 12
// e2m1 has 0 0.5 1 1.5 2 3 4 6
// 1000 in e4m3fn: nan, saturated: 448
// 1/3 in e2m1: nearest 0.5, mean of 100000 stochastic roundings 0.335
// 100000 normal numbers as e4m3fn: 100000 bytes instead of 400000, SNR 31.5 dB
