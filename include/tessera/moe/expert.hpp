// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What an expert can be: any linear operator, or a gated unit of three of them,
///
///     y = (F(x Gateᵀ) * (x Upᵀ)) Downᵀ,        F = silu: SwiGLU
///
/// and what a token gets besides its experts: nothing, a shared expert, or one that is weighted by a sigmoid (Qwen2-MoE).

#include "../kernels/activation.hpp"
#include "../operators/placed.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// gate, up (f, k) and down (n, f); a trivially copyable view.
template <linear_operator Gate, linear_operator Up = Gate, linear_operator Down = Up,
          activation_function Activation = activation::silu>
class gated_expert {
public:
    using is_expert = void;
    using activation_type = Activation;

    gated_expert(Gate const& gate, Up const& up, Down const& down, Activation = {}) : gate_{gate}, up_{up}, down_{down} {
        check::equal("gated_expert", "rows of up", up.rows(), gate.rows(), "rows of gate");
        check::equal("gated_expert", "columns of up", up.cols(), gate.cols(), "columns of gate");
        check::equal("gated_expert", "columns of down", down.cols(), gate.rows(), "rows of gate");
    }
    constexpr index_t rows() const noexcept { return down_.rows(); }
    constexpr index_t cols() const noexcept { return gate_.cols(); }
    constexpr index_t width() const noexcept { return gate_.rows(); } ///< f
    constexpr Gate const& gate() const noexcept { return gate_; }
    constexpr Up const& up() const noexcept { return up_; }
    constexpr Down const& down() const noexcept { return down_; }

private:
    Gate gate_;
    Up up_;
    Down down_;
};

namespace detail {

template <class E>
inline constexpr bool is_gated_expert = false;
template <class G, class U, class D, class A>
inline constexpr bool is_gated_expert<gated_expert<G, U, D, A>> = true;

} // namespace detail

/// A linear operator or a gated unit.
template <class E>
concept expert = linear_operator<E> || detail::is_gated_expert<E>;

/// No expert besides the chosen ones.
struct no_shared_expert {};

/// An expert that every token gets, with weight 1.
template <expert Expert>
class shared_expert {
public:
    using expert_type = Expert;
    explicit shared_expert(Expert const& e) : expert_{e} {}
    constexpr Expert const& expert() const noexcept { return expert_; }

private:
    Expert expert_;
};

/// The same with weight sigmoid(x wᵀ), w (1, k).
template <expert Expert, linear_operator Weight>
class gated_shared_expert {
public:
    using expert_type = Expert;
    using weight_type = Weight;
    gated_shared_expert(Expert const& e, Weight const& w) : expert_{e}, weight_{w} {
        check::equal("gated_shared_expert", "rows of the weight", w.rows(), 1, "one number for a token");
        check::equal("gated_shared_expert", "columns of the weight", w.cols(), e.cols(), "columns of the expert");
    }
    constexpr Expert const& expert() const noexcept { return expert_; }
    constexpr Weight const& weight() const noexcept { return weight_; }

private:
    Expert expert_;
    Weight weight_;
};

namespace detail {

template <class S>
inline constexpr bool is_gated_shared = false;
template <class E, class W>
inline constexpr bool is_gated_shared<gated_shared_expert<E, W>> = true;

template <class Exec, class Op>
using placed_view = decltype(std::declval<placed<Exec, Op> const&>().view());

} // namespace detail

template <class Exec, class G, class U, class D, class A>
class placed<Exec, gated_expert<G, U, D, A>> {
public:
    placed(Exec const& exec, gated_expert<G, U, D, A> const& e, memory_arena* arena = nullptr)
        : gate_{exec, e.gate(), arena}, up_{exec, e.up(), arena}, down_{exec, e.down(), arena} {}
    auto view() const& { return gated_expert{gate_.view(), up_.view(), down_.view(), A{}}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return gate_.bytes() + up_.bytes() + down_.bytes(); }

private:
    placed<Exec, G> gate_;
    placed<Exec, U> up_;
    placed<Exec, D> down_;
};

template <class Exec>
class placed<Exec, no_shared_expert> {
public:
    placed(Exec const&, no_shared_expert, memory_arena* = nullptr) noexcept {}
    no_shared_expert view() const noexcept { return {}; }
    index_t bytes() const noexcept { return 0; }
};

template <class Exec, class E>
class placed<Exec, shared_expert<E>> {
public:
    placed(Exec const& exec, shared_expert<E> const& s, memory_arena* arena = nullptr) : expert_{exec, s.expert(), arena} {}
    auto view() const& { return shared_expert<detail::placed_view<Exec, E>>{expert_.view()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return expert_.bytes(); }

private:
    placed<Exec, E> expert_;
};

template <class Exec, class E, class W>
class placed<Exec, gated_shared_expert<E, W>> {
public:
    placed(Exec const& exec, gated_shared_expert<E, W> const& s, memory_arena* arena = nullptr)
        : expert_{exec, s.expert(), arena}, weight_{exec, s.weight(), arena} {}
    auto view() const& { return gated_shared_expert{expert_.view(), weight_.view()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return expert_.bytes() + weight_.bytes(); }

private:
    placed<Exec, E> expert_;
    placed<Exec, W> weight_;
};

} // namespace tessera::inline TESSERA_ABI
