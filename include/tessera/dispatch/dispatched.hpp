// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The policy `cpu<dispatched, Parallel>`: operators that any_operator.hpp erased, each with the instruction set of the object
/// that erased it.
///
/// Between the caller and that object passes one policy type, `boundary_policy`: it lends the caller's threads and scratch
/// memory, so that loops run in the caller's backend (an object of tessera_add_dispatch has its own copy of what inline
/// functions keep in static variables), and what is compiled for an instruction set does not depend on the backend.

#include "../kernels/cpu/prepare.hpp"
#include "../operators/linear_operator.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A parallel backend of unknown type, which must outlive it.
class lent_parallel {
public:
    template <class Parallel>
        requires(!std::is_same_v<Parallel, lent_parallel> && parallel_backend<Parallel>)
    explicit lent_parallel(Parallel const& backend) noexcept
        : backend_{&backend},
          concurrency_{[](void const* b) noexcept { return static_cast<index_t>(static_cast<Parallel const*>(b)->concurrency()); }},
          run_{[](void const* b, index_t chunks, call_type call, void const* f) noexcept {
              static_cast<Parallel const*>(b)->run(chunks, [call, f](index_t c, index_t worker) noexcept { call(f, c, worker); });
          }} {}

    index_t concurrency() const noexcept { return concurrency_(backend_); }

    template <class F>
    void run(index_t chunks, F const& f) const noexcept {
        run_(backend_, chunks,
             [](void const* function, index_t c, index_t worker) noexcept { (*static_cast<F const*>(function))(c, worker); }, &f);
    }

private:
    using call_type = void (*)(void const*, index_t, index_t) noexcept;

    void const* backend_;
    index_t (*concurrency_)(void const*) noexcept;
    void (*run_)(void const*, index_t, call_type, void const*) noexcept;
};
static_assert(parallel_backend<lent_parallel>);

template <class T>
inline constexpr bool is_dispatched = false;
template <class Parallel>
inline constexpr bool is_dispatched<cpu<dispatched, Parallel>> = true;

/// The policy with which an erased operator is called, and that in which it runs.
template <class Exec, class Arch>
struct erased_policies {
    using boundary = Exec;
    using run = Exec;
};
template <class Parallel, class Arch>
struct erased_policies<cpu<dispatched, Parallel>, Arch> {
    using boundary = cpu<dispatched, lent_parallel>;
    using run = cpu<Arch, lent_parallel>;
};
template <class Exec>
using boundary_policy = typename erased_policies<Exec, dispatched>::boundary;

template <class Exec>
Exec const& at_boundary(Exec const& exec) noexcept {
    return exec;
}
template <class Parallel>
    requires(!std::is_same_v<Parallel, lent_parallel>)
cpu<dispatched, lent_parallel> at_boundary(cpu<dispatched, Parallel> const& exec) noexcept {
    return {lent_parallel{exec.parallel()}, exec.scratch()};
}

/// The other side of the border.
template <class Run, class Exec>
Run running(Exec const& exec) noexcept {
    if constexpr (std::is_same_v<Run, Exec>)
        return exec;
    else
        return Run{exec.parallel(), exec.scratch()};
}

} // namespace detail

/// x in float32, by the instructions of the file that calls.
template <class Parallel, index_t SumGroup>
struct kernel<op::prepare, cpu<dispatched, Parallel>, float_rows<SumGroup, as_is>>
    : kernel<op::prepare, cpu<native_arch, Parallel>, float_rows<SumGroup, as_is>> {
    template <class T>
    static void run(cpu<dispatched, Parallel> const& exec, matrix_view<T const> const& x,
                    float_rows<SumGroup, as_is> const& form) noexcept {
        kernel<op::prepare, cpu<native_arch, Parallel>, float_rows<SumGroup, as_is>>::run({exec.parallel(), exec.scratch()}, x, form);
    }
};

template <class Parallel, class Storage, class Preparation>
struct kernel<op::apply, cpu<dispatched, Parallel>, linear<Storage, Preparation>> {
    static_assert(detail::always_false<Storage>,
                  "tessera: cpu<dispatched> multiplies erased operators: erase or place this one in a unit of tessera_add_dispatch");
};

} // namespace tessera::inline TESSERA_ABI
