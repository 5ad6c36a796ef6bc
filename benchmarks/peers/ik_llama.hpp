// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// ik_llama.cpp's y = x Wᵀ as a peer, in the layouts of its own run-time repacking ("q4_0_r8"). The fork keeps ggml's names,
/// so its library and ik_llama_module.cpp are loaded by dlmopen into a namespace of their own, with an OpenMP of their own.
///
/// BENCH_IK_LLAMA_MODULE is the module's path.

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace bench {

class ik_llama {
public:
    /// The library, loaded once.
    static ik_llama const& library() {
        static ik_llama const loaded;
        return loaded;
    }
    void* (*make)(char const*, std::int64_t, std::int64_t, std::int64_t, std::size_t, float const*, float const*, int) = nullptr;
    int (*run)(void*, std::size_t) = nullptr;
    float const* (*output)(void*) = nullptr;
    void (*free)(void*) = nullptr;

private:
    ik_llama() {
        handle_ = dlmopen(LM_ID_NEWLM, BENCH_IK_LLAMA_MODULE, RTLD_NOW | RTLD_LOCAL);
        if (handle_ == nullptr) throw std::runtime_error(std::string("ik_llama.cpp: ") + dlerror());
        find(make, "ik_llama_make");
        find(run, "ik_llama_run");
        find(output, "ik_llama_output");
        find(free, "ik_llama_free");
    }
    template <class Function>
    void find(Function& function, char const* name) {
        function = reinterpret_cast<Function>(dlsym(handle_, name));
        if (function == nullptr) throw std::runtime_error(std::string("the module of ik_llama.cpp has no ") + name);
    }
    void* handle_ = nullptr; // stays loaded
};

class ik_llama_product {
public:
    ik_llama_product(std::string const& type, std::int64_t n, std::int64_t k, std::int64_t m, std::size_t copies,
                     float const* weights, float const* x, int threads)
        : handle_{ik_llama::library().make(type.c_str(), n, k, m, copies, weights, x, threads)} {
        if (handle_ == nullptr) throw std::runtime_error("ik_llama.cpp has no type " + type);
    }
    ik_llama_product(ik_llama_product const&) = delete;
    ik_llama_product& operator=(ik_llama_product const&) = delete;
    ~ik_llama_product() { ik_llama::library().free(handle_); }

    void run(std::size_t copy) {
        if (ik_llama::library().run(handle_, copy) != 0) throw std::runtime_error("ik_llama.cpp could not compute the product");
    }
    [[nodiscard]] float const* output() const { return ik_llama::library().output(handle_); } // (m, n)

private:
    void* handle_;
};

} // namespace bench
