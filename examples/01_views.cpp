// SPDX-License-Identifier: MIT
// Views: one piece of memory read in many shapes. A fused projection wrote q, k and v of every token side by side; here they
// are taken apart, cut into heads and turned around without copying a number.

#include <tessera/nn/softmax.hpp>
#include <tessera/operators/apply.hpp>

#include <cstdio>

namespace ts = tessera;

int main() {
    ts::index_t const tokens = 3, heads = 2, dim = 4;

    // An owner: `matrix` allocates, and frees in its destructor. Element (token, column), row-major.
    ts::matrix<float> qkv{tokens, 3 * heads * dim};
    for (ts::index_t i = 0; i < qkv.size(); ++i) qkv.data()[i] = static_cast<float>(i);

    // A view is a pointer, extents and strides. It copies like an integer, and never owns: the names are std::mdspan's.
    auto const k = ts::columns(qkv.view(), heads * dim, 2 * heads * dim);
    std::printf("k:       %ld x %ld, rows %ld floats apart, begins with %g\n", long(k.extent(0)), long(k.extent(1)),
                long(k.stride(0)), double{k(0, 0)});

    // Any strides make a view: the same memory as (token, head, dim).
    ts::index_t const strides[] = {k.stride(0), dim, 1};
    ts::tensor_view<float, 3> const by_head{k.data_handle(), {ts::dynamic_extents<3>{tokens, heads, dim}, strides}};

    // A slice drops a dimension where it is given an index, and keeps one where it is given `all` or a range.
    auto const head = ts::slice(by_head, ts::all, 1, ts::all);                     // (tokens, dim) of head 1
    auto const turned = ts::transposed(ts::slice(by_head, ts::range{1, 3}, 1, ts::all)); // (dim, the last two tokens)
    std::printf("head 1:  %ld x %ld, its last row is %g %g %g %g\n", long(head.extent(0)), long(head.extent(1)),
                double{head(2, 0)}, double{head(2, 1)}, double{head(2, 2)}, double{head(2, 3)});

    // Writing through a view writes the owner.
    turned(3, 1) = 100;
    std::printf("turned:  %ld x %ld, wrote its corner: qkv(2, 15) is now %g\n", long(turned.extent(0)), long(turned.extent(1)),
                double{qkv(2, 15)});

    // Operations take any strides too, and memory that is not tessera's.
    ts::cpu<> const exec;
    float probabilities[3 * 4];
    ts::matrix_view<float> const p{probabilities, tokens, dim};
    ts::softmax(exec, head, p);
    std::printf("softmax: row 0 is %.3f %.3f %.3f %.3f\n", double{p(0, 0)}, double{p(0, 1)}, double{p(0, 2)}, double{p(0, 3)});

    // What does not fit is refused before anything is written, with both numbers.
    ts::matrix<float> y{tokens, tokens};
    try {
        ts::apply(exec, ts::linear{turned}, head, y); // y = head turnedᵀ needs 2 columns in head
    } catch (ts::shape_error const& error) {
        std::printf("error:   %s\n", error.what());
    }
    ts::apply(exec, ts::linear{k}, k, y);                   // y = k kᵀ
    std::printf("k kT:    y(0, 1) is %g\n", double{y(0, 1)});
}
// Output:
// k:       3 x 8, rows 24 floats apart, begins with 8
// head 1:  3 x 4, its last row is 60 61 62 63
// turned:  4 x 2, wrote its corner: qkv(2, 15) is now 100
// softmax: row 0 is 0.032 0.087 0.237 0.644
// error:   tessera: apply: columns of x is 4, expected 2 (columns of the operator)
// k kT:    y(0, 1) is 3308
