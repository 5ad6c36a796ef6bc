// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The limits of this machine, measured in this process: how fast it reads DRAM, L3 and L2, copies, and multiplies
/// float32 and int8. Every figure is one short run, so that runs can be taken in turn with a kernel's (measure.hpp).

#include <tessera/simd/amx.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bench {

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Runs f(worker) once on each of `threads` threads (one without OpenMP).
template <class F>
void on_each_thread(int threads, F const& f) {
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads)
    f(omp_get_thread_num());
#else
    (void)threads;
    f(0);
#endif
}

/// The processors this process may use, as they were when it started: workers inherit a pinned thread's mask.
inline std::vector<int> const& allowed_processors() {
    static std::vector<int> const processors = [] {
        std::vector<int> result;
#if defined(__linux__)
        cpu_set_t set;
        CPU_ZERO(&set);
        if (sched_getaffinity(0, sizeof set, &set) == 0)
            for (int p = 0; p < CPU_SETSIZE; ++p)
                if (CPU_ISSET(p, &set)) result.push_back(p);
#endif
        if (result.empty()) result.push_back(0);
        return result;
    }();
    return processors;
}

inline int most_threads() {
#if defined(_OPENMP)
    return static_cast<int>(allowed_processors().size());
#else
    return 1;
#endif
}

/// Lets the calling thread run on these processors only.
inline void run_on(std::vector<int> const& processors) {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int p : processors) CPU_SET(p, &set);
    sched_setaffinity(0, sizeof set, &set);
#else
    (void)processors;
#endif
}

/// Pins worker i of `threads` to the i-th allowed processor; the calling thread is worker 0.
inline void pin_threads(int threads) {
    auto const& processors = allowed_processors();
    on_each_thread(threads, [&](int worker) {
        run_on({processors[static_cast<std::size_t>(worker) % processors.size()]});
    });
}

/// Memory in huge pages where the system gives them, written once so that every page is there.
class pages {
public:
    pages() = default;
    explicit pages(std::size_t bytes) : bytes_{(bytes + huge - 1) / huge * huge} {
#if defined(__linux__)
        void* const at = mmap(nullptr, bytes_ + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) throw std::bad_alloc{};
        base_ = static_cast<std::byte*>(at);
        auto const address = reinterpret_cast<std::uintptr_t>(base_);
        data_ = base_ + ((address + huge - 1) / huge * huge - address);
        madvise(data_, bytes_, MADV_HUGEPAGE);
#else
        base_ = data_ = static_cast<std::byte*>(::operator new(bytes_, std::align_val_t{huge}));
#endif
        // Not zeros: every zero page could be the same one.
        for (std::size_t i = 0; i < bytes_; i += 64) std::memset(data_ + i, static_cast<int>(i / 64 % 251), 64);
    }
    ~pages() {
        if (base_ == nullptr) return;
#if defined(__linux__)
        munmap(base_, bytes_ + huge);
#else
        ::operator delete(base_, std::align_val_t{huge});
#endif
    }
    pages(pages const&) = delete;
    pages& operator=(pages const&) = delete;
    pages(pages&& other) noexcept { swap(other); }
    pages& operator=(pages&& other) noexcept {
        swap(other);
        return *this;
    }

    std::byte* data() const { return data_; }
    std::size_t size() const { return bytes_; }

private:
    static constexpr std::size_t huge = std::size_t{2} << 20;

