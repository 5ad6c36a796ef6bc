// SPDX-License-Identifier: MIT
// Products of formats that are known at run time, compiled by tessera_add_formats.

#include <tessera_formats.hpp>

#include <tessera/interop/gguf_writer.hpp>

#include <cstdio>
#include <vector>

namespace ts = tessera;

int main() {
    std::vector<float> values(8 * 256);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 13) - 6;
    std::vector<ts::q4_k::block> blocks(8);
    ts::encode_row<ts::q4_k>(values.data(), 8 * 256, blocks.data());
    ts::gguf::writer file;
    file.add_tensor("w", ts::blocked<ts::q4_k>{blocks.data(), 8, 256});
    auto const bytes = file.bytes();
    auto const model = ts::gguf::parse(bytes, "memory");

    ts::cpu<ts::native_arch, ts::serial> const exec;
    auto const w = tessera_formats::all().place(exec, model.tensor("w"));
    ts::matrix<float> x{2, 256}, y{2, 8}, expected{2, 8};
    for (ts::index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i % 7) - 3;
    ts::apply(exec, w, x, y);
    ts::apply(ts::reference{}, ts::linear{ts::blocked<ts::q4_k>{blocks.data(), 8, 256}, ts::int8_per_group<32>{}}, x, expected);
    for (ts::index_t i = 0; i < y.size(); ++i)
        if (!(y.data()[i] - expected.data()[i] < 0.01f && expected.data()[i] - y.data()[i] < 0.01f)) return 1;
    ts::matrix<float> dy{2, 8}, dx{2, 256}, of_definition{2, 256};
    for (ts::index_t i = 0; i < dy.size(); ++i) dy.data()[i] = static_cast<float>(i % 5) - 2;
    ts::apply(exec, ts::transposed(w.view()), dy, dx);
    ts::apply(ts::reference{}, ts::transposed(ts::linear{ts::blocked<ts::q4_k>{blocks.data(), 8, 256}, ts::int8_per_group<32>{}}), dy,
              of_definition);
    for (ts::index_t i = 0; i < dx.size(); ++i)
        if (!(dx.data()[i] - of_definition.data()[i] < 0.01f && of_definition.data()[i] - dx.data()[i] < 0.01f)) return 2;
    std::printf("%s\n", ts::describe(exec, w, 1).c_str());
}
