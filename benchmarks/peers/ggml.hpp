// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// ggml's y = x W^T as a peer, at its best setting: the weights in each of the CPU backend's own layouts ("CPU" as
/// stored, "CPU_REPACK" interleaved rows, "AMX" tiles; which exist depends on format, shape and processor), huge pages
/// asked for, the graph planned and its workspace and thread pool made beforehand, so that run() times the product alone.
///
///     bench::ggml_product peer(GGML_TYPE_Q4_0, "AMX", n, k, m, copies, weights);
///     peer.set_input(x);
///     peer.set_threads(2);
///     peer.run(i % copies);     // peer.output() is y, (m, n)
///
/// ggml configures the tile registers once a thread: make and run a product on a thread that nothing else uses
/// (support/own_thread.hpp).
///
/// `copies` places the same weights that many times, to be rotated over more than the caches hold. ggml built by GCC 12
/// on a processor with AMX stops with an illegal instruction: that compiler's _tile_loadconfig drops most of the tile
/// configuration. Build ggml with clang, with a newer GCC, or with that intrinsic corrected.

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bench {

namespace detail {

struct ggml_deleter {
    void operator()(ggml_context* p) const { ggml_free(p); }
    void operator()(ggml_backend_buffer* p) const { ggml_backend_buffer_free(p); }
    void operator()(ggml_threadpool* p) const { ggml_threadpool_free(p); }
};

template <class T>
using ggml_owner = std::unique_ptr<T, ggml_deleter>;

/// A context for the descriptions of `tensors` tensors and `graphs` graphs; their data lies elsewhere.
inline ggml_owner<ggml_context> ggml_descriptions(std::size_t tensors, std::size_t graphs, std::size_t nodes) {
    ggml_init_params parameters{};
    parameters.mem_size = tensors * ggml_tensor_overhead() + graphs * ggml_graph_overhead_custom(nodes, false);
    parameters.no_alloc = true;
    return ggml_owner<ggml_context>(ggml_init(parameters));
}

/// The CPU backend's plain buffer type, then its extra ones.
inline std::vector<ggml_backend_buffer_type_t> ggml_buffer_types() {
    ggml_backend_reg_t const registry = ggml_backend_cpu_reg();
    std::vector<ggml_backend_buffer_type_t> types{ggml_backend_cpu_buffer_type()};
    using getter = ggml_backend_buffer_type_t* (*)(ggml_backend_dev_t);
    auto const get =
        reinterpret_cast<getter>(ggml_backend_reg_get_proc_address(registry, "ggml_backend_dev_get_extra_bufts"));
    if (get != nullptr)
        for (auto* type = get(ggml_backend_reg_dev_get(registry, 0)); type != nullptr && *type != nullptr; ++type)
            types.push_back(*type);
    return types;
}

inline bool ggml_supports(ggml_backend_buffer_type_t buffer_type, ggml_type type, std::int64_t n, std::int64_t k) {
    if (ggml_backend_buft_is_host(buffer_type)) return true;
    auto const context = ggml_descriptions(3, 0, 0);
    ggml_owner<ggml_backend_buffer> const buffer(ggml_backend_buft_alloc_buffer(buffer_type, 0));
    if (buffer == nullptr) return false;
    ggml_tensor* const weights = ggml_new_tensor_2d(context.get(), type, k, n);
    weights->buffer = buffer.get();
    ggml_tensor* const x = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, k, 1);
    ggml_tensor* const y = ggml_mul_mat(context.get(), weights, x);
    return ggml_backend_dev_supports_op(ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0), y);
}

/// ggml prints a line for every tensor that it lays out anew; keep its warnings and errors.
inline void ggml_print_problems(ggml_log_level level, char const* text, void*) {
    if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

inline void ask_for_huge_pages(void* data, std::size_t bytes) {
#if defined(__linux__)
    std::size_t const page = 4096;
    auto const address = reinterpret_cast<std::uintptr_t>(data);
    auto const first = (address + page - 1) / page * page;
    auto const last = (address + bytes) / page * page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)data;
    (void)bytes;
#endif
}

} // namespace detail

/// The layouts in which ggml can multiply (n, k) weights of this type here; the first is always "CPU".
inline std::vector<std::string> ggml_layouts(ggml_type type, std::int64_t n, std::int64_t k) {
    std::vector<std::string> names;
    for (ggml_backend_buffer_type_t const buffer_type : detail::ggml_buffer_types())
        if (detail::ggml_supports(buffer_type, type, n, k)) names.emplace_back(ggml_backend_buft_name(buffer_type));
    return names;
}

