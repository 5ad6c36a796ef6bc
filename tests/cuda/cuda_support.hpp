// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The cases of the processors' tests on a CUDA device: the same operands, references and tolerances (tests/cases), arrays
/// copied there and back with what lies between their elements.

#include <doctest/doctest.h>

#include "cases/apply_case.hpp"
#include "cases/operands.hpp"

#include <tessera/tessera.cuh>

#include <string>

namespace tessera_test {

using device = ts::cuda<90>;

inline void wait() { REQUIRE(cudaDeviceSynchronize() == cudaSuccess); }

/// A matrix on the device, with the strides of a host's; `shift` elements beyond an aligned address.
template <class T>
class on_device {
    using element = std::remove_const_t<T>;

public:
    explicit on_device(ts::matrix_view<T> host, index_t shift = 0)
        : host_{host}, memory_{host.mapping().required_span_size() + shift + 1},
          view_{memory_.data() + shift, host.mapping(), ts::device_accessor<T>{}} {
        ts::device_matrix_view<element> const to{memory_.data() + shift, host.mapping(), ts::device_accessor<element>{}};
        ts::copy(device{}, host, to);
        wait();
    }
    ts::device_matrix_view<T> view() const { return view_; }
    /// Copies it back to where it came from.
    void fetch() const {
        ts::copy(device{}, view_, host_);
        wait();
    }

private:
    ts::matrix_view<T> host_;
    ts::device_buffer<element> memory_;
    ts::device_matrix_view<T> view_;
};

/// y = x Wᵀ on the device, y fetched.
template <class Op, class X, class Y, class... Finish>
void apply_there(Op const& placed, guarded<X> const& x, guarded<Y>& y, Finish const&... finish) {
    y.clear();
    on_device<X const> const dx{x.view()};
    on_device<Y> const dy{y.view()};
    ts::apply(device{}, placed, dx.view(), dy.view(), finish...);
    wait();
    dy.fetch();
    CHECK(y.is_intact());
}

/// Every row alone gives the bits it has in the batch, and so does another run.
template <class Op>
void check_bits(Op const& placed, guarded<float> const& x, guarded<float> const& y) {
    guarded<float> again{x.view().extent(0), y.view().extent(1)};
    apply_there(placed, x, again);
    CHECK(same_bits<float>(again.view(), y.view()));
    on_device<float const> const dx{x.view()};
    guarded<float> one{1, y.view().extent(1)};
    for (index_t m = 0; m < x.view().extent(0); m += 5) {
        on_device<float> const dy{one.view()};
        ts::apply(device{}, placed, ts::rows(dx.view(), m, m + 1), dy.view());
        wait();
        dy.fetch();
        CHECK(same_bits<float>(one.view(), ts::rows(y.view(), m, m + 1)));
    }
}

/// The law of a stored matrix: over the processors' shapes, the placed product and its transpose are the reference's; returns the
/// worst error / tolerance.
template <class Storage, class Preparation>
double check_device_law() {
    double worst = 0;
    index_t turn = 0;
    for (product_shape const s : product_shapes<Storage>()) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Storage const owner{s.n, s.k};
        ts::linear const w{owner.view(), Preparation{}};
        guarded<float> x{s.m, s.k, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> y{s.m, s.n, turn % 2, turn % 5 == 4 ? 3 : 1};
        ++turn;
        x.fill(17);
        apply_case<std::remove_const_t<decltype(w)>> const expected{w, x.view()};
        auto const placed = ts::place(device{}, w);
        apply_there(placed.view(), x, y);
        double const ratio = expected.worst_ratio(ts::matrix_view<float const>{y.view()});
        CHECK(ratio <= 1.0);
        worst = std::fmax(worst, ratio);
        auto const turned = ts::transposed(w);
        guarded<float> dy{s.m, s.n, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> dx{s.m, s.k, turn % 2, turn % 5 == 4 ? 3 : 1};
        dy.fill(19);
        apply_case<std::remove_const_t<decltype(turned)>> const expected_turned{turned, dy.view()};
        apply_there(ts::transposed(placed.view()), dy, dx);
        double const turned_ratio = expected_turned.worst_ratio(ts::matrix_view<float const>{dx.view()});
        CHECK(turned_ratio <= 1.0);
        worst = std::fmax(worst, turned_ratio);
        if (turn % 4 == 1 && !std::is_same_v<Preparation, ts::as_bf16>) check_bits(placed.view(), x, y); // see kernels/cuda/tiles.cuh
    }
    return worst;
}

template <class Storage, class Preparation = ts::as_is>
void report_device_law(std::string const& name) {
    double const worst = check_device_law<Storage, Preparation>();
    MESSAGE(name << ": worst error / tolerance " << worst);
}

/// An operator of any kind against the reference, with x and y of the given types.
template <class X = float, class Y = float, class Op>
double check_operator(Op const& w, index_t m) {
    guarded<X> x{m, w.cols()};
    guarded<Y> y{m, w.rows()};
    x.fill(23);
    apply_case<Op, X> const expected{w, x.view()};
    auto const placed = ts::place(device{}, w);
    apply_there(placed, x, y);
    double const ratio = expected.worst_ratio(ts::matrix_view<Y const>{y.view()});
    CHECK(ratio <= 1.0);
    return ratio;
}

/// The same bits from a graph of one call.
template <class Placed>
void check_captured(Placed const& placed, index_t m) {
    guarded<float> x{m, placed.view().cols()};
    guarded<float> y{m, placed.view().rows()};
    guarded<float> expected{m, placed.view().rows()};
    x.fill(1);
    apply_there(placed, x, expected);
    y.clear();
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float> const dy{y.view()};
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    ts::device_workspace workspace;
    device const exec{workspace, stream};
    exec.reserve(ts::workspace_bytes(exec, placed, dx.view()));
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    ts::apply(exec, placed, dx.view(), dy.view());
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    cudaGraphExec_t run = nullptr;
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    for (int i = 0; i < 2; ++i) REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    dy.fetch();
    CHECK(same_bits(y, expected));
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}

} // namespace tessera_test
