// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Families of sums on CUDA devices: what begins with a stored matrix runs in a launch for all members, the rest as it can.

#include "../kernels/cuda/grouped.cuh"
#include "apply.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Sums: the second term, then the first on top of it.
template <int Sm, class A, class B>
    requires requires { typename grouped_product_of<Sm, A>::panels; }
struct grouped_product_of<Sm, sum<A, B>> {
    template <class X, class Y, class Finish, class Arena>
    static void run(cuda<Sm> const& exec, device_family<sum<A, B>> const& w, matrix_view<X const> const& x, device_groups const& g,
                    product_output<Y, Finish> out, Arena& arena) {
        if (w.members == 0) return;
        index_t const n = w[0].rows();
        matrix_view<float> const under{arena.template carve<float>(g.slots, n), g.slots, n};
        auto const second = w.template part<B>([](sum<A, B> const& s) -> B const& { return s.second(); });
        auto const first = w.template part<A>([](sum<A, B> const& s) -> A const& { return s.first(); });
        grouped_product_of<Sm, B>::run(exec, second, x, g, product_output<float, no_epilogue>{under, out.base, out.base_stride, out.factor, {}}, arena);
        out.base = under.data_handle();
        out.base_stride = under.stride(0);
        grouped_product_of<Sm, A>::run(exec, first, x, g, out, arena);
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
