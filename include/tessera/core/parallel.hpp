// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `parallel_for` and `parallel_reduce` over chunks whose boundaries depend on (n, grain) alone: which thread runs a
/// chunk may vary, what a chunk computes may not, and partial results are combined in index order. So results have the
/// same bits for any number of threads (contract 6).
///
/// A backend runs `f(chunk, worker)` for every chunk. Three come with the library: `serial`, `openmp` (here) and
/// `thread_pool` (core/thread_pool.hpp); any type that meets `parallel_backend` is a fourth. This is the only file with
/// OpenMP pragmas; thread counts of the process are never changed.

#include "config.hpp"
#include "types.hpp"

#include <concepts>
#include <type_traits>
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The shape of a chunk function, for the concept only.
struct chunk_function {
    void operator()(index_t chunk, index_t worker) const noexcept;
};

} // namespace detail

/// Something that runs chunks: `concurrency()` workers, `run(chunks, f)` calls f(chunk, worker) once for each chunk in
/// [0, chunks), worker in [0, concurrency()), and returns when all are done.
template <class B>
concept parallel_backend = requires(B const& backend, index_t chunks, detail::chunk_function f) {
    { backend.concurrency() } -> std::convertible_to<index_t>;
    backend.run(chunks, f);
};

/// Everything in the calling thread, in order.
struct serial {
    static constexpr index_t concurrency() noexcept { return 1; }

    template <class F>
    void run(index_t chunks, F const& f) const noexcept {
        for (index_t c = 0; c < chunks; ++c) f(c, index_t{0});
    }
};

/// OpenMP worksharing. Inside an active parallel region it runs serially: the caller's threads are the parallelism.
struct openmp {
    /// Number of threads; 0 asks the OpenMP runtime (OMP_NUM_THREADS).
    int threads = 0;

    constexpr openmp() noexcept = default;
    constexpr explicit openmp(int thread_count) noexcept : threads{thread_count} {}

    index_t concurrency() const noexcept {
#if defined(_OPENMP)
        if (omp_in_parallel() != 0) return 1;
        return threads > 0 ? threads : omp_get_max_threads();
#else
        return 1;
#endif
    }

    template <class F>
    void run(index_t chunks, F const& f) const noexcept {
        static_assert(config::has_openmp || detail::always_false<F>,
                      "tessera: the openmp backend needs -fopenmp (or use serial, or core/thread_pool.hpp)");
        // Always the whole team: libgomp allocates, and may start threads anew, whenever a team's size is not the last one's.
        index_t const workers = concurrency();
        if (workers <= 1 || chunks <= 1) return serial{}.run(chunks, f);
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(workers))
        for (index_t c = 0; c < chunks; ++c) f(c, static_cast<index_t>(omp_get_thread_num()));
#endif
    }
};

/// `openmp` where the translation unit is compiled with it, else `serial`.
using default_parallel = std::conditional_t<config::has_openmp, openmp, serial>;

/// Calls f(first, last, worker) for consecutive chunks of [0, n) of `grain` elements (the last may be shorter).
///
/// f must be noexcept: an exception cannot cross a parallel region.
template <parallel_backend Backend, class F>
void parallel_for(Backend const& backend, index_t n, index_t grain, F const& f) noexcept {
    static_assert(std::is_nothrow_invocable_v<F const&, index_t, index_t, index_t>,
                  "tessera: the function given to parallel_for must be noexcept and take (first, last, worker)");
    if (n <= 0) return;
    index_t const step = maximum(grain, 1);
    index_t const chunks = ceil_div(n, step);
    if (chunks == 1) return f(index_t{0}, n, index_t{0});
    backend.run(chunks, [&](index_t c, index_t worker) noexcept {
        f(c * step, minimum(n, (c + 1) * step), worker);
    });
}

/// combine(...combine(combine(identity, map(chunk 0)), map(chunk 1))...): map(first, last) -> T over the chunks of
/// `parallel_for`, combined in index order. `partial` holds ceil(n / grain) elements of scratch.
template <class T, parallel_backend Backend, class Map, class Combine>
T parallel_reduce(Backend const& backend, index_t n, index_t grain, T identity, T* partial, Map const& map,
                  Combine const& combine) noexcept {
    static_assert(std::is_nothrow_invocable_r_v<T, Map const&, index_t, index_t>,
                  "tessera: the map given to parallel_reduce must be noexcept and take (first, last)");
    static_assert(std::is_nothrow_invocable_r_v<T, Combine const&, T, T>,
                  "tessera: the combination given to parallel_reduce must be noexcept and take two values");
    index_t const step = maximum(grain, 1);
    parallel_for(backend, n, step,
                 [&](index_t first, index_t last, index_t) noexcept { partial[first / step] = map(first, last); });
    T result = identity;
    for (index_t c = 0; c * step < n; ++c) result = combine(result, partial[c]);
    return result;
}

} // namespace tessera::inline TESSERA_ABI
