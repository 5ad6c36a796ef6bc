// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// OpenBLAS's y = x Wᵀ in float32 as a peer. The library chooses its kernels and its waiting while it is loaded, so it is
/// loaded here, by dlopen, after the environment says what is best: releases that do not know a new processor take it for
/// an old one (0.3.21 takes some with AVX-512 for a Prescott, 5 times too slow), an L2 size given from outside spoils its
/// blocking, and workers that spin after a product take the processors of what is timed next.
///
/// BENCH_OPENBLAS_LIBRARY is the library's path; OPENBLAS_CORETYPE wins over the choice made here.

#include "../support/roofline.hpp"

#include <cblas.h>
#include <dlfcn.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

class openblas {
public:
    /// The library, loaded once.
    static openblas const& library() {
        static openblas const loaded;
        return loaded;
    }

    /// The kernels that it chose: "SkylakeX", "Haswell", ...
    [[nodiscard]] std::string core() const { return corename_(); }

    void set_threads(int threads) const { set_threads_(threads); }
    decltype(&cblas_sgemm) sgemm = nullptr;

private:
    openblas() {
#if defined(__AVX512F__)
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
#elif defined(__AVX2__)
        setenv("OPENBLAS_CORETYPE", "Haswell", 0);
#endif
        setenv("OPENBLAS_THREAD_TIMEOUT", "10", 0);
        unsetenv("OPENBLAS_L2_SIZE");
        handle_ = dlopen(BENCH_OPENBLAS_LIBRARY, RTLD_NOW | RTLD_LOCAL);
        if (handle_ == nullptr) throw std::runtime_error(std::string("OpenBLAS: ") + dlerror());
        find(sgemm, "cblas_sgemm");
        find(set_threads_, "openblas_set_num_threads");
        find(corename_, "openblas_get_corename");
    }

    template <class Function>
    void find(Function& function, char const* name) {
        function = reinterpret_cast<Function>(dlsym(handle_, name));
        if (function == nullptr) throw std::runtime_error(std::string("OpenBLAS has no ") + name);
    }

    void* handle_ = nullptr; // stays loaded
    void (*set_threads_)(int) = nullptr;
    char* (*corename_)() = nullptr;
};

/// Weights (n, k), `copies` of them in huge pages, to be rotated.
class openblas_product {
public:
    openblas_product(std::ptrdiff_t n, std::ptrdiff_t k, std::ptrdiff_t m, std::size_t copies, float const* weights,
                     float const* x, int threads)
        : n_{static_cast<blasint>(n)}, k_{static_cast<blasint>(k)}, m_{static_cast<blasint>(m)}, x_{x},
          y_(static_cast<std::size_t>(n * m)) {
        openblas::library().set_threads(threads);
        std::size_t const bytes = static_cast<std::size_t>(n * k) * sizeof(float);
        for (std::size_t i = 0; i < copies; ++i) {
            weights_.emplace_back(bytes);
            std::memcpy(weights_.back().data(), weights, bytes);
        }
    }

    void run(std::size_t copy) {
        openblas::library().sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m_, n_, k_, 1.0f, x_, k_,
                                  reinterpret_cast<float const*>(weights_[copy].data()), k_, 0.0f, y_.data(), n_);
    }
    [[nodiscard]] float const* output() const { return y_.data(); } // (m, n)

private:
    blasint n_, k_, m_;
    float const* x_; // (m, k)
    std::vector<float> y_;
    std::vector<pages> weights_;
};

} // namespace bench
