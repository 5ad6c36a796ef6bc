// SPDX-License-Identifier: MIT
// Results have the same bits for any number of threads and any backend; a prepared x serves several operators; reserved
// workspace makes calls free of allocation.

#include "support/allocation_count.hpp"
#include "operator_laws.hpp"

#include <tessera/core/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

using namespace tessera_test;

namespace {

template <class Policy, class Op>
void check_without_allocation(Policy const& policy, Op const& w, guarded<float> const& x, guarded<float>& y) {
    policy.reserve(ts::workspace_bytes(policy, w, x.view()));
    long const before = allocation_count();
    ts::apply(policy, w, x.view(), y.view());
    CHECK(allocation_count() == before);
}

/// Threads allocate when they start: that is not a product's doing.
template <class Parallel>
void start_threads(Parallel const& parallel, int count) {
    std::vector<std::atomic<bool>> seen(static_cast<std::size_t>(count));
    while (std::find(seen.begin(), seen.end(), false) != seen.end())
        ts::parallel_for(parallel, 64 * count, 1, [&](index_t, index_t, index_t worker) noexcept {
            seen[static_cast<std::size_t>(worker)] = true;
            std::this_thread::yield();
        });
}

/// The same bits by every backend, each allocating nothing once its workspace is reserved.
template <class Op>
void check_threads(Op const& w) {
    for (index_t const m : {1, 5, 150}) {
        CAPTURE(m);
        guarded<float> x{m, w.cols()};
        x.fill(3);
        guarded<float> expected{m, w.rows()};
        guarded<float> y{m, w.rows()};
        ts::workspace scratch;
        ts::cpu<ts::native_arch, ts::serial> const one{scratch};
        check_without_allocation(one, w, x, expected);
        check_without_allocation(one, w, x, expected);
        for (int const count : {1, 2, 3}) {
            CAPTURE(count);
            ts::thread_pool pool{count};
            start_threads(ts::threads{pool}, count);
            ts::workspace pool_scratch;
            y.clear();
            check_without_allocation(ts::cpu<ts::native_arch, ts::threads>{ts::threads{pool}, pool_scratch}, w, x, y);
            CHECK(same_bits(expected, y));
            if constexpr (ts::config::has_openmp) {
                start_threads(ts::openmp{count}, count);
                ts::workspace omp_scratch;
                y.clear();
                ts::cpu<ts::native_arch, ts::openmp> const omp{ts::openmp{count}, omp_scratch};
                check_without_allocation(omp, w, x, y);
                CHECK(same_bits(expected, y));
            }
        }
    }
}

struct layers {
    ts::quantized_tensor<ts::int4_g32> q = random_quantized<ts::int4_g32>(201, 130);
    guarded<float> b{201, 6};
    guarded<float> a{6, 130};
    layers() {
        b.fill(1);
        a.fill(2);
    }
};

} // namespace

TEST_CASE("any number of threads: int8 and low rank") {
    layers const l;
    check_threads(ts::linear{l.q, ts::int8_per_group<32>{}} + ts::low_rank{l.b.view(), l.a.view(), 0.5f});
}
TEST_CASE("any number of threads: as is, transposed, slices") {
    layers const l;
    check_threads(ts::linear{l.q});
    check_threads(ts::transposed(ts::linear{l.q}));
    check_threads(ts::rows(ts::columns(ts::linear{l.a.view()}, 3, 120), 1, 5));
}

TEST_CASE("the reference allocates nothing either") {
    guarded<float> wide{300, 4};
    wide.fill(1);
    guarded<float> tall{3, 300};
    tall.fill(2);
    guarded<float> x{2, 4};
    x.fill(3);
    guarded<float> y{2, 3};
    auto const product = ts::linear{tall.view()} * ts::linear{wide.view()};
    auto const w = product + ts::rows(ts::linear{wide.view()}, 7, 10);
    ts::workspace scratch;
    check_without_allocation(ts::reference{scratch}, w, x, y);
}

TEST_CASE("one preparation serves several operators") {
    layers const l;
    auto const other = random_quantized<ts::uint4_g128>(50, 130);
    ts::cpu<> const exec;
    for (index_t const m : {1, 20}) {
        guarded<float> x{m, 130, 1};
        x.fill(9);
        ts::workspace_scope scope{exec.scratch()};
        auto const shared = ts::prepare(exec, scope, x.view(), ts::int8_per_group<32>{});
        auto const check = [&](auto const& w) {
            guarded<float> apart{m, w.rows()};
            guarded<float> together{m, w.rows()};
            ts::apply(exec, w, x.view(), apart.view());
            ts::apply(exec, w, shared, together.view());
            CHECK(same_bits(apart, together));
        };
        ts::linear const first{l.q, ts::int8_per_group<32>{}};
        ts::linear const second{other, ts::int8_per_group<32>{}};
        check(first);
        check(second);
        check(ts::rows(first, 10, 99));
        auto const like = ts::prepare(exec, scope, x.view(), first + ts::low_rank{l.b.view(), l.a.view()});
        guarded<float> apart{m, 201};
        guarded<float> together{m, 201};
        ts::apply(exec, first + ts::low_rank{l.b.view(), l.a.view()}, x.view(), apart.view());
        ts::apply(exec, first + ts::low_rank{l.b.view(), l.a.view()}, like, together.view());
        CHECK(same_bits(apart, together));
    }
}
