// SPDX-License-Identifier: MIT
#include "sources.hpp"

#include <tessera/interop/safetensors.hpp>
#include <tessera/storage/mapped_file.hpp>

#include <cmath>
#include <numbers>

namespace rate_distortion {

ts::matrix<float> gaussian(index_t n, index_t k, std::uint64_t seed) {
    ts::matrix<float> w{n, k};
    ts::philox const random{seed};
    for (index_t i = 0; i < n * k; ++i) {
        auto const pair = static_cast<std::uint64_t>(i / 2);
        double const u = (static_cast<double>(random.bits(2 * pair)) + 0.5) * 0x1p-32;
        double const angle = 2 * std::numbers::pi * (static_cast<double>(random.bits(2 * pair + 1)) + 0.5) * 0x1p-32;
        double const radius = std::sqrt(-2 * std::log(u));
        w.data()[i] = static_cast<float>(radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
    }
    return w;
}

real_weights read_weights(std::string const& path, index_t rows) {
    ts::mapped_file const bytes{path};
    ts::safetensors::file const file = ts::safetensors::parse(bytes.bytes(), path);
    real_weights out;
    out.title = path.substr(path.find_last_of('/') + 1);
    for (auto const& t : file.tensors()) {
        bool const is_embedding = t.name.find("embed") != std::string::npos;
        if (t.rank != 2 || t.type != ts::element_type::f32 || !t.name.ends_with("weight") || is_embedding || t.dims[0] == 0) continue;
        auto const w = ts::safetensors::as_dense<float>(t);
        ts::matrix<float> part{ts::minimum(rows, w.extent(0)), w.extent(1)};
        for (index_t n = 0; n < part.extent(0); ++n)
            for (index_t k = 0; k < part.extent(1); ++k) part(n, k) = w(n, k);
        out.matrices.push_back(std::move(part));
    }
    if (out.matrices.empty()) ts::detail::raise<ts::format_error>(path + ": holds no two-dimensional weight in float32");
    return out;
}

real_weights heavy_tailed(index_t rows) {
    real_weights out;
    out.title = "synthetic weights with heavy tails (Student, 5 degrees of freedom)";
    constexpr int freedom = 5;
    for (index_t const k : {512, 1536}) {
        auto const z = gaussian(rows, k * (freedom + 1), static_cast<std::uint64_t>(k));
        ts::matrix<float> w{rows, k};
        for (index_t n = 0; n < rows; ++n)
            for (index_t i = 0; i < k; ++i) {
                double sum = 0;
                for (index_t j = 1; j <= freedom; ++j) sum += std::pow(static_cast<double>(z(n, i * (freedom + 1) + j)), 2);
                double const row = 0.02 * std::exp2(static_cast<double>(n % 5) / 2);
                w(n, i) = static_cast<float>(row * static_cast<double>(z(n, i * (freedom + 1))) / std::sqrt(sum / freedom));
            }
        out.matrices.push_back(std::move(w));
    }
    return out;
}

} // namespace rate_distortion
