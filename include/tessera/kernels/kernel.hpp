// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kernel<Operation, Exec, Operand>`: the table of kernels. A kernel is a partial specialisation; what is not there
/// fails with one sentence.
///
/// **kernel<op::prepare, Exec, Form>**: x (m, k) into a form (storage/scheme.hpp names the requests):
///
///     using type                                                              // the form, a trivially copyable view
///     static type plan(x, arena)                                              // carves its arrays
///     static void run(exec, x, type)                                          // fills them
///
/// **kernel<op::gather, Exec, Form>**: rows of a prepared x in another order, for products of several operands with a part
/// of x each: `plan(from, rows, arena)` and `run(exec, from, row, to)`.
///
/// **kernel<op::apply, Exec, Operand>**: a term of an operator, by the contract of prepare, accumulate, finish:
///
///     using forms = type_list<...>                                            // what it wants of x
///     struct state                                                            // what it carves besides, trivially copyable
///     static state plan(exec, operand, m, arena)
///     static void prepare(exec, operand, inputs, state)                       // once x's forms are there
///     static void accumulate(operand, inputs, state, task, scratch)           // acc += factor * part of x Wᵀ
///     static index_t scratch_bytes(operand, task size)
///
/// A task is a tile of rows of x by rows of W over all of k; its accumulator is float32, and the only place where the
/// terms of a sum meet.
///
/// A term that is the whole operator may make tiles by itself, from an accumulator that holds anything, and then finishes the
/// parts of each as they become complete:
///
///     static void make(operand, inputs, state, task, scratch, tile_finisher)
///
/// **kernel<op::decode, Exec, Operand>**: `static void tile(operand, n0, n1, k0, k1, out, stride)`.

#include "../core/exec.hpp"
#include "../core/types.hpp"
#include "ops.hpp"

#include <cstddef>

namespace tessera::inline TESSERA_ABI {

template <class Operation, class Exec, class Operand>
struct kernel {
    static_assert(detail::always_false<Operation, Exec, Operand>,
                  "tessera: there is no kernel for this operation, execution policy and operand");
};

/// A list of types.
template <class... T>
struct type_list {};

namespace detail {

template <class T, class List>
inline constexpr bool is_in = false;
template <class T, class... U>
inline constexpr bool is_in<T, type_list<U...>> = (std::is_same_v<T, U> || ...);

template <class A, class B>
struct list_union;
template <class... A>
struct list_union<type_list<A...>, type_list<>> {
    using type = type_list<A...>;
};
template <class... A, class B, class... Rest>
struct list_union<type_list<A...>, type_list<B, Rest...>>
    : list_union<std::conditional_t<is_in<B, type_list<A...>>, type_list<A...>, type_list<A..., B>>, type_list<Rest...>> {};

} // namespace detail

/// The types of both lists, each once.
template <class A, class B>
using list_union = typename detail::list_union<A, B>::type;

/// One tile of the output of a product: rows [m0, m1) of x, rows [n0, n1) of W.
/// accumulator(m - m0, n - n0) at accumulator[(m - m0) * stride + n - n0].
struct product_task {
    index_t m0;
    index_t m1;
    index_t n0;
    index_t n1;
    float factor;
    float* accumulator;
    index_t stride;
};

/// What is done with a part of a tile that is complete; task.accumulator is that of the part's first element.
class tile_finisher {
public:
    /// For a functor that outlives it.
    template <class Finish>
    explicit tile_finisher(Finish const& finish) noexcept
        : context_{&finish}, call_{[](void const* f, product_task const& part) noexcept { (*static_cast<Finish const*>(f))(part); }} {}

    void operator()(product_task const& part) const noexcept { call_(context_, part); }

private:
    void const* context_;
    void (*call_)(void const*, product_task const&) noexcept;
};

} // namespace tessera::inline TESSERA_ABI
