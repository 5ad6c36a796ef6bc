// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// oneDNN's y = x Wᵀ as a peer (2.6 and 3.x), weights in the layout that it chooses itself ("any"), packed beforehand:
/// float32, unsigned by signed bytes with x already quantised and no scales applied, and (2.6) the whole of what `int8_per_token` means:
/// the scale of x, its codes, the product, the scales of both.
///
/// Threads are OpenMP's: a product belongs to the thread that makes it (support/own_thread.hpp).

#include "../support/roofline.hpp"

#include <dnnl.hpp>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace bench {

namespace detail {

template <class T>
inline constexpr auto onednn_type = dnnl::memory::data_type::f32;
template <>
inline constexpr auto onednn_type<std::int8_t> = dnnl::memory::data_type::s8;
template <>
inline constexpr auto onednn_type<std::uint8_t> = dnnl::memory::data_type::u8;

inline dnnl::matmul::primitive_desc onednn_matmul(dnnl::engine const& engine, dnnl::memory::desc const& x,
                                                  dnnl::memory::desc const& w, dnnl::memory::desc const& y) {
#if DNNL_VERSION_MAJOR >= 3
    return {engine, x, w, y};
#else
    return {dnnl::matmul::desc{x, w, y}, engine};
#endif
}

} // namespace detail

/// X and W: float and float, or std::uint8_t and std::int8_t. y is float32.
template <class X, class W>
class onednn_product {
public:
    onednn_product(std::int64_t n, std::int64_t k, std::int64_t m, std::size_t copies, W const* weights /* (n, k) */,
                   X const* x /* (m, k) */, int threads)
        : y_(static_cast<std::size_t>(n * m)) {
#if defined(_OPENMP)
        omp_set_num_threads(threads); // of this thread's regions
#else
        (void)threads;
#endif
        using dnnl::memory;
        using tag = memory::format_tag;
        memory::desc const x_desc({m, k}, detail::onednn_type<X>, tag::ab);
        memory::desc const y_desc({m, n}, memory::data_type::f32, tag::ab);
        auto const description =
            detail::onednn_matmul(engine_, x_desc, {{k, n}, detail::onednn_type<W>, tag::any}, y_desc);
        product_ = dnnl::matmul(description);
        memory stored({{k, n}, detail::onednn_type<W>, tag::ba}, engine_, const_cast<W*>(weights));
        memory const input(x_desc, engine_, const_cast<X*>(x)), output(y_desc, engine_, y_.data());
        auto const packed_desc = description.weights_desc();
        for (std::size_t i = 0; i < copies; ++i) {
            weights_.emplace_back(packed_desc.get_size());
            memory packed(packed_desc, engine_, weights_.back().data());
            dnnl::reorder(stored, packed).execute(stream_, stored, packed);
            stream_.wait();
            arguments_.push_back({{DNNL_ARG_SRC, input}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, output}});
        }
    }

    void run(std::size_t copy) {
        product_.execute(stream_, arguments_[copy]);
        stream_.wait();
    }
    [[nodiscard]] float const* output() const { return y_.data(); } // (m, n)

private:
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream_{engine_};
    dnnl::matmul product_;
    std::vector<float> y_;
    std::vector<pages> weights_;
    std::vector<std::unordered_map<int, dnnl::memory>> arguments_;
};

#if DNNL_VERSION_MAJOR < 3
/// y = x Wᵀ of float32 x, as codes of one scale, and int8 W with a scale a row.
class onednn_int8_linear {
public:
    onednn_int8_linear(std::int64_t n, std::int64_t k, std::int64_t m, std::size_t copies, std::int8_t const* weights /* (n, k) */,
                       float const* scales /* (n) */, float const* x /* (m, k) */, int threads)
        : x_(x), count_(static_cast<std::size_t>(m * k)), y_(static_cast<std::size_t>(n * m)), codes_(count_), row_scales_(scales, scales + n),
          scales_(row_scales_) {
#if defined(_OPENMP)
        omp_set_num_threads(threads);
#else
        (void)threads;
#endif
        using dnnl::memory;
        using tag = memory::format_tag;
        memory::desc const x_desc({m, k}, memory::data_type::f32, tag::ab), codes_desc({m, k}, memory::data_type::s8, tag::ab);
        memory::desc const one({1}, memory::data_type::f32, tag::a), many({n}, memory::data_type::f32, tag::a);
        dnnl::primitive_attr rounding;
        rounding.set_output_scales(0, {DNNL_RUNTIME_F32_VAL});
        round_ = dnnl::reorder(dnnl::reorder::primitive_desc(engine_, x_desc, engine_, codes_desc, rounding));
        memory const codes(codes_desc, engine_, codes_.data());
        round_arguments_ = {{DNNL_ARG_FROM, memory(x_desc, engine_, const_cast<float*>(x))}, {DNNL_ARG_TO, codes},
                            {DNNL_ARG_ATTR_OUTPUT_SCALES, memory(one, engine_, &inverse_)}};
        dnnl::primitive_attr scaling;
        scaling.set_output_scales(2, {DNNL_RUNTIME_F32_VAL});
        dnnl::matmul::primitive_desc const description(
            {codes_desc, {{k, n}, memory::data_type::s8, tag::any}, {{m, n}, memory::data_type::f32, tag::ab}}, scaling, engine_);
        product_ = dnnl::matmul(description);
        memory stored({{k, n}, memory::data_type::s8, tag::ba}, engine_, const_cast<std::int8_t*>(weights));
        auto const packed_desc = description.weights_desc();
        for (std::size_t i = 0; i < copies; ++i) {
            weights_.emplace_back(packed_desc.get_size());
            memory packed(packed_desc, engine_, weights_.back().data());
            dnnl::reorder(stored, packed).execute(stream_, stored, packed);
            stream_.wait();
            arguments_.push_back({{DNNL_ARG_SRC, codes}, {DNNL_ARG_WEIGHTS, packed},
                                  {DNNL_ARG_DST, memory(description.dst_desc(), engine_, y_.data())},
                                  {DNNL_ARG_ATTR_OUTPUT_SCALES, memory(many, engine_, scales_.data())}});
        }
    }

    void run(std::size_t copy) {
        float largest = 0;
        for (std::size_t i = 0; i < count_; ++i) largest = std::max(largest, std::fabs(x_[i]));
        float const scale = largest / 127.0f;
        inverse_ = 1.0f / scale;
        for (std::size_t n = 0; n < scales_.size(); ++n) scales_[n] = row_scales_[n] * scale;
        round_.execute(stream_, round_arguments_);
        product_.execute(stream_, arguments_[copy]);
        stream_.wait();
    }
    [[nodiscard]] float const* output() const { return y_.data(); } // (m, n)

private:
    float const* x_;
    std::size_t count_;
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream_{engine_};
    dnnl::reorder round_;
    dnnl::matmul product_;
    float inverse_ = 0;
    std::vector<float> y_;
    std::vector<std::int8_t> codes_;
    std::vector<float> row_scales_;
    std::vector<float> scales_; ///< of W and x
    std::unordered_map<int, dnnl::memory> round_arguments_;
    std::vector<pages> weights_;
    std::vector<std::unordered_map<int, dnnl::memory>> arguments_;
};
#endif

} // namespace bench
