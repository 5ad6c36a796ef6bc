// SPDX-License-Identifier: MIT
// The functions of nn/ against PyTorch and transformers: tests/data/nn/make.py wrote the vectors.
#include "nn_support.hpp"
#include "support/vectors.hpp"

#include <tessera/nn/activation.hpp>
#include <tessera/nn/norm.hpp>
#include <tessera/nn/rope.hpp>
#include <tessera/nn/softmax.hpp>

#include <map>

using namespace nn_test;
using tessera_test::array;

namespace {

std::map<std::string, array> const& arrays() {
    static std::map<std::string, array> const all = tessera_test::read_arrays("nn/nn");
    return all;
}

array const& get(char const* name) { return arrays().at(name); }

/// f(exec, slack) for the reference and every CPU policy; `slack` scales the bound of the float32 computation.
template <class F>
void for_each_policy(F const& f) {
    f(ts::reference{}, 0.0);
    for_each_cpu([&](auto const& exec) { f(exec, 1.0); });
}

constexpr index_t m = 5;
constexpr index_t n = 71;

/// Rounding of the stored vector and of y.
double both(double y) { return 2.01 * u * std::abs(y) + 0x1p-149; }

} // namespace

TEST_CASE("norms and their gradients as PyTorch computes them in float64") {
    auto const x = get("x").matrix();
    auto const w = get("weight").vector();
    guarded<float> y(m, n, 0);
    guarded<float> dw(2, n, 0);
    auto const dweight = ts::slice(dw.view(), 0, ts::all);
    auto const dbias = ts::slice(dw.view(), 1, ts::all);
    // The data is of order one (3 deviations of x become 1), so the terms of a gradient are at most `size`.
    double const size = 3 * 4;
    for_each_policy([&](auto const& exec, double slack) {
        ts::rms_norm(exec, x, w, 1e-5f, y.view());
        auto const rms = [&](double v) { return both(v) + slack * gamma_of(n / 2 + 9) * std::abs(v); };
        // PyTorch's epsilon is the double 1e-5, ours the float nearest to it: 3e-13 of r.
        check_close(y.view(), get("rms_norm"), [&](index_t i, index_t k) { return rms(get("rms_norm")(i, k)); });
        // transformers in float32: the same bound once more for its own roundings.
        check_close(y.view(), get("llama_rms_norm_float32"), [&](index_t i, index_t k) {
            return rms(get("rms_norm")(i, k)) + gamma_of(n / 2 + 9) * std::abs(get("rms_norm")(i, k));
        });
        ts::layer_norm(exec, x, w, get("bias").vector(), 1e-5f, y.view());
        check_close(y.view(), get("layer_norm"), [&](index_t i, index_t k) {
            double const b = std::abs(double{get("bias").vector()[k]});
            double const v = get("layer_norm")(i, k);
            return both(v) + slack * (gamma_of(n / 2 + 10) * (std::abs(v) + b) + u * std::abs(v) +
                                      gamma_of(n + 2) * std::abs(double{w[k]}));
        });
        auto const gradient = [&](double v) { return both(v) + slack * gamma_of(2 * n + 20) * size; };
        auto const near = [&](char const* name) {
            return [&, name](index_t i, index_t k) { return gradient(get(name)(i, k)); };
        };
        auto const check_vector = [&](ts::vector_view<float> actual, char const* name) {
            for (index_t k = 0; k < n; ++k)
                CHECK(std::abs(double{actual[k]} - double{get(name).vector()[k]}) <=
                      gradient(double{get(name).vector()[k]}));
        };
        ts::rms_norm_backward(exec, x, w, 1e-5f, get("dy").matrix(), y.view(), dweight);
        check_close(y.view(), get("rms_norm_dx"), near("rms_norm_dx"));
        check_vector(dweight, "rms_norm_dweight");
        ts::layer_norm_backward(exec, x, w, 1e-5f, get("dy").matrix(), y.view(), dweight, dbias);
        check_close(y.view(), get("layer_norm_dx"), near("layer_norm_dx"));
        check_vector(dweight, "layer_norm_dweight");
        check_vector(dbias, "layer_norm_dbias");
    });
}

TEST_CASE("softmax, activations and swiglu as PyTorch computes them in float64") {
    auto const x = get("x").matrix();
    guarded<float> y(m, n, 1);
    for_each_policy([&](auto const& exec, double slack) {
        auto const check = [&](char const* name, double relative, double theirs = 0) {
            CAPTURE(std::string{name});
            check_close(y.view(), get(name), [&](index_t i, index_t k) {
                double const v = get(name)(i, k);
                return both(v) + slack * relative * std::abs(v) + theirs;
            });
        };
        ts::softmax(exec, x, y.view());
        check("softmax", gamma_of(n + 8) + 2 * u * 24); // |x - max| is below 24
        ts::silu(exec, x, y.view());
        check("silu", 3.5 * 2 * u);
        ts::gelu(exec, x, y.view());
        // |x| < 12, the bounds without FMA. PyTorch adds 1 and erf or tanh, which cancel below 0: 2^-52 |x|.
        check("gelu_erf", 2 * u * (8 + 0.5 * 12 * 12), 12 * 0x1p-52);
        ts::activate(exec, ts::activation::gelu_tanh{}, x, y.view());
        check("gelu_tanh", 2 * u * (4 + 3 * 1.6 * (12 + 0.0447 * 12 * 12 * 12)), 12 * 0x1p-52);
        ts::swiglu(exec, x, get("up").matrix(), y.view());
        check("swiglu", 4.5 * 2 * u);
    });
}

TEST_CASE("rope as transformers and as complex multiplication in PyTorch") {
    auto const q = get("q").heads();
    ts::tensor<float, 3> y(7, 3, 16);
    for_each_policy([&](auto const& exec, double) {
        auto const check = [&](char const* name, double angle_error) {
            CAPTURE(name);
            for (index_t i = 0; i < y.size(); ++i) {
                auto const at = static_cast<std::size_t>(i);
                index_t const pair_of = i / 16 * 16;
                double size = 0; // of any pair of this head
                for (index_t k = 0; k < 16; ++k)
                    size = std::max(size, 2 * std::abs(double{q.data_handle()[pair_of + k]}));
                // Both round the cosine, the sine, two products and a sum.
                CHECK(std::abs(double{y.data()[i]} - double{get(name).data[at]}) <= (6 * u + angle_error) * size);
            }
        };
        ts::rope(exec, ts::rope_interleaved{}, q, ts::rope_table(100, 16), 90, y);
        check("rope_interleaved_10000", 0);
        // transformers rounds the frequency (a power of a float32) and the angle, at most 97, to float32.
        ts::rope(exec, ts::rope_halves{}, q, ts::rope_table(100, 16), 90, y);
        check("rope_halves_10000_float32", 4 * u * 97);
        ts::rope(exec, ts::rope_halves{}, q, ts::rope_table(100, 16, 500000.0), 90, y);
        check("rope_halves_500000_float32", 4 * u * 97);
    });
}
