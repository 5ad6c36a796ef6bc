// SPDX-License-Identifier: MIT
//
// ik_llama.cpp's y = x Wᵀ behind four C functions: a module of its own, because that fork's library has the names and the
// file name of ggml's, with other structs behind them. ik_llama.hpp loads it into a namespace of its own.

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/mman.h>

namespace {

struct state {
    ggml_context* context = nullptr;
    std::vector<ggml_cgraph*> graphs;
    std::vector<void*> memory;
    ggml_tensor* y = nullptr;
    ggml_cplan plan{};
};

void* huge_pages(state& s, std::size_t bytes) {
    std::size_t const page = std::size_t{2} << 20;
    std::size_t const rounded = (bytes + page - 1) / page * page;
    void* const p = std::aligned_alloc(page, rounded);
    if (p != nullptr) {
        madvise(p, rounded, MADV_HUGEPAGE);
        s.memory.push_back(p);
    }
    return p;
}

} // namespace

extern "C" {

void ik_llama_free(void* handle) {
    auto* const s = static_cast<state*>(handle);
    if (s == nullptr) return;
    for (void* const p : s->memory) std::free(p);
    if (s->context != nullptr) ggml_free(s->context);
    delete s;
}

/// Weights (n, k) quantised to the type of this name ("q4_0_r8"), placed `copies` times; x (m, k). Null where it fails.
void* ik_llama_make(char const* type_name, std::int64_t n, std::int64_t k, std::int64_t m, std::size_t copies,
                    float const* weights, float const* x, int threads) {
    int type = 0;
    while (type < GGML_TYPE_COUNT) {
        char const* const name = ggml_type_name(static_cast<ggml_type>(type));
        if (name != nullptr && std::strcmp(name, type_name) == 0) break;
        ++type;
    }
    if (type == GGML_TYPE_COUNT) return nullptr;
    auto* const s = new state;
    constexpr std::size_t nodes = 8;
    s->context = ggml_init({(2 * copies + 1) * ggml_tensor_overhead() + copies * ggml_graph_overhead_custom(nodes, false), nullptr, true});
    ggml_tensor* const input = ggml_new_tensor_2d(s->context, GGML_TYPE_F32, k, m);
    input->data = huge_pages(*s, ggml_nbytes(input));
    std::memcpy(input->data, x, ggml_nbytes(input));
    void* output = nullptr;
    ggml_tensor* first = nullptr;
    for (std::size_t i = 0; i < copies; ++i) {
        ggml_tensor* const w = ggml_new_tensor_2d(s->context, static_cast<ggml_type>(type), k, n);
        w->data = huge_pages(*s, ggml_nbytes(w));
        if (first == nullptr)
            ggml_quantize_chunk(w->type, weights, w->data, 0, n, k, nullptr, nullptr);
        else
            std::memcpy(w->data, first->data, ggml_nbytes(w));
        if (first == nullptr) first = w;
        s->y = ggml_mul_mat(s->context, w, input);
        if (output == nullptr) output = huge_pages(*s, ggml_nbytes(s->y));
        s->y->data = output;
        s->graphs.push_back(ggml_new_graph_custom(s->context, nodes, false));
        ggml_build_forward_expand(s->graphs.back(), s->y);
    }
    s->plan = ggml_graph_plan(s->graphs.front(), threads);
    s->plan.work_data = static_cast<std::uint8_t*>(huge_pages(*s, s->plan.work_size + 64));
    return s;
}

int ik_llama_run(void* handle, std::size_t copy) {
    auto* const s = static_cast<state*>(handle);
    return ggml_graph_compute(s->graphs[copy], &s->plan) == GGML_STATUS_SUCCESS ? 0 : 1;
}

float const* ik_llama_output(void* handle) { return static_cast<float const*>(static_cast<state*>(handle)->y->data); }
}
