// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The peers of y = x Wᵀ behind one form: each function adds to a list what was found when this was configured, and
/// nothing where that is absent. A peer's result is compared with ours before it is timed, loosely: it rounds activations,
/// and ggml weights too, in its own way.

#include "../support/measure.hpp"

#include <tessera/core/types.hpp>

#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(BENCH_HAS_GGML)
#include "ggml.hpp"
#endif
#if defined(BENCH_OPENBLAS_LIBRARY)
#include "openblas.hpp"
#endif
#if defined(BENCH_HAS_ONEDNN)
#include "onednn.hpp"
#endif
#if defined(BENCH_HAS_ONNXRUNTIME)
#include "onnxruntime.hpp"
#endif
#if defined(BENCH_IK_LLAMA_MODULE)
#include "ik_llama.hpp"
#endif

namespace bench {

/// What is multiplied: x (m, k), and our own y (m, n).
struct product {
    tessera::index_t m, n, k;
    int threads;
    std::size_t copies; // of the weights
    float const* x;
    float const* y;
};

/// Formats of ggml by name, -1 without it: its header is needed nowhere else.
#if defined(BENCH_HAS_GGML)
inline constexpr int ggml_q4_0 = GGML_TYPE_Q4_0, ggml_q4_1 = GGML_TYPE_Q4_1, ggml_q5_0 = GGML_TYPE_Q5_0,
                     ggml_q8_0 = GGML_TYPE_Q8_0, ggml_q3_k = GGML_TYPE_Q3_K,
                     ggml_q4_k = GGML_TYPE_Q4_K, ggml_q5_k = GGML_TYPE_Q5_K, ggml_iq4_nl = GGML_TYPE_IQ4_NL, ggml_q6_k = GGML_TYPE_Q6_K,
                     ggml_f16 = GGML_TYPE_F16;
#else
inline constexpr int ggml_q4_0 = -1, ggml_q4_1 = -1, ggml_q5_0 = -1, ggml_q8_0 = -1, ggml_q3_k = -1,
                     ggml_q4_k = -1, ggml_q5_k = -1, ggml_iq4_nl = -1, ggml_q6_k = -1,
                     ggml_f16 = -1;
#endif

/// The rows that ik_llama.cpp interleaves for a format of ggml.
inline char const* ik_llama_type(int ggml_type) {
    if (ggml_type < 0) return nullptr;
    if (ggml_type == ggml_q4_0) return "q4_0_r8";
    if (ggml_type == ggml_q8_0) return "q8_0_r8";
    if (ggml_type == ggml_q4_k) return "q4_k_r4";
    if (ggml_type == ggml_q6_k) return "q6_k_r4";
    return nullptr;
}

namespace detail {

/// The first rows of y, as they should be.
struct expectation {
    float const* y; // (m, n)
    tessera::index_t m;
};

/// Throws unless the two differ by at most `tolerance` times the largest magnitude.
inline void check_peer(std::string const& name, product const& of, float const* theirs, expectation const& expected,
                       double tolerance) {
    double largest = 0, difference = 0;
    for (tessera::index_t i = 0; i < expected.m * of.n; ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(expected.y[i])));
        difference = std::max(difference, std::fabs(static_cast<double>(theirs[i] - expected.y[i])));
    }
    if (!(difference <= tolerance * largest)) throw std::runtime_error(name + " computes something else");
}

/// A peer on a thread of its own, made there by `make`, which gives a shared pointer to what has run(copy) and output().
template <class Make>
void add_peer(std::vector<peer>& peers, std::string const& name, product const& of, double tolerance,
              expectation const& expected, Make const& make) {
    auto thread = std::make_shared<own_thread>(of.threads);
    auto made = thread->run([&] {
        auto result = make();
        result->run(0);
        return result;
    });
    check_peer(name, of, made->output(), expected, tolerance);
    peers.push_back({name, [made, copies = of.copies](std::size_t i) { made->run(i % copies); }, std::move(thread)});
}

} // namespace detail

/// ggml in each of its layouts, weights quantised by ggml from the float32 ones. type -1: it has no such format.
inline void add_ggml([[maybe_unused]] std::vector<peer>& peers, [[maybe_unused]] int type, [[maybe_unused]] product const& of,
                     [[maybe_unused]] float const* weights) {
#if defined(BENCH_HAS_GGML)
    if (type < 0) return;
    auto const format = static_cast<ggml_type>(type);
    for (auto const& layout : ggml_layouts(format, of.n, of.k))
        detail::add_peer(peers, "ggml_" + layout, of, 0.2, {of.y, of.m}, [&] {
            auto made = std::make_shared<ggml_product>(format, layout, of.n, of.k, of.m, of.copies, weights);
            made->set_input(of.x);
            made->set_threads(of.threads);
            return made;
        });
#endif
}

