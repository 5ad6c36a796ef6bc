// SPDX-License-Identifier: MIT
// Quantising a weight: a scheme is a type (number format, what shares a scale, the scale's own type, zero points), and one
// function makes any of them. What does each cost, in bits and in accuracy?

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/quantize.hpp>

#include "tour.hpp"

#include <cstdio>

namespace ts = tessera;

namespace {

// Schemes with a name (int4_g32, nf4_g64, ...) are aliases like these; any other is written down.
using mxfp4 = ts::scheme<ts::e2m1, ts::group<32>, ts::e8m0>;                 // OCP Microscaling: scales are powers of two
using fp8_blocks = ts::scheme<ts::e4m3fn, ts::block<128, 128>>;              // one float scale for a 128 x 128 block
using int3_g64 = ts::scheme<ts::uint3, ts::group<64>, ts::fp16, ts::affine>; // with zero points

template <class Scheme>
void show(char const* name, ts::matrix<float> const& w) {
    auto const q = ts::quantize<Scheme>(w); // owns packed codes, scales and zero points
    std::printf("%-18s %5.2f bits a weight  %6ld bytes  SNR %4.1f dB\n", name,
                8 * double(q.bytes()) / double(w.size()), long(q.bytes()), tour::snr(w, tour::decoded(q)));
}

} // namespace

int main() {
    auto const w = tour::normal(/*seed=*/1, 256, 512); // (n, k): n outputs, k inputs
    std::printf("%-18s %5.2f bits a weight  %6ld bytes\n", "float", 32.0, long(w.size() * 4));
    show<ts::int8_per_channel>("int8_per_channel", w);
    show<fp8_blocks>("fp8_blocks", w);
    show<ts::int4_g32>("int4_g32", w);
    show<ts::int4_g128>("int4_g128", w);
    show<ts::uint4_g32>("uint4_g32 (affine)", w);
    show<ts::nf4_g64>("nf4_g64", w);
    show<mxfp4>("mxfp4", w);
    show<int3_g64>("int3_g64 (affine)", w);

    // A quantised weight multiplies as it is: `linear` makes an operator of it, y = x Wᵀ. The second argument says what x
    // becomes on the way: nothing, or int8 with a scale for every 32 values, which integer instructions multiply.
    ts::cpu<> const exec;
    auto const x = tour::normal(/*seed=*/2, 16, 512);
    ts::matrix<float> exact{16, 256}, y{16, 256};
    auto const q = ts::quantize<ts::int4_g32>(w);
    ts::apply(ts::reference{}, ts::linear{w}, x, exact); // the definition, in double
    ts::apply(exec, ts::linear{q}, x, y);
    std::printf("y = x int4_g32T:           SNR %.1f dB\n", tour::snr(exact, y));

    // `place` packs the codes for this machine once; results keep their bits.
    auto const layer = ts::place(exec, ts::linear{q, ts::int8_per_group<32>{}});
    ts::apply(exec, layer, x, y);
    std::printf("the same, x in int8 too:   SNR %.1f dB\n", tour::snr(exact, y));
}
// Output:
// float              32.00 bits a weight  524288 bytes
// int8_per_channel    8.06 bits a weight  132096 bytes  SNR 42.9 dB
// fp8_blocks          8.00 bits a weight  131104 bytes  SNR 31.5 dB
// int4_g32            4.50 bits a weight   73728 bytes  SNR 20.4 dB
// int4_g128           4.12 bits a weight   67584 bytes  SNR 18.8 dB
// uint4_g32 (affine)  4.75 bits a weight   77824 bytes  SNR 22.0 dB
// nf4_g64             4.50 bits a weight   73728 bytes  SNR 20.8 dB
// mxfp4               4.25 bits a weight   69632 bytes  SNR 18.8 dB
// int3_g64 (affine)   3.38 bits a weight   55296 bytes  SNR 14.3 dB
// y = x int4_g32T:           SNR 20.7 dB
// the same, x in int8 too:   SNR 20.7 dB