class ggml_product {
public:
    ggml_product(ggml_type type, std::string const& layout, std::int64_t n, std::int64_t k, std::int64_t m,
                 std::size_t copies, float const* weights) // (n, k)
        : context_(detail::ggml_descriptions(2 * copies + 1, copies, nodes)) {
        ggml_log_set(detail::ggml_print_problems, nullptr);
        ggml_backend_buffer_type_t buffer_type = nullptr;
        for (ggml_backend_buffer_type_t const candidate : detail::ggml_buffer_types())
            if (layout == ggml_backend_buft_name(candidate) && detail::ggml_supports(candidate, type, n, k))
                buffer_type = candidate;
        if (buffer_type == nullptr)
            throw std::runtime_error("ggml has no layout " + layout + " for " + ggml_type_name(type) + " of this shape");

        x_ = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, k, m);
        for (std::size_t i = 0; i < copies; ++i) {
            weights_.push_back(ggml_new_tensor_2d(context_.get(), type, k, n));
            y_.push_back(ggml_mul_mat(context_.get(), weights_.back(), x_));
            graphs_.push_back(ggml_new_graph_custom(context_.get(), nodes, false));
            ggml_build_forward_expand(graphs_.back(), y_.back());
        }
        place_weights(buffer_type, weights);
        place_activations();
    }

    void set_input(float const* x /* (m, k) */) { ggml_backend_tensor_set(x_, x, 0, ggml_nbytes(x_)); }

    /// Makes the thread pool and plans the graphs. With an OpenMP build of ggml the threads are OpenMP's own.
    void set_threads(int threads) {
        pool_.reset();
        ggml_threadpool_params parameters = ggml_threadpool_params_default(threads);
        pool_.reset(ggml_threadpool_new(&parameters));
        plan_ = ggml_graph_plan(graphs_.front(), threads, pool_.get());
        workspace_.resize(plan_.work_size);
        plan_.work_data = workspace_.data();
        for (std::size_t i = 0; i < graphs_.size(); ++i) run(i);
    }

    void run(std::size_t copy) {
        if (ggml_graph_compute(graphs_[copy], &plan_) != GGML_STATUS_SUCCESS)
            throw std::runtime_error("ggml could not compute the product");
    }

    [[nodiscard]] float const* output() const { return static_cast<float const*>(y_.front()->data); } // (m, n)

    /// The format's own bytes of one copy, and what the layout makes of them.
    [[nodiscard]] std::size_t stored_bytes() const { return ggml_nbytes(weights_.front()); }
    [[nodiscard]] std::size_t placed_bytes() const { return placed_bytes_; }

private:
    static constexpr std::size_t nodes = 8; // a graph has one; ggml wants room for its hash table

    void place_weights(ggml_backend_buffer_type_t buffer_type, float const* values) {
        ggml_tensor const* const first = weights_.front();
        std::size_t const alignment = ggml_backend_buft_get_alignment(buffer_type);
        placed_bytes_ = ggml_backend_buft_get_alloc_size(buffer_type, first);
        std::size_t const step = (placed_bytes_ + alignment - 1) / alignment * alignment;
        weight_buffer_.reset(ggml_backend_buft_alloc_buffer(buffer_type, step * weights_.size()));
        if (weight_buffer_ == nullptr) throw std::runtime_error("ggml could not allocate the weights");
        ggml_backend_buffer_set_usage(weight_buffer_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        auto* const base = static_cast<char*>(ggml_backend_buffer_get_base(weight_buffer_.get()));
        detail::ask_for_huge_pages(base, step * weights_.size());

        std::vector<char> stored(ggml_nbytes(first));
        if (first->type == GGML_TYPE_F32)
            std::memcpy(stored.data(), values, stored.size());
        else
            ggml_quantize_chunk(first->type, values, stored.data(), 0, first->ne[1], first->ne[0], nullptr);
        for (std::size_t i = 0; i < weights_.size(); ++i) {
            ggml_backend_tensor_alloc(weight_buffer_.get(), weights_[i], base + i * step);
            if (i == 0)
                ggml_backend_tensor_set(weights_[i], stored.data(), 0, stored.size());
            else // laying all of them out anew would take a minute
                std::memcpy(base + i * step, base, placed_bytes_);
        }
    }

    /// All graphs read one x and write one y.
    void place_activations() {
        std::size_t const x_bytes = (ggml_nbytes(x_) + 63) / 64 * 64;
        std::size_t const y_bytes = ggml_nbytes(y_.front());
        activations_.reset(ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), x_bytes + y_bytes));
        if (activations_ == nullptr) throw std::runtime_error("ggml could not allocate the activations");
        auto* const base = static_cast<char*>(ggml_backend_buffer_get_base(activations_.get()));
        ggml_backend_tensor_alloc(activations_.get(), x_, base);
        for (ggml_tensor* const y : y_) ggml_backend_tensor_alloc(activations_.get(), y, base + x_bytes);
    }

    detail::ggml_owner<ggml_context> context_;
    detail::ggml_owner<ggml_backend_buffer> weight_buffer_, activations_;
    detail::ggml_owner<ggml_threadpool> pool_;
    ggml_tensor* x_ = nullptr;
    std::vector<ggml_tensor*> weights_, y_;
    std::vector<ggml_cgraph*> graphs_;
    ggml_cplan plan_{};
    std::vector<std::uint8_t> workspace_;
    std::size_t placed_bytes_ = 0;
};

} // namespace bench
