// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <tessera/core/exec.hpp>
#include <tessera/core/parallel.hpp>
#include <tessera/core/philox.hpp>
#include <tessera/core/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>
#include <vector>

namespace ts = tessera;
using ts::index_t;

static_assert(ts::parallel_backend<ts::serial>);
static_assert(ts::parallel_backend<ts::openmp>);
static_assert(ts::parallel_backend<ts::threads>);
static_assert(ts::execution_policy<ts::reference> && ts::execution_policy<ts::cpu<>> && ts::execution_policy<ts::cuda<>>);
static_assert(!ts::execution_policy<int>);
static_assert(std::is_same_v<decltype(ts::cpu{ts::serial{}}), ts::cpu<ts::native_arch, ts::serial>>);

namespace {

/// A backend of a user: runs the chunks backwards, as two alternating workers.
struct backwards {
    static index_t concurrency() noexcept { return 2; }
    template <class F>
    void run(index_t chunks, F const& f) const noexcept {
        for (index_t c = chunks; c-- > 0;) f(c, c % 2);
    }
};

template <class F>
void for_each_backend(F const& f) {
    f(ts::serial{}, "serial");
    f(backwards{}, "backwards");
    if constexpr (ts::config::has_openmp) {
        f(ts::openmp{}, "openmp");
        f(ts::openmp{1}, "openmp 1");
        f(ts::openmp{7}, "openmp 7");
    }
    for (int const size : {1, 2, 5}) {
        ts::thread_pool pool{size};
        CHECK(pool.concurrency() == size);
        f(ts::threads{pool}, "threads");
    }
}

struct chunk {
    index_t first;
    index_t last;
    friend bool operator==(chunk const&, chunk const&) = default;
    friend bool operator<(chunk const& a, chunk const& b) { return a.first < b.first; }
};

template <class Backend>
std::vector<chunk> chunks_of(Backend const& backend, index_t n, index_t grain) {
    std::mutex mutex;
    std::vector<chunk> seen;
    bool is_worker_valid = true;
    index_t const workers = backend.concurrency(); // inside a region of OpenMP it is 1
    ts::parallel_for(backend, n, grain, [&](index_t first, index_t last, index_t worker) noexcept {
        std::lock_guard const lock{mutex};
        seen.push_back({first, last});
        is_worker_valid = is_worker_valid && worker >= 0 && worker < workers;
    });
    CHECK(is_worker_valid);
    std::sort(seen.begin(), seen.end());
    return seen;
}

} // namespace

TEST_CASE("parallel_for: chunks depend on n and grain alone and cover the range once") {
    for (index_t const n : {-3, 0, 1, 2, 7, 64, 101})
        for (index_t const grain : {-1, 0, 1, 2, 3, 7, 64, 100, 101, 102, 1000}) {
            CAPTURE(n);
            CAPTURE(grain);
            std::vector<chunk> expected;
            index_t const step = std::max<index_t>(grain, 1);
            for (index_t i = 0; i < n; i += step) expected.push_back({i, std::min(n, i + step)});
            for_each_backend([&](auto const& backend, char const* name) {
                CAPTURE(std::string{name});
                CHECK(chunks_of(backend, n, grain) == expected);
            });
        }
}

TEST_CASE("parallel_reduce: the same bits for every backend, combined in index order") {
    constexpr index_t n = 10007;
    std::vector<float> x;
    for (index_t i = 0; i < n; ++i)
        x.push_back(ts::philox{1}.normal(static_cast<std::uint64_t>(i)) * std::exp2(static_cast<float>(i % 40)));
    for (index_t const grain : {1, 3, 100, 10006, 10007, 20000}) {
        std::vector<float> partial(static_cast<std::size_t>(ts::ceil_div(n, grain)));
        auto const sum = [&](auto const& backend) {
            return ts::parallel_reduce(
                backend, n, grain, 0.0f, partial.data(),
                [&](index_t first, index_t last) noexcept {
                    float s = 0;
                    for (index_t i = first; i < last; ++i) s += x[static_cast<std::size_t>(i)];
                    return s;
                },
                [](float a, float b) noexcept { return a + b; });
        };
        float const expected = sum(ts::serial{});
        for_each_backend([&](auto const& backend, char const*) {
            for (int repeat = 0; repeat < 5; ++repeat) CHECK(sum(backend) == expected);
        });
    }
    // Not commutative: the order of combination is that of the index.
    std::vector<index_t> last_of(100);
    for_each_backend([&](auto const& backend, char const*) {
        index_t const result = ts::parallel_reduce(
            backend, 100, 1, index_t{0}, last_of.data(), [](index_t first, index_t) noexcept { return first; },
            [](index_t a, index_t b) noexcept { return b == a + 1 || b == 0 ? b : index_t{-1000}; });
        CHECK(result == 99);
        CHECK(ts::parallel_reduce(backend, 0, 5, index_t{42}, last_of.data(), [](index_t, index_t) noexcept { return index_t{1}; },
                                  [](index_t a, index_t b) noexcept { return a + b; }) == 42);
    });
}

TEST_CASE("a parallel region inside a parallel region runs serially and completely") {
    for_each_backend([](auto const& backend, char const* name) {
        CAPTURE(std::string{name});
        std::atomic<index_t> count{0};
        ts::parallel_for(backend, 6, 1, [&](index_t, index_t, index_t) noexcept {
            ts::parallel_for(backend, 50, 3, [&](index_t first, index_t last, index_t worker) noexcept {
                if (worker >= 0) count += last - first;
            });
        });
        CHECK(count == 300);
    });
}

TEST_CASE("a pool serves many calls, from more than one thread") {
    ts::thread_pool pool{3};
    ts::threads const backend{pool};
    std::atomic<index_t> count{0};
    auto const work = [&] {
        for (int call = 0; call < 300; ++call)
            ts::parallel_for(backend, 20, 1, [&](index_t, index_t, index_t) noexcept { ++count; });
    };
    std::thread other{work};
    work();
    other.join();
    CHECK(count == 2 * 300 * 20);
}

TEST_CASE("a pool's worker index addresses private memory") {
    ts::thread_pool pool{4};
    std::vector<index_t> private_sum(4, 0); // written without synchronisation: the thread sanitizer watches
    ts::parallel_for(ts::threads{pool}, 4000, 1, [&](index_t first, index_t, index_t worker) noexcept {
        private_sum[static_cast<std::size_t>(worker)] += first;
    });
    index_t sum = 0;
    for (index_t const s : private_sum) sum += s;
    CHECK(sum == 4000 * 3999 / 2);
}

TEST_CASE("policies hold their backend and their workspace") {
    ts::workspace memory;
    ts::cpu<ts::native_arch, ts::serial> const exec{ts::serial{}, memory};
    CHECK(&exec.scratch() == &memory);
    exec.reserve(1000);
    CHECK(memory.capacity() >= 1000);
    CHECK(&ts::cpu<>{}.scratch() == &ts::reference{}.scratch()); // the thread's own
    ts::workspace* elsewhere = nullptr;
    std::thread{[&] { elsewhere = &ts::cpu<>{}.scratch(); }}.join();
    CHECK(elsewhere != &ts::cpu<>{}.scratch());
    ts::thread_pool pool{2};
    CHECK(ts::cpu{ts::threads{pool}}.parallel().concurrency() == 2);
    CHECK(ts::reference::parallel().concurrency() == 1);
}
