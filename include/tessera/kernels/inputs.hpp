// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The prepared forms of one x, each type once: what the terms of an operator read from.

#include "kernel.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Form>
struct input_slot {
    Form form{};
};

} // namespace detail

template <class List>
class input_set;

/// A value of every form of the list; trivially copyable.
template <class... Form>
class input_set<type_list<Form...>> : private detail::input_slot<Form>... {
public:
    template <class F>
    F const& get() const noexcept {
        static_assert(is_in_list<F>, "tessera: x was not prepared in the form that this operator wants");
        return static_cast<detail::input_slot<F> const&>(*this).form;
    }

    /// Carves the arrays of all forms of x.
    template <class Exec, class X, class Arena>
    static input_set plan(X const& x, Arena& arena) {
        input_set set;
        ((static_cast<detail::input_slot<Form>&>(set).form = kernel<op::prepare, Exec, Form>::plan(x, arena)), ...);
        return set;
    }

    /// Fills them.
    template <class Exec, class X>
    void run(Exec const& exec, X const& x) const noexcept {
        (kernel<op::prepare, Exec, Form>::run(exec, x, get<Form>()), ...);
    }

private:
    template <class F>
    static constexpr bool is_in_list = detail::is_in<F, type_list<Form...>>;
};

} // namespace tessera::inline TESSERA_ABI
