// SPDX-License-Identifier: MIT
#pragma once

// Reference data of block formats (tests/data/gguf), and what every format's test asks of it.

#include <doctest/doctest.h>

#include <tessera/storage/code_source.hpp>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace tessera_test {

namespace ts = tessera;

/// A file of blocks and their values ("blocks"), or of values and their blocks ("encode").
template <class F>
struct gguf_vectors {
    std::vector<typename F::block> blocks;
    std::vector<float> values;

    explicit gguf_vectors(std::string const& kind) {
        std::string const path = std::string{TESSERA_TEST_DATA} + "/gguf/" + F::name + "_" + kind + ".bin";
        std::FILE* const f = std::fopen(path.c_str(), "rb");
        REQUIRE_MESSAGE(f != nullptr, path);
        std::vector<char> bytes(1 << 20);
        bytes.resize(std::fread(bytes.data(), 1, bytes.size(), f));
        std::fclose(f);
        std::uint32_t count = 0;
        std::memcpy(&count, bytes.data(), sizeof count);
        blocks.resize(count);
        values.resize(count * F::block_size);
        std::size_t const sizes[] = {blocks.size() * sizeof blocks[0], values.size() * sizeof(float)};
        REQUIRE(bytes.size() == sizeof count + sizes[0] + sizes[1]);
        bool const values_first = kind == "encode";
        std::memcpy(static_cast<void*>(blocks.data()), bytes.data() + sizeof count + (values_first ? sizes[1] : 0), sizes[0]);
        std::memcpy(values.data(), bytes.data() + sizeof count + (values_first ? 0 : sizes[0]), sizes[1]);
    }

    /// Decoded values that have other bits.
    int different_values() const {
        std::vector<float> y(values.size());
        ts::decode_row<F>(blocks.data(), static_cast<ts::index_t>(y.size()), y.data());
        int different = 0;
        for (std::size_t i = 0; i < y.size(); ++i)
            different += std::bit_cast<std::uint32_t>(y[i]) != std::bit_cast<std::uint32_t>(values[i]);
        return different;
    }
};

/// ggml's test-quantize-fns: root of the sum of squares, over n, for 4096 values 0.1 + 2 cos(i).
template <class F>
double total_error() {
    std::vector<float> x(4096), y(4096);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.1f + 2 * std::cos(static_cast<float>(i));
    std::vector<typename F::block> blocks(x.size() / F::block_size);
    ts::encode_row<F>(x.data(), 4096, blocks.data());
    ts::decode_row<F>(blocks.data(), 4096, y.data());
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    return std::sqrt(sum) / 4096;
}

/// What kernels see gives the same weights, and scales fit into the type that they are placed in.
template <class F>
void check_parts(typename F::block const& b) {
    using source = ts::code_source<ts::blocked<F>>;
    ts::blocked<F> const w{&b, 1, F::block_size};
    for (int i = 0; i < F::block_size; ++i) {
        std::uint32_t const code = source::code(w, 0, i);
        REQUIRE(code < 1u << F::code_bits);
        REQUIRE(source::scale(w, 0, i) * source::value(code) == F::decode(b, i));
        using placed = typename source::scale_type;
        if constexpr (ts::two_level_format<F>)
            REQUIRE(static_cast<int>(static_cast<placed>(source::sub_scale(w, 0, i))) == source::sub_scale(w, 0, i));
        else
            REQUIRE(static_cast<float>(static_cast<placed>(source::scale(w, 0, i))) == source::scale(w, 0, i));
    }
}

/// What is not finite spoils its `Share` of the block, and nothing else; finite blocks encode without undefined behaviour.
template <class F, int Share>
void check_extremes() {
    using limits = std::numeric_limits<float>;
    float x[F::block_size];
    typename F::block b{};
    for (float const bad : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()})
        for (int const at : {0, 17, F::block_size - 1}) {
            for (int i = 0; i < F::block_size; ++i) x[i] = static_cast<float>(i - 16);
            x[at] = bad;
            F::encode(x, b);
            for (int i = 0; i < F::block_size; ++i) REQUIRE(std::isnan(F::decode(b, i)) == (i / Share == at / Share));
        }
    for (float const a : {limits::max(), -limits::max(), limits::denorm_min(), 0.0f, -0.0f})
        for (float const c : {limits::max(), -limits::max(), limits::denorm_min(), 0.0f, -0.0f}) {
            for (int i = 0; i < F::block_size; ++i) x[i] = i % 3 == 0 ? a : c;
            F::encode(x, b);
            if (std::fabs(a) < 1 && std::fabs(c) < 1)
                for (int i = 0; i < F::block_size; ++i) REQUIRE(std::fabs(F::decode(b, i)) <= limits::denorm_min());
        }
}

} // namespace tessera_test