/// ik_llama.cpp in the layout that its run-time repacking would choose, by the name of that type. Null: it has none.
inline void add_ik_llama([[maybe_unused]] std::vector<peer>& peers, [[maybe_unused]] char const* type,
                         [[maybe_unused]] product const& of, [[maybe_unused]] float const* weights) {
#if defined(BENCH_IK_LLAMA_MODULE)
    if (type == nullptr) return;
    detail::add_peer(peers, "ik_llama_" + std::string(type), of, 0.2, {of.y, of.m}, [&] {
        return std::make_shared<ik_llama_product>(type, of.n, of.k, of.m, of.copies, weights, of.x, of.threads);
    });
#endif
}

/// float32 weights: OpenBLAS and oneDNN.
inline void add_float_peers([[maybe_unused]] std::vector<peer>& peers, [[maybe_unused]] product const& of,
                            [[maybe_unused]] float const* weights) {
#if defined(BENCH_OPENBLAS_LIBRARY)
    detail::add_peer(peers, "openblas", of, 1e-4, {of.y, of.m}, [&] {
        return std::make_shared<openblas_product>(of.n, of.k, of.m, of.copies, weights, of.x, of.threads);
    });
#endif
#if defined(BENCH_HAS_ONEDNN)
    detail::add_peer(peers, "onednn", of, 1e-4, {of.y, of.m}, [&] {
        return std::make_shared<onednn_product<float, float>>(of.n, of.k, of.m, of.copies, weights, of.x, of.threads);
    });
#endif
}

/// int8 weights: oneDNN's u8 x s8, from activations that are codes already, without scales; and, of one row of x, from float32 with the scales.
inline void add_byte_peers([[maybe_unused]] std::vector<peer>& peers, [[maybe_unused]] product const& of,
                           [[maybe_unused]] std::int8_t const* weights, [[maybe_unused]] float const* scales) {
#if defined(BENCH_HAS_ONEDNN)
    auto const codes = std::make_shared<std::vector<std::uint8_t>>(static_cast<std::size_t>(of.m * of.k));
    for (std::size_t i = 0; i < codes->size(); ++i)
        (*codes)[i] = static_cast<std::uint8_t>(std::lround(127 * std::fabs(of.x[i])));
    std::vector<float> expected(static_cast<std::size_t>(of.n)); // of the first row
    for (tessera::index_t n = 0; n < of.n; ++n) {
        std::int32_t sum = 0;
        for (tessera::index_t k = 0; k < of.k; ++k) sum += (*codes)[static_cast<std::size_t>(k)] * weights[n * of.k + k];
        expected[static_cast<std::size_t>(n)] = static_cast<float>(sum);
    }
    detail::add_peer(peers, "onednn", of, 1e-4, {expected.data(), 1}, [&] {
        // Shares the life of the codes.
        auto both = std::make_shared<std::pair<decltype(codes), onednn_product<std::uint8_t, std::int8_t>>>(
            std::piecewise_construct, std::forward_as_tuple(codes),
            std::forward_as_tuple(of.n, of.k, of.m, of.copies, weights, codes->data(), of.threads));
        return std::shared_ptr<onednn_product<std::uint8_t, std::int8_t>>(both, &both->second);
    });
#if DNNL_VERSION_MAJOR < 3
    if (of.m == 1)
        detail::add_peer(peers, "onednn_whole", of, 1e-4, {of.y, 1}, [&] {
            return std::make_shared<onednn_int8_linear>(of.n, of.k, of.m, of.copies, weights, scales, of.x, of.threads);
        });
#endif
#endif
}

/// 4-bit weights in groups: onnxruntime. code(n, k) is -8 to 7, scale(n, k) the scale of its group.
template <class Code, class Scale>
void add_nibble_peers([[maybe_unused]] std::vector<peer>& peers, [[maybe_unused]] product const& of,
                      [[maybe_unused]] tessera::index_t group, [[maybe_unused]] Code const& code,
                      [[maybe_unused]] Scale const& scale) {
#if defined(BENCH_HAS_ONNXRUNTIME)
    onnx_weights weights{{}, {}, of.n, of.k, group};
    for (tessera::index_t n = 0; n < of.n; ++n) {
        for (tessera::index_t k = 0; k < of.k; k += 2)
            weights.codes.push_back(static_cast<std::uint8_t>((code(n, k) + 8) | (code(n, k + 1) + 8) << 4));
        for (tessera::index_t k = 0; k < of.k; k += group) weights.scales.push_back(scale(n, k));
    }
    detail::add_peer(peers, "onnxruntime", of, 0.05, {of.y, of.m}, [&] {
        return std::make_shared<onnxruntime_product>(weights, of.m, of.copies, of.x, of.threads);
    });
#endif
}

/// Names and settings of the peers, for the report's head.
template <class Add>
void describe_peers([[maybe_unused]] Add const& add) {
#if defined(BENCH_OPENBLAS_LIBRARY)
    add("peer_openblas_core", openblas::library().core());
#endif
#if defined(BENCH_HAS_ONEDNN)
    auto const* const version = dnnl::version();
    add("peer_onednn", std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch));
#endif
#if defined(BENCH_HAS_ONNXRUNTIME)
    add("peer_onnxruntime", std::string(OrtGetApiBase()->GetVersionString()));
#endif
}

} // namespace bench