    void swap(pages& other) noexcept {
        std::swap(base_, other.base_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
    }

    std::byte* base_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
};

namespace detail {

/// Where results go, so that no loop is optimised away.
inline volatile std::uint64_t sink;

/// Reads every byte of [from, from + bytes), bytes a multiple of 512: eight registers' worth of loads at a time.
inline std::uint64_t read_all(std::byte const* from, std::size_t bytes) {
#if defined(__AVX512F__)
    __m512i sum[8] = {};
    for (std::size_t i = 0; i < bytes; i += 512)
#pragma GCC unroll 8
        for (std::size_t j = 0; j < 8; ++j)
            sum[j] = _mm512_xor_si512(sum[j], _mm512_load_si512(from + i + 64 * j));
    for (std::size_t j = 1; j < 8; ++j) sum[0] = _mm512_xor_si512(sum[0], sum[j]);
    alignas(64) std::uint64_t word[8];
    _mm512_store_si512(word, sum[0]);
    return word[0] ^ word[1] ^ word[2] ^ word[3] ^ word[4] ^ word[5] ^ word[6] ^ word[7];
#elif defined(__AVX2__)
    __m256i sum[8] = {};
    for (std::size_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 8
        for (std::size_t j = 0; j < 8; ++j)
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<__m256i const*>(from + i + 32 * j)));
    for (std::size_t j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
    alignas(32) std::uint64_t word[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(word), sum[0]);
    return word[0] ^ word[1] ^ word[2] ^ word[3];
#else
    std::uint64_t sum[8] = {};
    for (std::size_t i = 0; i < bytes; i += 64) {
        std::uint64_t word[8];
        std::memcpy(word, from + i, sizeof word);
        for (std::size_t j = 0; j < 8; ++j) sum[j] ^= word[j];
    }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
#endif
}

/// Independent accumulators: two ports of latency four or five need ten.
inline constexpr std::size_t chains = 12;

#if defined(__AVX512F__)
using float_register = __m512;
inline float_register multiply_add(float_register a, float_register b, float_register c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline float_register fill(float x) { return _mm512_set1_ps(x); }
#elif defined(__FMA__) && defined(__AVX2__)
using float_register = __m256;
inline float_register multiply_add(float_register a, float_register b, float_register c) {
    return _mm256_fmadd_ps(a, b, c);
}
inline float_register fill(float x) { return _mm256_set1_ps(x); }
#elif defined(__x86_64__)
using float_register = __m128;
inline float_register multiply_add(float_register a, float_register b, float_register c) {
    return _mm_add_ps(_mm_mul_ps(a, b), c);
}
inline float_register fill(float x) { return _mm_set1_ps(x); }
#else
using float_register = float;
inline float_register multiply_add(float_register a, float_register b, float_register c) { return a * b + c; }
inline float_register fill(float x) { return x; }
#endif

/// The int8 dot product of this machine: u8 x s8 into int32.
#if defined(__AVX512VNNI__)
using int_register = __m512i;
inline int_register dot(int_register a, int_register b, int_register c) { return _mm512_dpbusd_epi32(c, a, b); }
#elif defined(__AVXVNNI__)
using int_register = __m256i;
inline int_register dot(int_register a, int_register b, int_register c) { return _mm256_dpbusd_avx_epi32(c, a, b); }
#elif defined(__AVX2__)
using int_register = __m256i;
inline int_register dot(int_register a, int_register b, int_register c) {
    return _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
#elif defined(__x86_64__)
using int_register = __m128i;
/// Without SSSE3: both halves widened beforehand, as a kernel that decodes once for many rows can.
inline int_register dot(int_register a, int_register b, int_register c) {
    return _mm_add_epi32(c, _mm_madd_epi16(a, b));
}
#else
using int_register = std::int32_t;
inline int_register dot(int_register a, int_register b, int_register c) { return c + a * b; }
#endif
#if defined(__x86_64__) && !defined(__AVX2__)
inline constexpr double int_products = 8;
#else
inline constexpr double int_products = sizeof(int_register);
#endif

/// The compiler must take the value as new: it cannot move work on it out of the loop.
template <class T>
void renew(T& x) {
#if defined(__x86_64__)
    asm volatile("" : "+x"(x));
#else
    asm volatile("" : "+r"(x));
#endif
}

template <class Register, class Step>
void chain_loop(Register a, Register b, Register zero, std::size_t rounds, Step const& step) {
    Register sum[chains];
    std::fill(sum, sum + chains, zero);
    for (std::size_t r = 0; r < rounds; ++r) {
        renew(a);
        renew(b);
        // Without this, optimisation level 2 keeps the sums in memory and measures that.
#pragma GCC unroll 12
        for (std::size_t i = 0; i < chains; ++i) sum[i] = step(a, b, sum[i]);
    }
#pragma GCC unroll 12
    for (std::size_t i = 0; i < chains; ++i) renew(sum[i]);
}

/// Seconds that f(worker) takes on `threads` threads, thread start excluded by a first round.
template <class F>
double seconds(int threads, F const& f) {
    on_each_thread(threads, [](int) {});
    double const start = now();
    on_each_thread(threads, f);
    return now() - start;
}

} // namespace detail

/// GB/s of reading [from, from + bytes) once, `repeat` times over, each thread its own part.
inline double read_rate(std::byte const* from, std::size_t bytes, int threads, int repeat = 1) {
    std::size_t const part = bytes / static_cast<std::size_t>(threads) / 512 * 512;
    double const time = detail::seconds(threads, [&](int worker) {
        for (int r = 0; r < repeat; ++r)
            detail::sink = detail::read_all(from + static_cast<std::size_t>(worker) * part, part);
    });
    return static_cast<double>(part) * threads * repeat / time / 1e9;
}

/// GB/s, read and written bytes counted, of copying half of the memory to the other half.
inline double copy_rate(std::byte* data, std::size_t bytes, int threads) {
    std::size_t const part = bytes / 2 / static_cast<std::size_t>(threads) / 512 * 512;
    double const time = detail::seconds(threads, [&](int worker) {
        std::size_t const at = static_cast<std::size_t>(worker) * part;
        std::memcpy(data + bytes / 2 + at, data + at, part);
    });
    return 2.0 * static_cast<double>(part) * threads / time / 1e9;
}

/// float32 operations a second, in GFLOP/s (a multiply-add is two).
inline double float_peak(int threads, std::size_t rounds = 1000000) {
    double const time = detail::seconds(threads, [&](int) {
        detail::chain_loop(detail::fill(0.5f), detail::fill(0.25f), detail::fill(0), rounds,
                           [](auto a, auto b, auto c) { return detail::multiply_add(a, b, c); });
    });
    double const width = sizeof(detail::float_register) / sizeof(float);
    return 2.0 * width * static_cast<double>(detail::chains * rounds) * threads / time / 1e9;
}

/// int8 operations a second, in GOP/s: the best of this instruction set (VNNI where there is one).
inline double int8_peak(int threads, std::size_t rounds = 1000000) {
    double const time = detail::seconds(threads, [&](int) {
        detail::int_register codes{};
        std::memset(&codes, 0x35, sizeof codes);
        detail::chain_loop(codes, codes, detail::int_register{}, rounds,
                           [](auto a, auto b, auto c) { return detail::dot(a, b, c); });
    });
    return 2.0 * detail::int_products * static_cast<double>(detail::chains * rounds) * threads / time / 1e9;
}

/// bf16 operations a second, in GFLOP/s: of matrix tiles where there are some, else of float32, into which others widen.
inline double bf16_peak(int threads, std::size_t rounds = 1000000) {
#if defined(__AMX_BF16__) && defined(__linux__)
    if (tessera::simd::amx_is_allowed()) {
        std::size_t const steps = rounds / 8;
        double const time = detail::seconds(threads, [&](int) {
            tessera::simd::amx_tiles<64> const tiles;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            _tile_zero(4);
            _tile_zero(5);
            _tile_zero(6);
            _tile_zero(7);
            for (std::size_t r = 0; r < steps; ++r) {
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        });
        return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(steps) * threads / time / 1e9;
    }
#endif
    return float_peak(threads, rounds);
}

/// A buffer beyond every cache that read-rate runs walk through, a stretch at a time.
class dram {
public:
    /// GB/s of reading the next `bytes` (rounded down to whole stretches of the buffer) on `threads` threads.
    double read(int threads, std::size_t bytes = std::size_t{256} << 20) {
        bytes = std::min(bytes, memory_.size());
        if (at_ + bytes > memory_.size()) at_ = 0;
        double const rate = read_rate(memory_.data() + at_, bytes, threads);
        at_ += bytes;
        return rate;
    }
    double copy(int threads) { return copy_rate(memory_.data(), memory_.size(), threads); }

private:
    pages memory_{std::size_t{1280} << 20};
    std::size_t at_ = 0;
};

/// The one buffer of this process.
inline dram& dram_buffer() {
    static dram buffer;
    return buffer;
}

/// The limits in one place, each the best of a few runs: for the report, not for a claim (claims are paired).
struct limits {
    double dram = 0, dram_copy = 0, level_3 = 0, level_2 = 0; // GB/s
    double float32 = 0, int8 = 0, bf16 = 0;                   // GFLOP/s, GOP/s, GFLOP/s
};

inline limits measure_limits(int threads, int runs = 3) {
    limits best;
    auto const keep = [](double& slot, double value) { slot = std::max(slot, value); };
    pages const small{std::size_t{64} << 20};
    auto const count = static_cast<std::size_t>(threads);
    for (int r = 0; r < runs; ++r) {
        keep(best.dram, dram_buffer().read(threads));
        keep(best.dram_copy, dram_buffer().copy(threads));
        keep(best.level_3, read_rate(small.data(), (std::size_t{16} << 20) * count, threads, 16));
        keep(best.level_2, read_rate(small.data(), (std::size_t{512} << 10) * count, threads, 400));
        keep(best.float32, float_peak(threads));
        keep(best.int8, int8_peak(threads));
        keep(best.bf16, bf16_peak(threads));
    }
    return best;
}

} // namespace bench
