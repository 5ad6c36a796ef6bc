// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What `place` returns: the owner of every node of the algebra, made of those of its leaves, which a backend adds
/// (`place.hpp` for processors, `place.cuh` for CUDA devices); and `place` for the definition, which places nothing.

#include "../core/exec.hpp"
#include "../storage/memory_arena.hpp"
#include "linear_operator.hpp"

namespace tessera::inline TESSERA_ABI {

/// Owner of a placed operator; `view()` is the operator. A move leaves an empty one. Specialised for every node of the algebra.
template <class Exec, class Op>
class placed {
    static_assert(detail::always_false<Exec, Op>, "tessera: place: this operator cannot be placed for this policy");
};

template <class Exec, class A, class B>
class placed<Exec, sum<A, B>> {
public:
    placed(Exec const& exec, sum<A, B> const& s, memory_arena* arena = nullptr)
        : a_{exec, s.first(), arena}, b_{exec, s.second(), arena} {}
    auto view() const& { return a_.view() + b_.view(); }
    void view() const&& = delete;
    index_t bytes() const noexcept { return a_.bytes() + b_.bytes(); }

private:
    placed<Exec, A> a_;
    placed<Exec, B> b_;
};

template <class Exec, class A, class B>
class placed<Exec, product<A, B>> {
public:
    placed(Exec const& exec, product<A, B> const& p, memory_arena* arena = nullptr)
        : a_{exec, p.first(), arena}, b_{exec, p.second(), arena} {}
    auto view() const& { return a_.view() * b_.view(); }
    void view() const&& = delete;
    index_t bytes() const noexcept { return a_.bytes() + b_.bytes(); }

private:
    placed<Exec, A> a_;
    placed<Exec, B> b_;
};

template <class Exec, class A>
class placed<Exec, scaled_operator<A>> {
public:
    placed(Exec const& exec, scaled_operator<A> const& s, memory_arena* arena = nullptr)
        : inner_{exec, s.inner(), arena}, factor_{s.factor()} {}
    auto view() const& { return factor_ * inner_.view(); }
    void view() const&& = delete;
    index_t bytes() const noexcept { return inner_.bytes(); }

private:
    placed<Exec, A> inner_;
    float factor_;
};

template <class Exec, class B, class A>
class placed<Exec, low_rank<B, A>> : public placed<Exec, scaled_operator<product<B, A>>> {
public:
    placed(Exec const& exec, low_rank<B, A> const& w, memory_arena* arena = nullptr)
        : placed<Exec, scaled_operator<product<B, A>>>{exec, w, arena} {}
};

template <class Exec, class A>
class placed<Exec, transposed_operator<A>> {
public:
    placed(Exec const& exec, transposed_operator<A> const& t, memory_arena* arena = nullptr)
        : inner_{exec, t.inner(), arena} {}
    auto view() const& { return transposed(inner_.view()); }
    void view() const&& = delete;
    index_t bytes() const noexcept { return inner_.bytes(); }

private:
    placed<Exec, A> inner_;
};

template <class Exec, class A, class Side>
class placed<Exec, operator_slice<A, Side>> {
public:
    placed(Exec const& exec, operator_slice<A, Side> const& s, memory_arena* arena = nullptr)
        : inner_{exec, s.inner(), arena}, first_{s.first()}, last_{s.last()} {}
    auto view() const& { return operator_slice<decltype(inner_.view()), Side>{inner_.view(), first_, last_}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return inner_.bytes(); }

private:
    placed<Exec, A> inner_;
    detail::emptied_by_move<index_t> first_;
    detail::emptied_by_move<index_t> last_;
};

/// What `place` returns for `reference`, which reads operators as they are: it owns nothing, and what `op` refers to must
/// outlive it.
template <class Op>
class unplaced {
public:
    explicit unplaced(Op const& op) : op_{op} {}
    Op view() const& { return op_; }
    void view() const&& = delete;
    static constexpr index_t bytes() noexcept { return 0; }

private:
    Op op_;
};

/// The same call for the definition: `using backend = reference` compiles.
template <linear_operator Op>
unplaced<Op> place(reference const&, Op const& w) {
    return unplaced<Op>{w};
}
template <linear_operator Op>
unplaced<Op> place(reference const&, Op const& w, memory_arena&) {
    return unplaced<Op>{w};
}

} // namespace tessera::inline TESSERA_ABI
