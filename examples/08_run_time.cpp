// SPDX-License-Identifier: MIT
// Chosen at run time: the formats of a model's tensors, which only its file knows, and the processor's instructions, which
// only the user's machine knows. CMake's tessera_add_formats compiles a small object for each pair that is named,
//
//     tessera_add_formats(app FORMATS q4_k ARCHS sse2 avx2 avx512_vnni neon64)
//
// and generates tessera_formats.hpp. This file compiles no product, and the program runs on every processor.

#include <tessera_formats.hpp>

#include <tessera/dispatch/dispatch.hpp>
#include <tessera/interop/gguf_writer.hpp>
#include <tessera/quant/convert.hpp>

#include "tour.hpp"

#include <cstdio>
#include <string>
#include <vector>

namespace ts = tessera;

int main() {
    // A model as a download would be: bytes, with tensors in formats of their own. (A writer refers to what it is given.)
    auto const w = tour::normal(/*seed=*/1, 64, 256);
    ts::matrix<ts::bf16> half{64, 256};
    ts::convert(ts::cpu<>{}, w, half);
    std::vector<ts::q4_k::block> blocks(64);
    ts::encode_row<ts::q4_k>(w.data(), w.size(), blocks.data());
    ts::gguf::writer out;
    out.add_tensor("exact", w.view());
    out.add_tensor("half", half.view());
    out.add_tensor("small", ts::blocked<ts::q4_k>{blocks.data(), 64, 256});
    auto const bytes = out.bytes();
    auto const model = ts::gguf::parse(bytes, "model.gguf");

    // `any_operator` is an operator of a type that is not known here. The policy says that the instructions are chosen when it
    // is placed; dense formats are always there, others where they are named.
    ts::cpu<ts::dispatched> const exec;
    auto const formats = tessera_formats::all();
    auto const x = tour::normal(2, 4, 256);
    ts::matrix<float> exact{4, 64}, y{4, 64};
    ts::apply(exec, formats.place(exec, model.tensor("exact")), x, exact);
    for (char const* const name : {"half", "small"}) {
        ts::any_operator<ts::cpu<ts::dispatched>> const layer = formats.place(exec, model.tensor(name));
        ts::apply(exec, layer, x, y);
        std::printf("%-5s is %s: SNR of y %.1f dB\n", name, ts::gguf::name_of(model.tensor(name).type), tour::snr(exact, y));
        std::fprintf(stderr, "%s runs %s\n", name, ts::describe(exec, layer, 4).c_str()); // another on every machine
    }

    // Less than the best can be asked for; users do so by the environment variable TESSERA_ARCH.
    bool agree = true;
    for (char const* const arch : {"sse2", "avx2", "avx512_vnni", "neon64"}) {
        if ((", " + ts::describe_processor() + ",").find(", " + std::string{arch} + ",") == std::string::npos) continue;
        auto const limited = tessera_formats::all(arch).place(exec, model.tensor("small"));
        ts::matrix<float> again{4, 64};
        ts::apply(exec, limited, x, again);
        agree = agree && tour::snr(y, again) > 100; // they differ in the rounding of float sums
    }
    std::printf("the instruction sets of this machine agree: %s\n", agree ? "yes" : "no");

    // What is not there is said in a sentence.
    try {
        static_cast<void>(tessera_formats::all("avx3"));
    } catch (ts::unsupported_error const& error) {
        std::printf("%.55s ...\n", error.what());
    }
}
// Output:
// half  is bf16: SNR of y 55.7 dB
// small is q4_k: SNR of y 23.1 dB
// the instruction sets of this machine agree: yes
// tessera: dispatch: the limit is 'avx3', expected one of ...
