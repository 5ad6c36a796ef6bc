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

    /// Fills those that lie in blocks of rows (`lies_in_blocks`): slices of one row leave them out.
    template <class Exec, class X>
    void run_blocks(Exec const& exec, X const& x) const noexcept {
        auto const one = [&]<class F>(F const& form) noexcept {
            if constexpr (requires { typename F::lies_in_blocks; }) kernel<op::prepare, Exec, F>::run(exec, x, form);
        };
        (one(get<Form>()), ...);
    }

    /// These forms of a set that has more.
    template <class Set>
    static input_set of(Set const& set) noexcept {
        input_set part;
        ((static_cast<detail::input_slot<Form>&>(part).form = set.template get<Form>()), ...);
        return part;
    }
    /// Rows [first, first + count) of every form.
    input_set slice(index_t first, index_t count) const noexcept {
        input_set part;
        ((static_cast<detail::input_slot<Form>&>(part).form = get<Form>().slice(first, count)), ...);
        return part;
    }

    /// Carves the arrays of `rows` rows like those of `from`.
    template <class Exec, class Arena>
    static input_set plan_gather(input_set const& from, index_t rows, Arena& arena) {
        input_set set;
        ((static_cast<detail::input_slot<Form>&>(set).form =
              kernel<op::gather, Exec, Form>::plan(from.template get<Form>(), rows, arena)), ...);
        return set;
    }
    /// Row i of this becomes row `row[i]` of `from`: x that is prepared once and read in another order.
    template <class Exec>
    void gather(Exec const& exec, input_set const& from, index_t const* row) const noexcept {
        (kernel<op::gather, Exec, Form>::run(exec, from.template get<Form>(), row, get<Form>()), ...);
    }

private:
    template <class F>
    static constexpr bool is_in_list = detail::is_in<F, type_list<Form...>>;
};

} // namespace tessera::inline TESSERA_ABI
